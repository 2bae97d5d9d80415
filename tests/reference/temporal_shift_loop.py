"""The temporal shift of TSM, one number at a time."""

import torch
from torch import Tensor


def slow_shift_frames(x: Tensor, *, fold: int) -> Tensor:
    """x (N, T, C, H, W) -> the same shape; the first `fold` channels from the next frame, the next `fold` from the last."""
    shifted = torch.zeros_like(x)
    num_snippets, num_frames, num_channels = x.shape[:3]
    for n in range(num_snippets):
        for t in range(num_frames):
            for c in range(num_channels):
                source = t + 1 if c < fold else t - 1 if c < 2 * fold else t
                if 0 <= source < num_frames:
                    shifted[n, t, c] = x[n, source, c]
    return shifted
