"""Suppression of overlapping segments: hard, linear and Gaussian soft-NMS, all classes at once, with voting.

Sources: Bodla et al., "Soft-NMS: improving object detection with one line of code", ICCV 2017 (linear: the score is
multiplied by 1 - tIoU from a threshold on; Gaussian: by exp(-tIoU^2 / sigma) at any overlap); hard is the classical rule.
bmn_gaussian is BMN's (Lin et al., ICCV 2019, released code), in OpenTAD "improved Gaussian": the Gaussian only from a tIoU
on that grows with the length of the better segment. Voting as in the field's detectors (Gidaris and Komodakis, ICCV 2015,
box voting): each kept segment becomes the mean of the input segments that overlap it enough, weighted by score x tIoU.

Segments are suppressed only by segments of the same label. Results are those of the compiled function that ActionFormer and
OpenTAD share (kept set, and scores up to rounding), also where scores are equal:

- hard picks the first of equal scores in the input;
- the soft methods pick the first in the order that their list of candidates has by then: a picked candidate changes
  places with the head of the list, a dropped one is replaced by the list's last.

Where that function gives no usable answer, ours is:

| case | the compiled function | here |
|---|---|---|
| voting for a segment that no input segment overlaps enough (one of no length) | NaN, from 0 / 0 | it keeps its own times |
| soft, every score of a class below min_score | keeps the best one all the same | nothing |
| hard, a score of exactly min_score | drops it, although the soft methods keep it | keeps it |
| voting with labels | silently none | votes of the same label |
| end before start | may divide by zero | overlaps nothing |
| NaN, infinite times, negative scores | undefined | ValueError |

The turns run compiled by numba where it is installed (`pip install 'lofi-sola[fast]'`) and in plain PyTorch otherwise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from lofi.heads.soft_nms_torch import pick_in_turns
from lofi.segments import Detections

NmsMethod = Literal["hard", "linear", "gaussian", "bmn_gaussian"]
NMS_METHODS = ("hard", "linear", "gaussian", "bmn_gaussian")
NmsImplementation = Literal["auto", "torch", "numba"]

KEPT_PER_VOTE = 256
"""Kept segments whose overlaps with the whole input are held at once while they are voted on."""


@dataclass(frozen=True, kw_only=True)
class Suppressed:
    """detections: (N,) best first, with decayed scores (and voted segments); index: (N,) int64 where in the input."""

    detections: Detections
    index: Tensor


def soft_nms(
    segments: Tensor,
    scores: Tensor,
    labels: Tensor | None = None,
    *,
    method: NmsMethod = "gaussian",
    sigma: float = 0.5,
    tiou_threshold: float = 0.5,
    tiou_threshold_per_length: float = 0.0,
    min_score: float = 0.001,
    max_detections: int | None = None,
    voting_tiou_threshold: float | None = None,
    implementation: NmsImplementation = "auto",
) -> Suppressed:
    """Keep the best segments and decay or remove those that overlap a better one.

    Args:
        segments: (N, 2) start and end, any unit, any device.
        scores: (N,) finite, at least 0.
        labels: (N,) int64 class index; None: all of one class (the result's labels are 0).
        method: see the module.
        sigma: only for gaussian and bmn_gaussian; greater decays less.
        tiou_threshold: above 0 and at most 1; not for gaussian; overlap at or above it suppresses.
        tiou_threshold_per_length: only for bmn_gaussian: its threshold is tiou_threshold plus this much for each unit of
            the better segment's length.
        min_score: segments below it are dropped, before and after decay.
        max_detections: keep the best so many over all classes; None keeps all.
        voting_tiou_threshold: above 0 and at most 1; None: no voting.
        implementation: numba (compiled at the first call ever on a machine, seconds; on the CPU, to which it copies
            other tensors), torch (on the tensors' device), or auto: numba where it is installed.

    Returns:
        Detections best first, in the input's unit and on its device, and their places in the input. Computed in float64
        where segments or scores are float64, else in float32.

    Raises:
        ValueError: an option out of range, shapes that do not fit, or values that are not finite.
        ImportError: implementation numba where numba cannot be imported.
    """
    _check_options(method, sigma=sigma, max_detections=max_detections)
    _check_thresholds(
        tiou_threshold=tiou_threshold,
        tiou_threshold_per_length=tiou_threshold_per_length,
        min_score=min_score,
        voting_tiou_threshold=voting_tiou_threshold,
    )
    _check_values(segments, scores, labels)
    pick = _implementation(implementation)
    precision = torch.float64 if torch.float64 in (segments.dtype, scores.dtype) else torch.float32
    segments, scores = segments.detach().to(precision), scores.detach().to(precision)
    if labels is None:
        labels = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    index, decayed = pick(
        segments,
        scores,
        labels=labels,
        method=method,
        sigma=sigma,
        tiou_threshold=tiou_threshold,
        tiou_threshold_per_length=tiou_threshold_per_length if method == "bmn_gaussian" else 0.0,
        min_score=min_score,
        max_detections=len(scores) if max_detections is None else max_detections,
    )
    kept = Detections(segments=segments[index], scores=decayed, labels=labels[index])
    if voting_tiou_threshold is not None:
        kept = _vote(kept, segments, scores, labels=labels, tiou_threshold=voting_tiou_threshold)
    return Suppressed(detections=kept, index=index)


def _check_options(method: str, *, sigma: float, max_detections: int | None) -> None:
    if method not in NMS_METHODS:
        raise ValueError(f"soft_nms: method is {method!r}; allowed: {', '.join(NMS_METHODS)}.")
    if not sigma > 0.0:
        raise ValueError(f"soft_nms: sigma is {sigma}; it must be greater than 0.")
    if max_detections is not None and max_detections < 1:
        raise ValueError(
            f"soft_nms: max_detections is {max_detections}; it must be at least 1, or None for all."
        )


def _check_thresholds(
    *,
    tiou_threshold: float,
    tiou_threshold_per_length: float,
    min_score: float,
    voting_tiou_threshold: float | None,
) -> None:
    for name, value in (("tiou_threshold", tiou_threshold), ("voting_tiou_threshold", voting_tiou_threshold)):
        if value is not None and not 0.0 < value <= 1.0:
            raise ValueError(f"soft_nms: {name} is {value}; it must be above 0 and at most 1.")
    for name, value in (("tiou_threshold_per_length", tiou_threshold_per_length), ("min_score", min_score)):
        if not 0.0 <= value < math.inf:
            raise ValueError(f"soft_nms: {name} is {value}; it must be finite and at least 0.")


def _check_values(segments: Tensor, scores: Tensor, labels: Tensor | None) -> None:
    count = len(scores)
    if segments.shape != (count, 2) or scores.dim() != 1 or (labels is not None and labels.shape != (count,)):
        shapes = [tuple(each.shape) for each in (segments, scores, labels) if each is not None]
        raise ValueError(f"soft_nms takes segments (N, 2), scores (N,) and labels (N,); got {shapes}.")
    if labels is not None and (
        labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    ):
        raise ValueError(
            f"soft_nms: labels are {labels.dtype}; they must be indices of classes, such as int64."
        )
    if not count:
        return
    lowest, highest = scores.detach().aminmax()
    if lowest >= 0.0 and highest < torch.inf and torch.isfinite(segments).all():
        return
    num_bad_scores = int((~(torch.isfinite(scores) & (scores >= 0.0))).sum())
    num_bad_segments = int((~torch.isfinite(segments).all(dim=1)).sum())
    raise ValueError(
        f"soft_nms: of {count} detections, {num_bad_segments} have times that are not finite and {num_bad_scores} have "
        "scores that are negative or not finite. Scores are probabilities, not logits; NaN comes from a model that diverged."
    )


def _implementation(name: str) -> Callable[..., tuple[Tensor, Tensor]]:
    if name not in ("auto", "torch", "numba"):
        raise ValueError(f"soft_nms: implementation is {name!r}; allowed: auto, torch, numba.")
    if name == "torch":
        return pick_in_turns
    compiled, reason = _compiled()
    if compiled is None and name == "numba":
        raise ImportError(
            f"soft_nms: implementation 'numba' is not here ({reason}). Install it with pip install 'lofi-sola[fast]', or "
            "use implementation='torch'."
        )
    return pick_in_turns if compiled is None else compiled


@cache
def _compiled() -> tuple[Any, str]:
    """The compiled implementation, or None and why. Imported at the first use: numba takes long to import."""
    try:
        from lofi.heads.soft_nms_numba import pick_compiled
    except ImportError as error:
        return None, str(error)
    return pick_compiled, ""


def _vote(
    kept: Detections, segments: Tensor, scores: Tensor, *, labels: Tensor, tiou_threshold: float
) -> Detections:
    """Kept segments -> the weighted means of the input segments of their label that overlap them."""
    voted = [
        _weighted_mean(own, segments, torch.where(own_labels[:, None] == labels, scores, 0.0), tiou_threshold)
        for own, own_labels in zip(
            kept.segments.split(KEPT_PER_VOTE), kept.labels.split(KEPT_PER_VOTE), strict=True
        )
    ]
    return Detections(segments=torch.cat(voted), scores=kept.scores, labels=kept.labels)


def _weighted_mean(own: Tensor, segments: Tensor, weight: Tensor, tiou_threshold: float) -> Tensor:
    """(M, 2) kept segments, (N, 2) voters, (M, N) their weights -> (M, 2)."""
    start = torch.maximum(own[:, None, 0], segments[None, :, 0])
    end = torch.minimum(own[:, None, 1], segments[None, :, 1])
    overlap = (end - start).clamp(min=0.0)
    union = (own[:, 1] - own[:, 0])[:, None] + (segments[:, 1] - segments[:, 0])[None, :] - overlap
    # No length is added here, as in the field's function; a segment of no length has no overlap even with itself.
    tiou = torch.where(overlap > 0.0, overlap / union, 0.0)
    weight = torch.where(tiou >= tiou_threshold, tiou * weight, 0.0)
    total = weight.sum(dim=1, keepdim=True)
    return torch.where(total > 0.0, weight @ segments / total, own)
