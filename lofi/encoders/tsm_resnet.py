"""TSM-ResNet: a 2D ResNet whose residual branches look one frame back and one ahead by shifting channels.

The temporal shift of Lin et al. (ICCV 2019, arXiv:1811.08383), on the residual branch of every block ("blockres"), as in
LoFi (NeurIPS 2021), whose default encoder this is with 18 layers. Of C channels the first C // 8 show the next frame, the
following C // 8 the frame before, zeros where the snippet ends; the shift never leaves the snippet. Blocks, stem and
weights are torchvision's own. The snippet's feature is the average over its frames of the ResNet's pooled features.
Unlike TSM's code the snippet may have any number of frames.

frames (N,3,T,H,W) uint8 -> (N,T,3,H,W) float -> stem -> layer1..layer4 on (N,T,C,H',W') -> (N,D), D = 512 or 2048.
"""

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from lofi.encoders.dropout import SnippetDropout
from lofi.encoders.normalize_frames import IMAGENET_MEAN, IMAGENET_STD, NormalizeFrames
from lofi.fidelity import Fidelity
from lofi.protocols import RunBlock, call_block

RESNETS = {18: "resnet18", 34: "resnet34", 50: "resnet50"}
"""Depth -> torchvision's name of the network and its weights."""

STRIDE = 32
"""Pixels of input per position of the last feature map."""


class TsmResnet(nn.Module):
    """A `protocols.SnippetEncoder`."""

    has_temporal_convolution = False

    def __init__(self, *, depth: int, temporal_shift_fraction: float = 0.125, dropout: float = 0.0) -> None:
        super().__init__()
        self.torchvision_name = RESNETS[depth]
        self.temporal_shift_fraction = temporal_shift_fraction
        resnet = getattr(torchvision.models, RESNETS[depth])(weights=None)
        self.feature_width: int = resnet.fc.in_features
        self.normalize = NormalizeFrames(mean=IMAGENET_MEAN, std=IMAGENET_STD)
        stem = nn.Sequential()
        for name in ("conv1", "bn1", "relu", "maxpool"):
            stem.add_module(name, getattr(resnet, name))
        self.stem = FrameBlock(stem)
        self.layer1 = _shifted_stage(resnet.layer1, temporal_shift_fraction)
        self.layer2 = _shifted_stage(resnet.layer2, temporal_shift_fraction)
        self.layer3 = _shifted_stage(resnet.layer3, temporal_shift_fraction)
        self.layer4 = _shifted_stage(resnet.layer4, temporal_shift_fraction)
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
        """frames (N, 3, T, H, W) uint8 -> (N, D); see `protocols.SnippetEncoder`."""
        x_NTCHW = self.normalize(frames, order="NTCHW")
        for block in self.all_blocks:
            x_NTCHW = run_block(block, x_NTCHW)
        return self.dropout(x_NTCHW.mean(dim=(1, 3, 4)), snippet_seeds=snippet_seeds)

    def check_fidelity(self, fidelity: Fidelity) -> None:
        """Frames of at least 32 pixels, and two of them where channels are shifted between frames."""
        if min(fidelity.height, fidelity.width) < STRIDE:
            raise ValueError(
                f"fidelity {fidelity} is too small for tsm_resnet, which divides height and width by {STRIDE}; "
                f"nearest usable: height {max(STRIDE, fidelity.height)}, width {max(STRIDE, fidelity.width)}."
            )
        if fidelity.frames < 2 and self.temporal_shift_fraction > 0:
            raise ValueError(
                f"fidelity {fidelity} has {fidelity.frames} frame per snippet, but tsm_resnet shifts channels between "
                "frames; nearest usable: frames 2 (or set encoder.temporal_shift_fraction: 0)."
            )


class FrameBlock(nn.Module):
    """Runs a 2D block on every frame of every snippet: (N, T, C, H, W) -> (N, T, C', H', W')."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x.flatten(0, 1))
        return y.unflatten(0, x.shape[:2])


class ShiftedBlock(FrameBlock):
    """A residual block whose branch, and not its shortcut, begins with the temporal shift.

    torchvision's block gives the same tensor to branch and shortcut, so that the shift sits inside `conv1`. How many
    frames a snippet has is told to it at every run, which a recomputation under a checkpoint repeats.
    """

    def __init__(self, block: nn.Module, *, fraction: float) -> None:
        assert isinstance(block.conv1, nn.Module)
        block.conv1 = ShiftedConv(block.conv1, fraction=fraction)
        super().__init__(block)

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.block.conv1, ShiftedConv)
        self.block.conv1.num_frames = x.shape[1]
        return super().forward(x)


class ShiftedConv(nn.Module):
    """A 2D convolution after the temporal shift, on frames folded into the batch: (N * T, C, H, W)."""

    def __init__(self, net: nn.Module, *, fraction: float) -> None:
        super().__init__()
        self.net = net
        self.fraction = fraction
        self.num_frames = 1

    def forward(self, x: Tensor) -> Tensor:
        shifted = shift_frames(x.unflatten(0, (-1, self.num_frames)), fraction=self.fraction)
        y: Tensor = self.net(shifted.flatten(0, 1))
        return y


def shift_frames(x: Tensor, *, fraction: float) -> Tensor:
    """Show some channels of the next frame, some of the frame before.

    Args:
        x: (N, T, C, H, W).
        fraction: share of the C channels shifted each way, rounded down.

    Returns:
        (N, T, C, H, W): of the first channels x[t + 1], of as many that follow x[t - 1], of the rest x[t]; zeros outside
        the snippet.
    """
    num_shifted = int(x.shape[2] * fraction)
    if num_shifted == 0:
        return x
    from_next, from_before, rest = x.split([num_shifted, num_shifted, x.shape[2] - 2 * num_shifted], dim=2)
    from_next = F.pad(from_next[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
    from_before = F.pad(from_before[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([from_next, from_before, rest], dim=2)


def _shifted_stage(stage: nn.Module, fraction: float) -> nn.Sequential:
    return nn.Sequential(*(ShiftedBlock(block, fraction=fraction) for block in stage.children()))
