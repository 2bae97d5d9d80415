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
    best, index = _best_of_levels(scores, locations.level, count=config.pre_nms_top_k)
    found = []
    for row in range(len(scores)):
        chosen = index[row][best[row] > config.min_score]
        label = torch.full_like(chosen, UNLABELLED) if config.class_agnostic else chosen % num_classes
        found.append(
            Detections(segments=segments[row, chosen], scores=scores[row].flatten()[chosen], labels=label)
        )
    return found


def _best_of_levels(scores: Tensor, level: Tensor, *, count: int) -> tuple[Tensor, Tensor]:
    """scores (B, M, K), level (M,) -> the best scores of all levels together, `count` of each (of a level that has fewer,
    all), and their index in M x K: (B, N) each, falling."""
    num_classes = scores.shape[2]
    lengths = torch.unique_consecutive(level, return_counts=True)[1].tolist()  # the levels lie end to end
    best, index, first = [], [], 0
    for of_level in scores.split(lengths, dim=1):
        flat = of_level.flatten(1)
        top = flat.topk(min(count, flat.shape[1]), dim=1)
        best.append(top.values)
        index.append(top.indices + first * num_classes)
        first += of_level.shape[1]
    sorted_best, order = torch.cat(best, dim=1).sort(dim=1, descending=True, stable=True)
    return sorted_best, torch.cat(index, dim=1).gather(1, order)
