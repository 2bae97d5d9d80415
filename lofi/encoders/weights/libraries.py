"""The plain torchvision or timm module that an encoder is made of, for weights that others load without this program."""

from dataclasses import dataclass

import torch
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
    for library in ("torchvision", "timm"):
        name = getattr(encoder, f"{library}_name", None)
        if name is not None:
            try:
                with torch.device("meta"):
                    plain = _plain_module(library, name)
            except RuntimeError:  # some networks look at their tensors while they are built
                plain = _plain_module(library, name)
            try:
                return LibraryWeights(library=f"{library} {name}", state=library_state(encoder, plain))
            except ValueError:
                return None
    return None


def _plain_module(library: str, name: str) -> nn.Module:
    if library == "timm":
        import timm

        network: nn.Module = timm.create_model(name)
        return network
    import torchvision

    return torchvision.models.get_model(name)
