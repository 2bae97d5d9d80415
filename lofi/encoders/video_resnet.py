"""Video ResNets on torchvision's modules: R(2+1)D, R3D and MC3 (Tran et al., CVPR 2018, arXiv:1711.11248).

R(2+1)D splits every convolution into space and time. With 18 layers it is torchvision's own network, LoFi's second
encoder (section 4), with T-LoFi alone, at 112 x 112, the size of its public weights; with 34 the network of the
paper's public weights and of TSP (Alwassel et al., ICCVW 2021, arXiv:2011.11479), or MMAction2's
(`r2plus1d_layouts.py` has what differs). R3D convolves space and time together in every layer, MC3 in the first stage
alone and space after that; both were trained on 16 frames at 112 pixels. The snippet's feature is what the network
gives to its last linear layer. Space is divided by 16 (rounded up), in MMAction2's layout by 32; time by 8, in MC3
not at all.

frames (N,3,T,H,W) uint8 -> float -> stem -> layer1..layer4 on (N,C,T',H',W') -> (N,512).
"""

from typing import Any

import torchvision
from torch import Tensor, nn

from lofi.encoders.dropout import SnippetDropout
from lofi.encoders.input_sizes import R2PLUS1D, R2PLUS1D_MMACTION2, RESNET3D, InputSizes
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


def open_r2plus1d(*, depth: int = 18, layout: str = "published", dropout: float = 0.0) -> "VideoResnet":
    """R(2+1)D of 18 or 34 layers; `layout`: published or mmaction2, the latter of 34."""
    if depth == 18:
        return _open_torchvision("r2plus1d_18", input_sizes=R2PLUS1D, dropout=dropout)
    if layout == "published":
        return VideoResnet(published_34(), input_sizes=R2PLUS1D, dropout=dropout)
    return VideoResnet(
        mmaction2_34(), input_sizes=R2PLUS1D_MMACTION2, mean=IMAGENET_MEAN, std=IMAGENET_STD, dropout=dropout
    )


def open_resnet3d(*, network: str, dropout: float = 0.0) -> "VideoResnet":
    """R3D or MC3 of 18 layers; `network`: torchvision's r3d_18 or mc3_18."""
    return _open_torchvision(network, input_sizes=RESNET3D, dropout=dropout)


def _open_torchvision(network: str, *, input_sizes: InputSizes, dropout: float) -> "VideoResnet":
    plain = torchvision.models.get_model(network, weights=None)
    return VideoResnet(plain, input_sizes=input_sizes, torchvision_name=network, dropout=dropout)


class VideoResnet(nn.Module):
    """A `protocols.SnippetEncoder`: torchvision's VideoResNet without its head."""

    has_temporal_convolution = True

    def __init__(
        self,
        network: Any,
        *,
        input_sizes: InputSizes,
        torchvision_name: str | None = None,
        mean: tuple[float, float, float] = KINETICS_MEAN,
        std: tuple[float, float, float] = KINETICS_STD,
        dropout: float = 0.0,
    ) -> None:
        """
        Args:
            network: a VideoResNet.
            input_sizes: what the network takes.
            torchvision_name: torchvision's name of the network, if it is one of its own.
            mean, std: of the frames that the network's weights were trained on.
            dropout: share of a feature's elements set to zero in training.
        """
        super().__init__()
        self.input_sizes = input_sizes
        self.torchvision_name = torchvision_name
        self.feature_width: int = network.fc.in_features
        self.normalize = NormalizeFrames(mean=mean, std=std)
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
        self.input_sizes.check(fidelity)
