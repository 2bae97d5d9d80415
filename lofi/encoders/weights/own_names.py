"""Each encoder's names for the tensors of the library module that it is made of.

An encoder keeps the library's names where it can. Where it wraps modules, the patterns here lead from the library's
names to its own; the way back, for exports, goes through the same patterns.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lofi.encoders.weights.families.family import Renames, rename

OWN_NAMES: dict[str, Renames] = {
    "Tsm": ((r"^(conv1|bn1)\.", r"stem.\1."), (r"^stages\.", "trunk.")),
    "ImageEncoder": ((r"^", "network."),),
}
"""Encoder class -> from the library's names to the encoder's; one that is not here has the library's names."""

ADDED = r"(^|\.)adapter\."
"""Names of ours that no public file has: they start as built."""

LORA_RANK = r"\.attn\.\w+\.adapter\.down\.weight$"
"""Of LoRA's updates, (rank, in) each."""

BLOCK_ADAPTER = r"(^|\.)blocks\.\d+\.adapter\.temporal\."
"""Of the temporal adapters after an encoder's blocks."""


def own_name(encoder: nn.Module, name: str) -> str:
    """The encoder's name of a tensor of its library module."""
    return rename(name, OWN_NAMES.get(type(encoder).__name__, ()))


def is_added(name: str) -> bool:
    """Whether this program puts the layer of this name into networks that were published without it."""
    return re.search(ADDED, name) is not None


def added_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options of an encoder whose layers, put in by this program, are among these tensors; {} of public weights.

    Temporal adapters do not tell whether they learned alone; "beside" takes them in either case.
    """
    options: dict[str, Any] = {}
    for name, tensor in state.items():
        if re.search(LORA_RANK, name):
            options["lora_rank"] = tensor.shape[0]
        elif re.search(BLOCK_ADAPTER, name):
            options["adapters"] = "beside"
    return options


def library_state(encoder: nn.Module, library: nn.Module) -> dict[str, Tensor]:
    """An encoder's tensors under the names of its library module, without that module's head.

    Args:
        encoder: with weights.
        library: the plain module that it is made of; its weights are not looked at (`torch.device("meta")` will do).

    Raises:
        ValueError: where the encoder has a tensor that the library module has no place for.
    """
    own = encoder.state_dict()
    state, places = {}, set()
    for name in library.state_dict():
        place = own_name(encoder, name)
        if place in own:
            state[name] = own[place]
            places.add(place)
    beyond = [name for name in own if name not in places]
    if beyond:
        more = f" and {len(beyond) - 3} more" if len(beyond) > 3 else ""
        raise ValueError(
            f"{type(library).__name__} has no place for {', '.join(beyond[:3])}{more} of {type(encoder).__name__}."
        )
    return state
