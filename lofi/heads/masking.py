"""Positions that count as zero."""

from torch import Tensor


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """Zero at the masked positions: x (B, C, L), mask (B, L) -> (B, C, L). Removes NaN, and its gradient."""
    return x.masked_fill(~mask[:, None, :], 0.0)
