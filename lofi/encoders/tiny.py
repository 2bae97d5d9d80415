"""A (2+1)D encoder of three stages for the synthetic benchmark and for tests: 32-pixel frames, two CPU cores.

Each stage is a spatial 3 x 3 convolution of stride 2, then a temporal convolution over 3 frames as a residual: space
and time apart, as in R(2+1)D (Tran et al., CVPR 2018, arXiv:1711.11248). Norms are per snippet and channel (instance
norm), over time and space: features do not depend on the other snippets, so that every gradient path is exact, and
training from scratch works at any fidelity without batch statistics, which a frozen batch norm would carry from one
size to another.

frames (N,3,T,H,W) uint8 -> float -> 3 stages, (N,C,T,H/8,W/8) at the end, sides rounded up -> mean -> (N,D), D = C3.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from lofi.encoders.dropout import SnippetDropout
from lofi.encoders.input_sizes import TINY
from lofi.encoders.normalize_frames import IMAGENET_MEAN, IMAGENET_STD, NormalizeFrames
from lofi.fidelity import Fidelity
from lofi.protocols import RunBlock, call_block


class Tiny(nn.Module):
    """A `protocols.SnippetEncoder`."""

    has_temporal_convolution = True
    input_sizes = TINY

    def __init__(self, *, channels: tuple[int, ...] = (16, 32, 64), dropout: float = 0.0) -> None:
        super().__init__()
        self.feature_width = channels[-1]
        self.normalize = NormalizeFrames(mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.layers = nn.Sequential(
            *(TinyStage(before, after) for before, after in zip((3, *channels), channels, strict=False))
        )
        self.dropout = SnippetDropout(dropout)

    @property
    def stages(self) -> list[nn.Module]:
        """What `frozen_stages` counts."""
        return list(self.layers)

    @property
    def all_blocks(self) -> list[nn.Module]:
        """What `run_block` runs, in order."""
        return list(self.layers)

    def forward(
        self, frames: Tensor, *, snippet_seeds: Tensor | None = None, run_block: RunBlock = call_block
    ) -> Tensor:
        """frames (N, 3, T, H, W) uint8 -> (N, D); see `protocols.SnippetEncoder`."""
        x_NCTHW = self.normalize(frames, order="NCTHW")
        for block in self.all_blocks:
            x_NCTHW = run_block(block, x_NCTHW)
        return self.dropout(x_NCTHW.mean(dim=(2, 3, 4)), snippet_seeds=snippet_seeds)

    def check_fidelity(self, fidelity: Fidelity) -> None:
        """Frames of at least 9 pixels; any number of them."""
        self.input_sizes.check(fidelity)


class TinyStage(nn.Module):
    """(N, C, T, H, W) -> (N, C', T, H/2, W/2): a spatial convolution, then a temporal one beside a shortcut."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        # Plain 5-axis layout: on a CPU, instance norm over channels-last tensors costs more than both convolutions.
        self.spatial = nn.Conv3d(num_in, num_out, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.spatial_norm = nn.GroupNorm(num_out, num_out)
        self.temporal = nn.Conv3d(num_out, num_out, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.temporal_norm = nn.GroupNorm(num_out, num_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.spatial_norm(self.spatial(x)))
        return F.relu(x + self.temporal_norm(self.temporal(x)))
