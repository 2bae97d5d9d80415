"""Temporal shift in convolutional image networks of torchvision and timm: ResNet, ResNeXt, RegNet, ConvNeXt.

The network of TSM (Lin et al., ICCV 2019, arXiv:1811.08383), shifted on the residual branch of every block
("blockres"), as in LoFi (NeurIPS 2021), whose default encoder this is with ResNet-18. Each branch begins with a view
of the frames beside it (`temporal_shift.py`); the shortcut is not shifted. Blocks, stem and weights are the library's
own, under its names. The snippet's feature is the average over its frames of what the network gives to its last
linear layer. Unlike TSM's code the snippet may have any number of frames.

frames (N,3,T,H,W) uint8 -> (N*T,3,H,W) float -> stem, stages -> pooled (N*T,D) -> mean over frames (N,D).
"""

from collections import OrderedDict
from functools import partial
from typing import Any

import timm
import torchvision
from timm.models import convnext, regnet, resnet
from torch import Tensor, nn
from torchvision.models.convnext import CNBlock
from torchvision.models.regnet import ResBottleneckBlock
from torchvision.models.resnet import BasicBlock, Bottleneck

from lofi.encoders.dropout import SnippetDropout, remove_drop_path
from lofi.encoders.input_sizes import tsm_sizes
from lofi.encoders.normalize_frames import IMAGENET_MEAN, IMAGENET_STD, NormalizeFrames
from lofi.encoders.open_network import open_network
from lofi.encoders.temporal_shift import shift_branch
from lofi.fidelity import Fidelity
from lofi.protocols import RunBlock, call_block

BRANCHES: dict[type[nn.Module], str] = {
    BasicBlock: "conv1",
    Bottleneck: "conv1",
    ResBottleneckBlock: "f",
    CNBlock: "block",
    resnet.BasicBlock: "conv1",
    resnet.Bottleneck: "conv1",
    regnet.Bottleneck: "conv1",
    convnext.ConvNeXtBlock: "conv_dw",
}
"""Residual block -> the module that its branch begins with and its shortcut does not pass."""

STAGES = {
    "torchvision ResNet": (("stem",), ("layer1",), ("layer2",), ("layer3",), ("layer4",)),
    "torchvision RegNet": (("stem",), *((f"trunk_output.block{place}",) for place in range(1, 5))),
    "torchvision ConvNeXt": (
        ("features.0",),
        ("features.1",),
        *((f"features.{place}", f"features.{place + 1}") for place in (2, 4, 6)),
    ),
    "timm ResNet": (("stem",), ("layer1",), ("layer2",), ("layer3",), ("layer4",)),
    "timm RegNet": (("stem",), ("s1",), ("s2",), ("s3",), ("s4", "final_conv")),
    "timm ConvNeXt": (("stem",), *((f"trunk.{place}",) for place in range(4))),
}
"""Library and class -> the modules of each stage, the stem first."""

STEMS = {
    "torchvision ResNet": ("conv1", "bn1", "relu", "maxpool"),
    "timm ResNet": ("conv1", "bn1", "act1", "maxpool"),
}
"""Where the library keeps the stem's layers beside the stages, they become one module."""

OTHERWISE = "For other image networks use encoder.name: image."


