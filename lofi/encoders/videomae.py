"""VideoMAE's vision transformer: space-time attention over the tubelets of one snippet, on timm's blocks.

Tong et al., NeurIPS 2022, arXiv:2203.12602 (S, B, L, H) and VideoMAE V2, Wang et al., CVPR 2023, arXiv:2303.16727 (g,
with patches of 14 pixels). Tubelets of 2 x 16 x 16 are embedded by one convolution, a fixed sine table of positions
is added, every tubelet attends to every other (fused attention, in timm's `Block`), and the mean over all tubelets is
normalised: the feature of the network's last linear layer. With a feature per tubelet time it is the mean over that
time's tubelets, in the order of AdaTAD (arXiv:2311.17241), with that norm, and without AdaTAD's interpolation to one
position per frame. Two things are written otherwise than in the published code and compute the same: keys have a bias
here, which softmax cancels (their weights have it at zero), and drop path is drawn per snippet seed.

The table is made for the native 16 frames at 224 pixels, row by row over all tubelets; for other sizes it is
interpolated, linearly in time and bicubically in space, so that a position keeps the code that it was trained with.

frames (N,3,T,H,W) uint8 -> float -> tubelets (N, T/2 * H/16 * W/16, D) + table -> blocks -> mean, norm -> (N, D),
or (N, T/2, D) with a feature per tubelet time.
"""

import math

from timm.layers import trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from lofi.encoders.dropout import SnippetDropout, SnippetDropPath, drop_path_rates
from lofi.encoders.input_sizes import videomae_sizes
from lofi.encoders.lora import add_lora
from lofi.encoders.normalize_frames import IMAGENET_MEAN, IMAGENET_STD, NormalizeFrames
from lofi.encoders.position_table import interpolate_table, sine_table
from lofi.encoders.temporal_adapter import TemporalAdapter
from lofi.encoders.videomae_sizes import TUBELET, Size
from lofi.fidelity import Fidelity
from lofi.protocols import RunBlock, call_block


class Videomae(nn.Module):
    """A `protocols.SnippetEncoder`."""

    has_temporal_convolution = True

    def __init__(
        self,
        size: Size,
        *,
        has_adapters: bool = False,
        adapters_alone: bool = False,
        lora_rank: int = 0,
        feature_per_tubelet: bool = False,
        drop_path: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.feature_width = size.width
        self.frames_per_feature = TUBELET if feature_per_tubelet else None
        self.normalize = NormalizeFrames(mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.input_sizes = videomae_sizes(patch=size.patch)
        self.patch_embed = TubeletEmbedding(
            width=size.width, patch=size.patch, native=self.input_sizes.native
        )
        self.blocks = nn.ModuleList(
            VideomaeBlock(size, drop_path=rate, salt=1 + 2 * index, has_adapter=has_adapters)
            for index, rate in enumerate(drop_path_rates(drop_path, num_blocks=size.depth))
        )
        self.fc_norm = nn.LayerNorm(size.width, eps=1e-6)
        self.dropout = SnippetDropout(dropout)
        if adapters_alone:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(".adapter." in name)
        if lora_rank:
            add_lora(self, self.blocks, rank=lora_rank)

    @property
    def stages(self) -> list[nn.Module]:
        """What `frozen_stages` counts."""
        return [self.patch_embed, *self.blocks]

    @property
    def all_blocks(self) -> list[nn.Module]:
        """What `run_block` runs, in order."""
        return [self.patch_embed, *self.blocks, self.fc_norm]

    def forward(
        self, frames: Tensor, *, snippet_seeds: Tensor | None = None, run_block: RunBlock = call_block
    ) -> Tensor:
        """frames (N, 3, T, H, W) uint8 -> (N, D) or (N, T/2, D); see `protocols.SnippetEncoder`."""
        x_NPD = run_block(self.patch_embed, self.normalize(frames, order="NCTHW"))
        num_times = frames.shape[2] // TUBELET
        for block in self.blocks:
            x_NPD = run_block(block, x_NPD, num_times, snippet_seeds)
        if self.frames_per_feature is None:
            means = x_NPD.mean(dim=1)
        else:
            means = x_NPD.unflatten(1, (num_times, -1)).mean(dim=2)
        return self.dropout(run_block(self.fc_norm, means), snippet_seeds=snippet_seeds)

    def check_fidelity(self, fidelity: Fidelity) -> None:
        """Whole tubelets: an even number of frames, sides that the patch divides."""
        self.input_sizes.check(fidelity)


class TubeletEmbedding(nn.Module):
    """(N, 3, T, H, W) float -> (N, T/2 * H/P * W/P, D): one vector per tubelet, with its position's code added."""

    table: Tensor

    def __init__(self, *, width: int, patch: int, native: Fidelity) -> None:
        """`width`: D; `patch`: P, pixels; `native`: of a snippet, which the table of positions is made for."""
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(3, width, (TUBELET, patch, patch), stride=(TUBELET, patch, patch))
        self.native_grid = (native.frames // TUBELET, native.height // patch, native.width // patch)
        # Not in the state dict: it is a fact of the network, and no published file has it.
        self.register_buffer("table", sine_table(math.prod(self.native_grid), width=width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        tubelets_NDTHW = self.proj(x)
        grid = tuple(tubelets_NDTHW.shape[2:])
        codes = interpolate_table(self.table, grid=self.native_grid, to=grid)
        embedded: Tensor = tubelets_NDTHW.flatten(2).transpose(1, 2) + codes
        return embedded


class VideomaeBlock(Block):
    """timm's pre-norm transformer block, with its drop path by snippet seeds and perhaps an adapter behind it."""

    def __init__(self, size: Size, *, drop_path: float, salt: int, has_adapter: bool) -> None:
        super().__init__(size.width, size.heads, mlp_ratio=size.mlp_ratio, qkv_bias=True)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for place, name in enumerate(("drop_path1", "drop_path2")):
            setattr(self, name, SnippetDropPath(drop_path, salt=salt + place))
        self.adapter = TemporalAdapter(size.width) if has_adapter else None

    def forward(self, x: Tensor, num_times: int, snippet_seeds: Tensor | None) -> Tensor:  # type: ignore[override]
        """(N, num_times * S, D) -> the same shape; snippet_seeds (N,) int64 or None."""
        for drop_path in (self.drop_path1, self.drop_path2):
            assert isinstance(drop_path, SnippetDropPath)
            drop_path.begin(snippet_seeds)
        x = super().forward(x)
        return x if self.adapter is None else self.adapter(x, num_times)
