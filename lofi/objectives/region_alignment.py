"""RoIAlign in one dimension (He et al., ICCV 2017, arXiv:1703.06870): regions of feature sequences in a fixed number of bins.

As a matrix product of interpolation weights with the sequence, which is deterministic and takes any type of number. Equal to
torchvision's roi_align on a picture of one row, `aligned=True` (tested).
"""

import torch
from torch import Tensor


def align_regions(features: Tensor, regions: Tensor, *, bins: int, samples: int = 2) -> Tensor:
    """Average the features at evenly spaced times of each bin, between snippets linearly.

    Args:
        features: (B, L, D); snippet i stands for the time i + 0.5.
        regions: (B, 2) start and end, in snippet index (float), inside [0, L].
        bins: R.
        samples: times per bin.

    Returns:
        (B, R, D). Before the first snippet's centre stands the first snippet, after the last one's the last.
    """
    weights = alignment_weights(regions, length=features.shape[1], bins=bins, samples=samples)
    return weights.to(features) @ features


def alignment_weights(regions: Tensor, *, length: int, bins: int, samples: int = 2) -> Tensor:
    """(B, R, L): what each snippet counts in each bin; a bin's sum to 1. Args: as `align_regions`, length: L."""
    start, end = regions.double().unbind(dim=1)
    steps = (torch.arange(bins * samples, dtype=torch.float64, device=regions.device) + 0.5) / (
        bins * samples
    )
    times = start[:, None] + steps * (end - start)[:, None]
    positions = (times - 0.5).clamp(0, length - 1)
    snippets = torch.arange(length, dtype=torch.float64, device=regions.device)
    weights = (1 - (positions[:, :, None] - snippets).abs()).clamp(min=0)
    return weights.unflatten(1, (bins, samples)).mean(dim=2)
