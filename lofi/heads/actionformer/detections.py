"""Scored segments of a pyramid's locations -> a window's detections."""

import torch
from torch import Tensor

from lofi.heads.actionformer.config import PyramidHeadConfig
from lofi.heads.actionformer.location_losses import LocationOutputs
from lofi.segments import UNLABELLED, Detections


def location_detections(out: LocationOutputs, *, mask: Tensor, config: PyramidHeadConfig) -> list[Detections]:
    """B windows' detections in snippet index, best first, clipped to [0, end of the last valid snippet].

    Of each level the best `pre_nms_top_k` are kept, as in the published code.

    Args:
        out: of B windows.
        mask: (B, L) bool, of snippets.
        config: of the head.
    """
    locations = out.locations
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    scores = torch.sigmoid(out.logits)
    valid_length = (mask * positions).amax(dim=1).to(scores.dtype)
    steps = out.distances * locations.stride[:, None, None]
    centre = locations.centre[:, None]
    segments = torch.stack([centre - steps[..., 0], centre + steps[..., 1]], dim=3)  # (B, M, K or 1, 2)
    segments = torch.minimum(segments.clamp(min=0.0), valid_length[:, None, None, None])
    is_long_enough = segments[..., 1] - segments[..., 0] > config.min_length
    scores = torch.where(out.mask[..., None] & is_long_enough, scores, 0.0)
    segments = segments.expand(*scores.shape, 2).flatten(1, 2)
    num_classes = scores.shape[2]
    best, index = _best_of_levels(scores, locations.level, levels=config.levels, count=config.pre_nms_top_k)
    found = []
    for row in range(len(scores)):
        chosen = index[row][best[row] > config.min_score]
        label = torch.full_like(chosen, UNLABELLED) if config.class_agnostic else chosen % num_classes
        found.append(
            Detections(segments=segments[row, chosen], scores=scores[row].flatten()[chosen], labels=label)
        )
    return found


def _best_of_levels(scores: Tensor, level: Tensor, *, levels: int, count: int) -> tuple[Tensor, Tensor]:
    """scores (B, M, K), level (M,) -> the best scores of all levels together, `count` of each, and their index in M x K:
    (B, N) each, falling. Those of other levels may stand among them with a score of 0."""
    count = min(count, scores[0].numel())
    of_levels = [
        torch.where((level == number)[:, None], scores, 0.0).flatten(1).topk(count, dim=1)
        for number in range(levels)
    ]
    best = torch.cat([each.values for each in of_levels], dim=1)
    best, order = best.sort(dim=1, descending=True, stable=True)
    return best, torch.cat([each.indices for each in of_levels], dim=1).gather(1, order)
