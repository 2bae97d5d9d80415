"""Boundaries as expected offsets over bins, by where the boundary seems to be and how far it should be.

Source: TriDet (CVPR 2023, section 3.3, equations 5 to 8): the start of an action seen from location m lies d in [0, N] strides
before it, with probabilities softmax over d of (start score at m - d) + (centre offset score of d at m); its distance is
their mean. The end alike, after m.

Shapes: B windows, K classes, M locations, N bins.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def expected_distances(start: Tensor, end: Tensor, offsets: Tensor, *, bins: int) -> Tensor:
    """Distances to start and end of every class at every location.

    Args:
        start: (B, K, M) scores of a start at each location; 0 where masked. Between two levels of a pyramid lie at least N
            masked locations.
        end: (B, K, M) the same of an end.
        offsets: (B, 2 (N + 1), M) scores of each distance 0 to N, of the start first.
        bins: N.

    Returns:
        (B, M, K, 2) strides, between 0 and N. Memory grows with B x M x K x N.
    """
    by_distance = offsets.unflatten(1, (2, bins + 1)).permute(0, 3, 1, 2)  # (B, M, 2, N + 1)
    before = F.pad(start, (bins, 0)).unfold(2, bins + 1, 1).flip(3)  # (B, K, M, N + 1), by distance
    after = F.pad(end, (0, bins)).unfold(2, bins + 1, 1)
    distance = torch.arange(bins + 1, device=start.device, dtype=start.dtype)
    sides = [
        (torch.softmax(near.transpose(1, 2) + by_distance[:, :, side, None], dim=3) * distance).sum(dim=3)
        for side, near in enumerate((before, after))
    ]
    return torch.stack(sides, dim=3)
