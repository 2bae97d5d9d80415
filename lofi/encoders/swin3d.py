"""Video Swin transformers T, S and B (Liu et al., CVPR 2022, arXiv:2106.13230), on torchvision's modules.

Attention in shifted windows of 8 x 7 x 7 patches of 2 x 4 x 4 pixels, with a learnt bias per relative position inside
a window and no other table, so that any size goes in: inputs are padded to whole patches, maps to whole windows, and
a window that is larger than the map shrinks. (It then takes the first rows of its table of biases, as the published
code does: exact where it shrinks in time alone; where a side shrinks, below 224 pixels in the last stage, a bias of
another relative position.) torchvision's weights were trained on 32 frames, 2 apart, at 224 pixels.

frames (N,3,T,H,W) uint8 -> float -> patches (N,T/2,H/4,W/4,C) -> four stages, space halved between them -> norm, mean
-> (N,D).
"""

import torchvision
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformerBlock

from lofi.encoders.dropout import SnippetDropout, drop_path_rates, drop_paths_by_seed
from lofi.encoders.input_sizes import SWIN3D
from lofi.encoders.normalize_frames import IMAGENET_MEAN, IMAGENET_STD, NormalizeFrames
from lofi.fidelity import Fidelity
from lofi.protocols import RunBlock, call_block

NETWORKS = {"tiny": "swin3d_t", "small": "swin3d_s", "base": "swin3d_b"}
"""Size -> torchvision's name of the network and its weights."""


class Swin3d(nn.Module):
    """A `protocols.SnippetEncoder`."""

    has_temporal_convolution = True
    input_sizes = SWIN3D

    def __init__(self, *, network: str, drop_path: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.torchvision_name = network
        library = torchvision.models.get_model(network, weights=None)
        self.feature_width: int = library.head.in_features
        self.normalize = NormalizeFrames(mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.patch_embed = library.patch_embed
        self.features: nn.Sequential = library.features
        self.norm = library.norm
        self.dropout = SnippetDropout(dropout)
        attention = [block for block in self.all_blocks if isinstance(block, SwinTransformerBlock)]
        for place, (block, p) in enumerate(
            zip(attention, drop_path_rates(drop_path, num_blocks=len(attention)), strict=True)
        ):
            drop_paths_by_seed(block, "stochastic_depth", p=p, salt=1 + 2 * place)

    @property
    def stages(self) -> list[nn.Module]:
        """What `frozen_stages` counts; a merging of patches belongs to the stage behind it."""
        return [self.patch_embed, self.features[:1], *(self.features[i : i + 2] for i in (1, 3, 5))]

    @property
    def all_blocks(self) -> list[nn.Module]:
        """What `run_block` runs, in order."""
        blocks = [self.patch_embed]
        for stage in self.features:
            blocks += stage.children() if isinstance(stage, nn.Sequential) else [stage]
        return [*blocks, self.norm]

    def forward(
        self, frames: Tensor, *, snippet_seeds: Tensor | None = None, run_block: RunBlock = call_block
    ) -> Tensor:
        """frames (N, 3, T, H, W) uint8 -> (N, D); see `protocols.SnippetEncoder`."""
        x = self.normalize(frames, order="NCTHW")
        for block in self.all_blocks:
            is_attention = isinstance(block, SwinTransformerBlock)
            x = run_block(block, x, snippet_seeds) if is_attention else run_block(block, x)
        return self.dropout(x.mean(dim=(1, 2, 3)), snippet_seeds=snippet_seeds)

    def check_fidelity(self, fidelity: Fidelity) -> None:
        """Any."""
        self.input_sizes.check(fidelity)
