"""Suppression of overlapping segments: hard, linear and Gaussian soft-NMS, all classes at once, with voting.

Sources: Bodla et al., "Soft-NMS: improving object detection with one line of code", ICCV 2017 (linear: the score is
multiplied by 1 - tIoU from a threshold on; Gaussian: by exp(-tIoU^2 / sigma) at any overlap); hard is the classical rule.
Voting as in the field's detectors (Gidaris and Komodakis, ICCV 2015, box voting): each kept segment becomes the mean of
the input segments that overlap it enough, weighted by score x tIoU.

Segments are suppressed only by segments of the same label. The loop runs over picks, one per class at each turn, so the
number of classes costs no time. Equal scores: the segment that comes first in the input is picked first.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lofi.segments import Detections

NmsMethod = Literal["hard", "linear", "gaussian"]

LENGTH_OFFSET = 1e-6
"""Added to every length, so that two segments of no length have a tIoU (0)."""
TURNS_PER_CHECK = 8


@dataclass(frozen=True, kw_only=True)
class Suppressed:
    """detections: (N,) best first, with decayed scores (and voted segments); index: (N,) int64 where in the input."""

    detections: Detections
    index: Tensor


def soft_nms(
    segments: Tensor,
    scores: Tensor,
    *,
    labels: Tensor | None = None,
    method: NmsMethod = "gaussian",
    sigma: float = 0.5,
    tiou_threshold: float = 0.5,
    min_score: float = 0.001,
    max_detections: int | None = None,
    voting_tiou_threshold: float | None = None,
) -> Suppressed:
    """Keep the best segments and decay or remove those that overlap a better one.

    Args:
        segments: (N, 2) start and end, any unit.
        scores: (N,) at least 0.
        labels: (N,) int64 class index; None: all of one class (the result's labels are 0).
        method: see the module.
        sigma: only for gaussian; greater decays less.
        tiou_threshold: only for hard and linear; overlap at or above it suppresses.
        min_score: segments below it are dropped, before and after decay.
        max_detections: keep the best so many over all classes; None keeps all.
        voting_tiou_threshold: None: no voting.

    Returns:
        Detections best first, in the input's unit, and their places in the input.
    """
    if method not in ("hard", "linear", "gaussian"):
        raise ValueError(f"soft_nms: method is {method!r}; allowed: hard, linear, gaussian.")
    labels = torch.zeros(len(scores), dtype=torch.int64, device=scores.device) if labels is None else labels
    index_CN, alive_CN = _rows_by_class(scores, labels, min_score=min_score)
    start, end, score = (x[index_CN] for x in (segments[:, 0], segments[:, 1], scores))
    length = end - start + LENGTH_OFFSET
    turns = index_CN.shape[1] if max_detections is None else min(index_CN.shape[1], max_detections)
    picked_index: list[Tensor] = []
    picked_score: list[Tensor] = []
    picked_alive: list[Tensor] = []
    for turn in range(turns):
        best_score, best = score.masked_fill(~alive_CN, -1.0).max(dim=1, keepdim=True)
        if turn % TURNS_PER_CHECK == 0 and _is_complete(
            picked_score, best_score, max_detections=max_detections
        ):
            break
        best_is_alive = alive_CN.gather(1, best)
        picked_index.append(index_CN.gather(1, best))
        picked_score.append(best_score)
        picked_alive.append(best_is_alive)
        intersection = torch.minimum(end, end.gather(1, best)) - torch.maximum(start, start.gather(1, best))
        intersection = intersection.clamp(min=0.0)
        tiou = intersection / (length + length.gather(1, best) - intersection)
        if method == "gaussian":
            score = score * torch.exp(-(tiou**2) / sigma)
        elif method == "linear":
            score = torch.where(tiou >= tiou_threshold, score * (1.0 - tiou), score)
        else:
            alive_CN = alive_CN & (tiou < tiou_threshold)
        alive_CN = (alive_CN & (score >= min_score)).scatter(1, best, False)
    if not picked_index:
        return _chosen(segments, scores, labels, torch.zeros(0, dtype=torch.int64, device=scores.device))
    is_pick = torch.cat(picked_alive, dim=1).flatten()
    index = torch.cat(picked_index, dim=1).flatten()[is_pick]
    decayed = torch.cat(picked_score, dim=1).flatten()[is_pick]
    order = decayed.sort(descending=True, stable=True).indices[:max_detections]
    index = index[order]
    chosen = _chosen(segments, decayed[order], labels, index)
    if voting_tiou_threshold is None:
        return chosen
    voted = _vote(chosen.detections, segments, scores, labels=labels, tiou_threshold=voting_tiou_threshold)
    return Suppressed(detections=voted, index=index)


def _chosen(segments: Tensor, scores: Tensor, labels: Tensor, index: Tensor) -> Suppressed:
    """`scores` are those of the result, the rest those of the input."""
    return Suppressed(
        detections=Detections(segments=segments[index], scores=scores[: len(index)], labels=labels[index]),
        index=index,
    )


def _is_complete(picked: list[Tensor], remaining: Tensor, *, max_detections: int | None) -> bool:
    """True if no further turn can change the result: scores of later picks are never above those that remain now."""
    highest = float(remaining.max())
    if highest < 0.0:
        return True
    if max_detections is None or len(picked) * len(remaining) < max_detections:
        return False
    return float(torch.cat(picked).flatten().topk(max_detections).values[-1]) > highest


def _rows_by_class(scores: Tensor, labels: Tensor, *, min_score: float) -> tuple[Tensor, Tensor]:
    """Places in the input, one row per class that occurs, (C, N) int64; and which of them are no padding, (C, N)."""
    index = torch.nonzero(scores >= min_score).flatten()
    if not len(index):
        empty = torch.zeros(0, 0, dtype=torch.int64, device=scores.device)
        return empty, empty.bool()
    _, row, counts = labels[index].unique(return_inverse=True, return_counts=True)
    order = row.argsort(stable=True)
    first_of_row = counts.cumsum(0) - counts
    column = torch.arange(len(index), device=index.device) - first_of_row[row[order]]
    shape = (len(counts), int(counts.max()))
    places = torch.zeros(shape, dtype=torch.int64, device=index.device)
    exists = torch.zeros(shape, dtype=torch.bool, device=index.device)
    places[row[order], column] = index[order]
    exists[row[order], column] = True
    return places, exists


def _vote(
    kept: Detections, segments: Tensor, scores: Tensor, *, labels: Tensor, tiou_threshold: float
) -> Detections:
    """Kept segments -> the weighted means of the input segments of their label that overlap them."""
    start = torch.maximum(kept.segments[:, None, 0], segments[None, :, 0])
    end = torch.minimum(kept.segments[:, None, 1], segments[None, :, 1])
    intersection = (end - start).clamp(min=0.0)
    kept_length = kept.segments[:, 1] - kept.segments[:, 0]
    length = segments[:, 1] - segments[:, 0]
    tiou = intersection / (kept_length[:, None] + length[None, :] - intersection).clamp(min=LENGTH_OFFSET)
    counts = (tiou >= tiou_threshold) & (kept.labels[:, None] == labels[None, :])
    weight = torch.where(counts, tiou * scores[None, :], 0.0)
    total = weight.sum(dim=1, keepdim=True)
    voted = torch.where(total > 0, weight @ segments / total.clamp(min=1e-12), kept.segments)
    return Detections(segments=voted, scores=kept.scores, labels=kept.labels)
