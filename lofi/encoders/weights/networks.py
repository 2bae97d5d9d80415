"""Which networks of torchvision and timm a file may hold, by its keys and shapes.

`tsm` and `image` are told their network by the library's name for it, which no file says. Here are the names that may
be meant; only holding the file against each says which are. Told are ResNet, ResNeXt, RegNet and ConvNeXt of
torchvision and timm, and timm's plain vision transformers.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lofi.encoders.weights.families.library import LIBRARY
from lofi.encoders.weights.families.ours import PLAIN, RUN
from lofi.encoders.weights.loading import family_of

VIT_WIDTHS = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}
"""D -> how timm's names write it."""
CONVNEXT_WIDTHS = {
    32: ("zepto",),
    40: ("atto",),
    48: ("femto",),
    64: ("pico",),
    80: ("nano",),
    96: ("tiny", "small"),
    128: ("base",),
    192: ("large",),
    256: ("xlarge",),
    352: ("huge",),
    384: ("xxlarge",),
}
"""Channels of the first stage -> how timm's names write them; of others, every name is tried."""


def possible_networks(state: Mapping[str, Tensor]) -> list[tuple[str, dict[str, Any]]]:
    """Encoders and their options, such as ("tsm", {"network": "resnet50"}); none where the keys tell no network.

    Args:
        state: tensors under the names of any family.
    """
    family = family_of(list(state))
    translated = family.translate(state).tensors
    shapes = {
        re.sub(r"^(network\.|stem\.(?=conv1\.))", "", name): tuple(tensor.shape)
        for name, tensor in translated.items()
    }
    torchvision_patterns, timm_patterns = _torchvision_patterns(shapes), _timm_patterns(shapes)
    found: list[tuple[str, dict[str, Any]]] = []
    if torchvision_patterns:
        import torchvision

        names = torchvision.models.list_models(torchvision.models, include=torchvision_patterns)
        found += [("tsm", {"network": name}) for name in names]
    depth = _resnet_depth(shapes)
    if timm_patterns or depth:
        import timm

        names = timm.list_models(timm_patterns) if timm_patterns else []
        if depth and family in (LIBRARY, RUN, PLAIN):  # the others are of video networks, which timm has not
            names += [
                name for name in timm.list_models(module="resnet") if re.search(rf"\D{depth}(\D|$)", name)
            ]
        for name in names:
            if not name.startswith("vit_"):
                found.append(("tsm", {"library": "timm", "network": name}))
            found.append(("image", {"network": name}))
    return found


def _torchvision_patterns(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Of names of networks, with * for any run of characters."""
    depth = _resnet_depth(shapes)
    if depth and "conv1.weight" in shapes:
        return [f"resnet{depth}", f"resnext{depth}_*", f"wide_resnet{depth}_*"]
    if any(name.startswith("trunk_output.block1.") for name in shapes):
        return ["regnet_y_*" if any(".se." in name for name in shapes) else "regnet_x_*"]
    if "features.1.0.layer_scale" in shapes:
        return ["convnext_*"]
    return []


def _resnet_depth(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Layers, as names of ResNets count them; None of other networks."""
    stems = ("conv1.weight", "conv1.0.weight")  # the latter is of timm's stems of three convolutions
    if not any(name in shapes and len(shapes[name]) == 4 for name in stems):
        return None
    convolutions = sum(re.search(r"^layer\d\.\d+\.conv\d\.weight$", name) is not None for name in shapes)
    return 2 + convolutions if convolutions else None


def _timm_patterns(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    if "s1.b1.conv1.conv.weight" in shapes:
        return ["regnety_*" if any(".se." in name for name in shapes) else "regnetx_*"]
    for name, shape in shapes.items():
        if re.search(r"^(stages|trunk)\.0\.blocks\.0\.conv_dw\.weight$", name):
            version = "convnextv2" if any(".grn." in other for other in shapes) else "convnext"
            return [f"{version}_{size}*" for size in CONVNEXT_WIDTHS.get(shape[0], ("",))]
    patches = shapes.get("patch_embed.proj.weight", ())
    if "blocks.0.attn.qkv.weight" in shapes and len(patches) == 4 and patches[0] in VIT_WIDTHS:
        return [f"vit_{VIT_WIDTHS[patches[0]]}_patch{patches[-1]}_*"]
    return []
