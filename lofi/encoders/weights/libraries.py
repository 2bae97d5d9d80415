"""The plain torchvision or timm module that an encoder is made of, for weights that others load without this program."""

from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from lofi.encoders.weights.own_names import library_state


@dataclass(frozen=True, kw_only=True)
class LibraryWeights:
    """An encoder's tensors under a library's names."""

    library: str
    """The module and what the encoder does beyond it, such as "torchvision r2plus1d_18"."""
    state: dict[str, Tensor]
    """Without the library's head."""


def library_weights(encoder: nn.Module) -> LibraryWeights | None:
    """An encoder's weights for the library module that it is made of; None where no library has its architecture, or where it
    has layers beyond it."""
    for attribute, library, build in (
        ("torchvision_name", "torchvision", torchvision.models.get_model),
        ("timm_name", "timm", timm.create_model),
    ):
        name = getattr(encoder, attribute, None)
        if name is not None:
            try:
                with torch.device("meta"):
                    plain: Any = build(name)
            except RuntimeError:  # some networks look at their tensors while they are built
                plain = build(name)
            try:
                return LibraryWeights(library=f"{library} {name}", state=library_state(encoder, plain))
            except ValueError:
                return None
    return None
