"""What a family of checkpoints is: one way of naming the same tensors, and what of it is not an encoder's."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

Renames = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Patterns and replacements of `re.sub`, applied to a key one after another."""

OLD_HEAD = "the old task's head"


@dataclass(frozen=True, kw_only=True)
class Translated:
    """A state dict under other names. Nothing of it is lost: every key of the file is in `keys` or in `dropped`."""

    tensors: dict[str, Tensor]
    """Under the names of the library module that the encoder is made of; under the encoder's own where the family is ours."""
    keys: dict[str, tuple[str, ...]]
    """Name -> the file's keys that its tensor was made from."""
    dropped: dict[str, str] = field(default_factory=dict)
    """The file's key -> what it is: the old task's head, a decoder."""
    fresh: dict[str, str] = field(default_factory=dict)
    """Name that such a file never has -> why the encoder keeps its initial value there."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Checkpoints that name their tensors in one way."""

    name: str
    source: str
    """Whose checkpoints these are, in words."""
    marker: str
    """A key that matches this pattern tells the family."""
    translate: Callable[[Mapping[str, Tensor]], Translated]
    """From the file's names."""
    head: str = r"$^"
    """Translated names that match this pattern are the old task's head, where the encoder has nothing of that name."""
    is_own: bool = False
    """Whether the translated names are the encoder's own."""

    def matches(self, keys: Sequence[str]) -> bool:
        return any(re.search(self.marker, key) for key in keys)

    def is_head(self, name: str) -> bool:
        return re.search(self.head, name) is not None


def rename_keys(
    state: Mapping[str, Tensor], *, renames: Renames = (), dropped: Sequence[tuple[str, str]] = ()
) -> Translated:
    """Leave out the keys that match a pattern of `dropped` (pattern, what it is), and rename the others."""
    tensors: dict[str, Tensor] = {}
    keys: dict[str, tuple[str, ...]] = {}
    left_out: dict[str, str] = {}
    for key, tensor in state.items():
        reason = next((reason for pattern, reason in dropped if re.search(pattern, key)), None)
        if reason is not None:
            left_out[key] = reason
            continue
        name = rename(key, renames)
        if name in keys:
            raise ValueError(f"encoder.weights: {keys[name][0]} and {key} are both {name}.")
        tensors[name], keys[name] = tensor, (key,)
    return Translated(tensors=tensors, keys=keys, dropped=left_out)


def rename(key: str, renames: Renames) -> str:
    """Apply the renames to one key."""
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key
