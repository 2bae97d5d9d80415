"""R(2+1)D: 3D convolutions split into space and time (Tran et al., CVPR 2018, arXiv:1711.11248), on torchvision's modules.

With 18 layers torchvision's own network, LoFi's second encoder (section 4), with T-LoFi alone, at 112 x 112, the size of its
public weights. With 34 layers the network of the paper's public weights and of TSP (Alwassel et al., ICCVW 2021,
arXiv:2011.11479), or MMAction2's (`r2plus1d_layouts.py` has what differs). The snippet's feature is what the network gives to
its last linear layer. Time is divided by 8 (rounded up), space by 16, in MMAction2's by 32.

frames (N,3,T,H,W) uint8 -> float -> stem -> layer1..layer4 on (N,C,T',H',W') -> (N,512).
"""

import torchvision
from torch import Tensor, nn

from lofi.encoders.dropout import SnippetDropout
from lofi.encoders.normalize_frames import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    KINETICS_MEAN,
    KINETICS_STD,
    NormalizeFrames,
)
from lofi.encoders.r2plus1d_layouts import mmaction2_34, published_34
from lofi.fidelity import Fidelity
from lofi.protocols import RunBlock, call_block

STRIDES = {"published": 16, "mmaction2": 32}
"""Layout -> pixels of input per position of the last feature map."""


class R2plus1d(nn.Module):
    """A `protocols.SnippetEncoder`."""

    has_temporal_convolution = True

    def __init__(self, *, depth: int = 18, layout: str = "published", dropout: float = 0.0) -> None:
        super().__init__()
        self.torchvision_name = "r2plus1d_18" if depth == 18 else None
        self.stride = STRIDES[layout]
        if depth == 18:
            network = torchvision.models.video.r2plus1d_18(weights=None)
        else:
            network = published_34() if layout == "published" else mmaction2_34()
        self.feature_width: int = network.fc.in_features
        if layout == "published":
            self.normalize = NormalizeFrames(mean=KINETICS_MEAN, std=KINETICS_STD)
        else:
            self.normalize = NormalizeFrames(mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.stem = network.stem
        self.layer1 = network.layer1
        self.layer2 = network.layer2
        self.layer3 = network.layer3
        self.layer4 = network.layer4
        self.dropout = SnippetDropout(dropout)

    @property
    def stages(self) -> list[nn.Module]:
        """What `frozen_stages` counts."""
        return [self.stem, self.layer1, self.layer2, self.layer3, self.layer4]

    @property
    def all_blocks(self) -> list[nn.Module]:
        """What `run_block` runs, in order."""
        return [self.stem, *(block for stage in self.stages[1:] for block in stage.children())]

    def forward(
        self, frames: Tensor, *, snippet_seeds: Tensor | None = None, run_block: RunBlock = call_block
    ) -> Tensor:
        """frames (N, 3, T, H, W) uint8 -> (N, 512); see `protocols.SnippetEncoder`."""
        x_NCTHW = self.normalize(frames, order="NCTHW")
        for block in self.all_blocks:
            x_NCTHW = run_block(block, x_NCTHW)
        return self.dropout(x_NCTHW.mean(dim=(2, 3, 4)), snippet_seeds=snippet_seeds)

    def check_fidelity(self, fidelity: Fidelity) -> None:
        """Frames of at least as many pixels as the network divides by; any number of them."""
        if min(fidelity.height, fidelity.width) < self.stride:
            raise ValueError(
                f"fidelity {fidelity} is too small for r2plus1d, which divides height and width by {self.stride}; nearest "
                f"usable: height {max(self.stride, fidelity.height)}, width {max(self.stride, fidelity.width)}."
            )
