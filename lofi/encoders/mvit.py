"""MViT-v2-S: a multiscale vision transformer (Li et al., CVPR 2022, arXiv:2112.01526), on torchvision's modules.

Attention over all positions of the snippet, with pooled keys and values; space is halved three times. Positions enter
through tables of relative offsets per axis, made for 16 frames at 224 pixels (what torchvision's weights were trained
on), which torchvision's blocks interpolate linearly for other sizes. The feature is the normalised class token.

frames (N,3,T,H,W) uint8 -> float -> patches (N,1 + T/2 * H/4 * W/4,96) -> 16 blocks -> class token -> (N,768).
"""

import torchvision
from torch import Tensor, nn

from lofi.encoders.dropout import SnippetDropout, drop_path_rates, drop_paths_by_seed
from lofi.encoders.input_sizes import MVIT
from lofi.encoders.normalize_frames import NormalizeFrames
from lofi.fidelity import Fidelity
from lofi.protocols import RunBlock, call_block

MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
"""What torchvision's MViTs were trained with."""
NUM_BLOCKS = 16


class Mvit(nn.Module):
    """A `protocols.SnippetEncoder`."""

    has_temporal_convolution = True
    input_sizes = MVIT
    torchvision_name = "mvit_v2_s"

    def __init__(self, *, drop_path: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        library = torchvision.models.video.mvit_v2_s(weights=None)
        self.normalize = NormalizeFrames(mean=MEAN, std=STD)
        self.conv_proj = library.conv_proj
        self.pos_encoding = library.pos_encoding
        self.blocks: nn.ModuleList = library.blocks
        self.norm = library.norm
        self.feature_width: int = library.norm.normalized_shape[0]
        self.dropout = SnippetDropout(dropout)
        rates = drop_path_rates(drop_path, num_blocks=NUM_BLOCKS)
        for place, (block, p) in enumerate(zip(self.blocks, rates, strict=True)):
            drop_paths_by_seed(block, "stochastic_depth", p=p, salt=1 + 2 * place)

    @property
    def stages(self) -> list[nn.Module]:
        """What `frozen_stages` counts."""
        return [self.conv_proj, *self.blocks]

    @property
    def all_blocks(self) -> list[nn.Module]:
        """What `run_block` runs, in order."""
        return [self.conv_proj, *self.blocks, self.norm]

    def forward(
        self, frames: Tensor, *, snippet_seeds: Tensor | None = None, run_block: RunBlock = call_block
    ) -> Tensor:
        """frames (N, 3, T, H, W) uint8 -> (N, 768); see `protocols.SnippetEncoder`."""
        patches_NCTHW = run_block(self.conv_proj, self.normalize(frames, order="NCTHW"))
        grid = tuple(patches_NCTHW.shape[2:])
        x_NPC = self.pos_encoding(patches_NCTHW.flatten(2).transpose(1, 2))
        for block in self.blocks:
            x_NPC, grid = run_block(block, x_NPC, grid, snippet_seeds)
        return self.dropout(run_block(self.norm, x_NPC[:, 0]), snippet_seeds=snippet_seeds)

    def check_fidelity(self, fidelity: Fidelity) -> None:
        """Frames of at least 32 pixels; any number of them."""
        self.input_sizes.check(fidelity)
