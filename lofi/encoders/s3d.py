"""S3D: inception blocks with convolutions split into space and time (Xie et al., ECCV 2018, arXiv:1712.04851), torchvision's.

torchvision's weights were trained on 128 frames at 224 pixels. Its head averages over windows of 2 x 7 x 7 positions
and then over the windows; here it is the plain mean over all positions, which is the same for inputs whose last
feature map is 2 x 7 x 7 (16 frames at 224 pixels) and has no least size. Time is divided by 8, space by 32.

frames (N,3,T,H,W) uint8 -> float -> 16 modules on (N,C,T',H',W') -> (N,1024).
"""

import torchvision
from torch import Tensor, nn

from lofi.encoders.dropout import SnippetDropout
from lofi.encoders.input_sizes import S3D
from lofi.encoders.normalize_frames import KINETICS_MEAN, KINETICS_STD, NormalizeFrames
from lofi.fidelity import Fidelity
from lofi.protocols import RunBlock, call_block

STAGE_STARTS = (0, 1, 4, 7, 13)
"""Where stages begin among the 16 modules: at each pooling."""


class S3d(nn.Module):
    """A `protocols.SnippetEncoder`."""

    has_temporal_convolution = True
    input_sizes = S3D
    torchvision_name = "s3d"
    feature_width = 1024

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.normalize = NormalizeFrames(mean=KINETICS_MEAN, std=KINETICS_STD)
        self.features: nn.Sequential = torchvision.models.video.s3d(weights=None).features
        self.dropout = SnippetDropout(dropout)

    @property
    def stages(self) -> list[nn.Module]:
        """What `frozen_stages` counts."""
        ends = (*STAGE_STARTS[1:], len(self.features))
        return [self.features[start:end] for start, end in zip(STAGE_STARTS, ends, strict=True)]

    @property
    def all_blocks(self) -> list[nn.Module]:
        """What `run_block` runs, in order."""
        return list(self.features)

    def forward(
        self, frames: Tensor, *, snippet_seeds: Tensor | None = None, run_block: RunBlock = call_block
    ) -> Tensor:
        """frames (N, 3, T, H, W) uint8 -> (N, 1024); see `protocols.SnippetEncoder`."""
        x_NCTHW = self.normalize(frames, order="NCTHW")
        for block in self.all_blocks:
            x_NCTHW = run_block(block, x_NCTHW)
        return self.dropout(x_NCTHW.mean(dim=(2, 3, 4)), snippet_seeds=snippet_seeds)

    def check_fidelity(self, fidelity: Fidelity) -> None:
        """At least 8 frames of 32 pixels."""
        self.input_sizes.check(fidelity)
