"""3D ResNets of 18 layers: R3D and MC3 (Tran et al., CVPR 2018, arXiv:1711.11248), torchvision's modules.

R3D convolves space and time together in every layer, MC3 in the first stage alone and space after that. Their sister R(2+1)D is
`r2plus1d`. The snippet's feature is what the network gives to its last linear layer. Space is divided by 16 (rounded up), time
by 8 in R3D and not at all in MC3.

frames (N,3,T,H,W) uint8 -> float -> stem -> layer1..layer4 on (N,C,T',H',W') -> (N,512).
"""

import torchvision
from torch import Tensor, nn

from lofi.encoders.dropout import SnippetDropout
from lofi.encoders.normalize_frames import KINETICS_MEAN, KINETICS_STD, NormalizeFrames
from lofi.fidelity import Fidelity
from lofi.protocols import RunBlock, call_block

NETWORKS = ("r3d_18", "mc3_18")
"""torchvision's names of the networks and their weights. Trained on 16 frames at 112 pixels."""
STRIDE = 16
"""Pixels of input per position of the last feature map."""


class Resnet3d(nn.Module):
    """A `protocols.SnippetEncoder`."""

    has_temporal_convolution = True

    def __init__(self, *, network: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.torchvision_name = network
        library = torchvision.models.get_model(network, weights=None)
        self.feature_width: int = library.fc.in_features
        self.normalize = NormalizeFrames(mean=KINETICS_MEAN, std=KINETICS_STD)
        self.stem = library.stem
        self.layer1 = library.layer1
        self.layer2 = library.layer2
        self.layer3 = library.layer3
        self.layer4 = library.layer4
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
        """Frames of at least 16 pixels; any number of them."""
        if min(fidelity.height, fidelity.width) < STRIDE:
            raise ValueError(
                f"fidelity {fidelity} is too small for resnet3d, which divides height and width by {STRIDE}; "
                f"nearest usable: height {max(STRIDE, fidelity.height)}, width {max(STRIDE, fidelity.width)}."
            )
