"""Dropout whose mask belongs to the snippet: the same however snippets are grouped, on every device, at every recomputation.

PyTorch's dropout draws from a generator, so that the mask of a snippet depends on what was drawn before it: two
chunks of four snippets get other masks than one batch of eight. Here the mask is a pure function of (seed of the
snippet, salt of the layer, index of the element): SplitMix64's finalizer (Steele, Lea & Flood, OOPSLA 2014) on
integers, which every device computes alike. Gradient paths that encode snippets in other groups, or again in the
backward pass, then see one function.
"""

from typing import Any

import torch
from torch import Tensor, nn

RESOLUTION_BITS = 53
"""Bits of the hash that are compared with the keep rate."""


class SnippetDropout(nn.Module):
    """Dropout on snippet features; the identity in evaluation, at p = 0, and without seeds."""

    def __init__(self, p: float, *, salt: int = 0) -> None:
        """`p`: share of the elements set to zero, in [0, 1); `salt`: one number per layer of an encoder."""
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout is {p}; it must lie in [0, 1).")
        self.p = p
        self.salt = salt

    def forward(self, features: Tensor, *, snippet_seeds: Tensor | None) -> Tensor:
        """features (N, D) or (N, R, D) float, snippet_seeds (N,) int64 or None -> the same shape."""
        if snippet_seeds is None or not self.training or self.p == 0:
            return features
        if snippet_seeds.shape != features.shape[:1] or snippet_seeds.dtype != torch.int64:
            raise ValueError(
                f"snippet_seeds are {tuple(snippet_seeds.shape)} {snippet_seeds.dtype}; "
                f"{features.shape[0]} snippets need ({features.shape[0]},) int64."
            )
        shape = features.shape[1:]
        keeps = keep_mask(
            snippet_seeds.to(features.device), num_elements=shape.numel(), p=self.p, salt=self.salt
        )
        return features * keeps.unflatten(1, shape).to(features.dtype) / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}, salt={self.salt}"


class SnippetDropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016, arXiv:1603.09382): a residual branch is dropped for whole snippets.

    It stands where a library's block has its own, which is called with the branch alone; so the snippets' seeds are told to
    it by `begin` each time that its block runs, which a recomputation under a checkpoint repeats. A block that calls one
    module for all its branches gets another mask at every call.
    """

    def __init__(self, p: float, *, salt: int) -> None:
        """`p`: share of the snippets whose branch is dropped, in [0, 1); `salt`: the first of this layer's numbers."""
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"drop_path is {p}; it must lie in [0, 1).")
        self.p = p
        self.salt = salt
        self._seeds: Tensor | None = None
        self._calls = 0

    def begin(self, snippet_seeds: Tensor | None) -> None:
        """The block runs on these snippets: (N,) int64; None keeps every branch."""
        self._seeds = snippet_seeds
        self._calls = 0

    def forward(self, branch: Tensor) -> Tensor:
        """(N, ...) float -> the same, zero for some snippets, the others scaled by 1 / (1 - p)."""
        if self._seeds is None or not self.training or self.p == 0:
            return branch
        salt, self._calls = self.salt + self._calls, self._calls + 1
        keeps = keep_mask(self._seeds.to(branch.device), num_elements=1, p=self.p, salt=salt)
        factor = keeps.to(branch.dtype) / (1 - self.p)
        return branch * factor.view(-1, *[1] * (branch.ndim - 1))

    def extra_repr(self) -> str:
        return f"p={self.p}, salt={self.salt}"


def drop_paths_by_seed(block: nn.Module, name: str, *, p: float, salt: int) -> None:
    """Put a `SnippetDropPath` in place of a library block's own module `name`. The block then takes the snippets' seeds, or
    None, as its last argument, which a hook takes off again: its forward function stays the library's."""
    setattr(block, name, SnippetDropPath(p, salt=salt))
    block.register_forward_pre_hook(_take_seeds)


def _take_seeds(block: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    *inputs, snippet_seeds = arguments
    for module in block.modules():
        if isinstance(module, SnippetDropPath):
            module.begin(snippet_seeds)
    return tuple(inputs)


def remove_drop_path(network: nn.Module) -> None:
    """Without timm's own drop path, which would draw for all snippets of a call together. (timm's networks are made with a rate
    of zero anyway, but read it off a tensor, so that on fake tensors it could be anything.)"""
    from timm.layers import DropPath

    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DropPath):
                setattr(parent, name, nn.Identity())


def drop_path_rates(last: float, *, num_blocks: int) -> list[float]:
    """Rising evenly from 0 at the first block to `last`."""
    return [last * index / max(1, num_blocks - 1) for index in range(num_blocks)]


def keep_mask(snippet_seeds: Tensor, *, num_elements: int, p: float, salt: int) -> Tensor:
    """snippet_seeds (N,) int64 -> (N, num_elements) bool, True with probability 1 - p."""
    rows = _mix(snippet_seeds ^ _signed((salt + 1) * _GOLDEN))
    index = torch.arange(1, num_elements + 1, dtype=torch.int64, device=snippet_seeds.device)
    bits = _mix(rows[:, None] + index * _signed(_GOLDEN))
    uniform = _shift_right(bits, 64 - RESOLUTION_BITS)
    return uniform < round((1 - p) * 2**RESOLUTION_BITS)


_GOLDEN = 0x9E3779B97F4A7C15


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finalizer; int64 products wrap around as unsigned ones do."""
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """The logical shift: int64's own repeats the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(unsigned: int) -> int:
    """The int64 with the same 64 bits."""
    wrapped = unsigned & (2**64 - 1)
    return wrapped - 2**64 if wrapped >= 2**63 else wrapped