class Tsm(nn.Module):
    """A `protocols.SnippetEncoder`."""

    has_temporal_convolution = False

    def __init__(
        self,
        *,
        library: str = "torchvision",
        network: str = "resnet18",
        temporal_shift_fraction: float = 0.125,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        image: Any = _open_network(library, network)
        layout = f"{library} {type(image).__name__}"
        _check_taken(image, layout, network=network)
        setattr(self, f"{library}_name", network)
        mean, std, side = IMAGENET_MEAN, IMAGENET_STD, 224
        if library == "timm":
            about = image.pretrained_cfg
            mean, std, side = about["mean"], about["std"], about["input_size"][-1]
        self.input_sizes = tsm_sizes(temporal_shift_fraction=temporal_shift_fraction, side=side)
        self.normalize = NormalizeFrames(mean=mean, std=std)
        self.feature_width = image.num_features if library == "timm" else _last_layer(image).in_features
        stem_names = STEMS.get(layout, ())
        if stem_names:
            self.stem = nn.Sequential(OrderedDict((name, getattr(image, name)) for name in stem_names))
        for name, child in image.named_children():
            if name not in (*stem_names, "fc", "classifier"):
                self.add_module("trunk" if name == "stages" else name, child)
        if layout == "torchvision ConvNeXt":
            self.classifier = nn.Sequential(image.classifier[0])
        self._stage_names = STAGES[layout]
        self._norm_name = {"torchvision ConvNeXt": "classifier", "timm ConvNeXt": "head.norm"}.get(layout)
        self.dropout = SnippetDropout(dropout)
        if temporal_shift_fraction > 0:
            _check_shifted(self.stages[1:], network=network)
            for block in self.all_blocks:
                if type(block) in BRANCHES:
                    shift_branch(block, BRANCHES[type(block)], fraction=temporal_shift_fraction)

    @property
    def stages(self) -> list[nn.Module]:
        """What `frozen_stages` counts."""
        stages = ([self.get_submodule(name) for name in names] for names in self._stage_names)
        return [stage[0] if len(stage) == 1 else nn.Sequential(*stage) for stage in stages]

    @property
    def all_blocks(self) -> list[nn.Module]:
        """What `run_block` runs, in order."""
        blocks = [block for stage in self.stages for block in _residual_blocks(stage)]
        return blocks if self._norm_name is None else [*blocks, self.get_submodule(self._norm_name)]

    def forward(
        self, frames: Tensor, *, snippet_seeds: Tensor | None = None, run_block: RunBlock = call_block
    ) -> Tensor:
        """frames (N, 3, T, H, W) uint8 -> (N, D); see `protocols.SnippetEncoder`."""
        x_FCHW = self.normalize(frames, order="NTCHW").flatten(0, 1)
        num_frames = frames.shape[2]
        blocks = self.all_blocks
        for block in blocks if self._norm_name is None else blocks[:-1]:
            is_shifted = hasattr(block, "shifted_branch")
            x_FCHW = run_block(block, x_FCHW, num_frames) if is_shifted else run_block(block, x_FCHW)
        pooled_FC11 = x_FCHW.mean(dim=(2, 3), keepdim=True)
        if self._norm_name is not None:
            pooled_FC11 = run_block(blocks[-1], pooled_FC11)
        features_ND = pooled_FC11.flatten(1).unflatten(0, (-1, num_frames)).mean(dim=1)
        return self.dropout(features_ND, snippet_seeds=snippet_seeds)

    def check_fidelity(self, fidelity: Fidelity) -> None:
        """Frames of at least 32 pixels, and two of them where channels are shifted between frames."""
        self.input_sizes.check(fidelity)


def _open_network(library: str, network: str) -> nn.Module:
    """The image network without weights, and without drop path, whose draws would depend on the other snippets."""
    try:
        if library == "timm":
            image = open_network(partial(timm.create_model, network, num_classes=0))
            remove_drop_path(image)
            return image
        options = {"stochastic_depth_prob": 0.0} if network.startswith("convnext") else {}
        return open_network(partial(torchvision.models.get_model, network, weights=None, **options))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"encoder.network is {network!r}: {error}; {library} must have it.") from error


def _check_taken(image: Any, layout: str, *, network: str) -> None:
    """Raise ValueError for a network that `Tsm.forward` would not run whole."""
    title = f"encoder.network is {network!r}, a {type(image).__name__} of {layout.split()[0]}"
    if layout not in STAGES:
        raise ValueError(f"{title}; tsm takes ResNets, RegNets and ConvNeXts. {OTHERWISE}")
    if layout == "timm ConvNeXt":
        parts = [image.norm_pre, getattr(image.head, "pre_logits", None)]
        if not all(isinstance(part, nn.Identity) for part in parts):
            raise ValueError(
                f"{title} with another head; tsm takes those of pooling, a norm and a linear layer. {OTHERWISE}"
            )


def _check_shifted(stages: list[nn.Module], *, network: str) -> None:
    """Raise ValueError for stages without a block whose branch is known, which would not be shifted."""
    for stage in stages:
        if not any(type(inner) in BRANCHES for inner in stage.modules()):
            block = next(stage.children())
            raise ValueError(
                f"encoder.network is {network!r}, of {type(block).__name__} blocks, whose branch to shift tsm does not "
                f"know; it shifts {', '.join(sorted({known.__name__ for known in BRANCHES}))}. {OTHERWISE}"
            )


def _last_layer(image: Any) -> nn.Linear:
    """Of a torchvision network."""
    layer: nn.Linear = image.fc if hasattr(image, "fc") else image.classifier[-1]
    return layer


def _residual_blocks(module: nn.Module) -> list[nn.Module]:
    """The residual blocks inside, in order, and what lies between them."""
    is_block = type(module) in BRANCHES
    if is_block or not any(type(inner) in BRANCHES for inner in module.modules()):
        return [module]
    return [block for child in module.children() for block in _residual_blocks(child)]
