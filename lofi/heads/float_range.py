"""Losses and scores are computed in float32 or wider, whatever the layers before them computed in."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """float64 stays, all else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()
