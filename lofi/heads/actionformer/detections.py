"""Scored segments of a pyramid's locations -> a window's detections."""

import torch
from torch import Tensor

from lofi.heads.actionformer.pyramid import Locations
from lofi.segments import UNLABELLED, Detections


def location_detections(
    scores: Tensor,
    distances: Tensor,
    *,
    mask: Tensor,
    location_mask: Tensor,
    locations: Locations,
    top_k: int,
    min_score: float,
    min_length: float,
    class_agnostic: bool,
) -> list[Detections]:
    """B windows' best detections in snippet index, clipped to [0, end of the last valid snippet].

    Args:
        scores: (B, M, K) in [0, 1].
        distances: (B, M, K or 1, 2) to start and end, strides, not below 0.
        mask: (B, L) bool, of snippets.
        location_mask: (B, M) bool.
        locations: of the pyramid.
        top_k: detections per window.
        min_score: a detection needs a score above this.
        min_length: a detection needs to be longer than this, snippets.
        class_agnostic: K is 1 and says "action": the detections have no label.
    """
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    valid_length = (mask * positions).amax(dim=1).to(scores.dtype)
    steps = distances * locations.stride[:, None, None]
    centre = locations.centre[:, None]
    segments = torch.stack([centre - steps[..., 0], centre + steps[..., 1]], dim=3)  # (B, M, K or 1, 2)
    segments = torch.minimum(segments.clamp(min=0.0), valid_length[:, None, None, None])
    is_long_enough = segments[..., 1] - segments[..., 0] > min_length
    scores = torch.where(location_mask[..., None] & is_long_enough, scores, 0.0)
    segments = segments.expand(*scores.shape, 2).flatten(1, 2)
    num_classes = scores.shape[2]
    best, index = scores.flatten(1).topk(min(top_k, scores[0].numel()), dim=1)
    found = []
    for row in range(len(scores)):
        chosen = index[row][best[row] > min_score]
        label = torch.full_like(chosen, UNLABELLED) if class_agnostic else chosen % num_classes
        found.append(
            Detections(segments=segments[row, chosen], scores=scores[row].flatten()[chosen], labels=label)
        )
    return found
