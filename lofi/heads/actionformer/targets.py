"""Which location learns which segment.

Source: ActionFormer (ECCV 2022), section 3.3: a location learns a segment if it lies inside it, near its centre (centre
sampling, within `centre_radius` strides), and if its distance to the farther boundary falls in the range of its pyramid
level. Of several, the shortest; segments of equal length share the location, each with its class.
A segment so short that no location lies inside it is learned by nobody, as in the paper.
What differs from the published code: a distance equal to the end of a level's range is the next level's alone, not both levels'.

Shapes: B windows, M locations, N segments of the fullest window, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lofi.heads.actionformer.pyramid import Locations
from lofi.heads.padded_targets import pad_targets
from lofi.segments import Targets

EQUAL_LENGTH_SNIPPETS = 1e-3
"""Segments whose lengths differ by no more count as equally short."""


@dataclass(frozen=True, kw_only=True)
class LocationTargets:
    """classes: (B, M, K) 0 or 1. distances: (B, M, 2) to start and to end, in strides; 1 where nothing is learned.
    is_positive: (B, M) bool, True where the location learns a segment."""

    classes: Tensor
    distances: Tensor
    is_positive: Tensor


def assign_targets(
    targets: Sequence[Targets],
    *,
    locations: Locations,
    num_classes: int,
    centre_radius: float,
    class_agnostic: bool = False,
) -> LocationTargets:
    """Targets of every location; takes no account of masks.

    Args:
        targets: B of them, in snippet index.
        locations: of the pyramid; its dtype and device are the result's.
        num_classes: K.
        centre_radius: strides of the location's level.
        class_agnostic: every segment is of class 0.
    """
    centre = locations.centre
    padded = pad_targets(targets, dtype=centre.dtype, device=centre.device)
    segments, exists = padded.segments, padded.exists
    labels = torch.zeros_like(padded.labels) if class_agnostic else padded.labels
    start, end = segments[:, None, :, 0], segments[:, None, :, 1]  # (B, 1, N)
    middle = (start + end) / 2
    radius = (locations.stride * centre_radius)[:, None]  # (M, 1)
    left, right = centre[:, None] - start, end - centre[:, None]  # (B, M, N)
    from_sampled_start = centre[:, None] - torch.maximum(start, middle - radius)
    to_sampled_end = torch.minimum(end, middle + radius) - centre[:, None]
    is_near_centre = torch.minimum(from_sampled_start, to_sampled_end) > 0
    farther = torch.maximum(left, right)
    is_in_range = (farther >= locations.lower[:, None]) & (farther < locations.upper[:, None])

    is_candidate = is_near_centre & is_in_range & exists[:, None, :]
    length = torch.where(is_candidate, (end - start).expand_as(left), torch.inf)
    shortest = length.amin(dim=2, keepdim=True)
    is_learned = is_candidate & (length <= shortest + EQUAL_LENGTH_SNIPPETS)
    one_hot = labels[:, :, None] == torch.arange(num_classes, device=labels.device)  # (B, N, K)
    classes = torch.matmul(is_learned.to(centre.dtype), one_hot.to(centre.dtype)).clamp(max=1.0)

    is_positive = is_learned.any(dim=2)
    order = torch.arange(length.shape[2], device=length.device)
    first = torch.where(is_learned, order, length.shape[2] - 1).amin(dim=2, keepdim=True)
    distances = torch.stack([left.gather(2, first), right.gather(2, first)], dim=3).squeeze(2)
    distances = torch.where(is_positive[:, :, None], distances / locations.stride[:, None], 1.0)
    return LocationTargets(classes=classes, distances=distances, is_positive=is_positive)
