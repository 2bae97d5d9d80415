"""The turns of soft-NMS compiled for one CPU thread by numba, which is optional (the extra `fast`).

At each turn the class whose best candidate is highest picks, so the picks come best first and the work ends with the last
wanted one. `lofi.heads.soft_nms` says the rules. The compiled code is kept on disk; the first call ever on a machine takes
the seconds that compiling takes.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from lofi.heads.soft_nms_torch import LENGTH_OFFSET

LINEAR, GAUSSIAN, BMN_GAUSSIAN = range(3)
CODES = {"linear": LINEAR, "gaussian": GAUSSIAN, "bmn_gaussian": BMN_GAUSSIAN}


def pick_compiled(
    segments: Tensor,
    scores: Tensor,
    *,
    labels: Tensor,
    method: str,
    sigma: float,
    tiou_threshold: float,
    tiou_threshold_per_length: float,
    min_score: float,
    max_detections: int,
) -> tuple[Tensor, Tensor]:
    """The arguments of `soft_nms`, checked -> (N,) int64 places in the input, best first, and (N,) decayed scores."""
    device = scores.device
    place, first, left = _rows_by_class(labels.cpu().numpy())
    start, end = segments.cpu().numpy().T.take(place, axis=1)
    score = scores.cpu().numpy()[place]
    as_float = score.dtype.type  # options in the values' precision, since tIoU and threshold may be equal
    length = end - start + as_float(LENGTH_OFFSET)
    picked = np.empty(min(len(place), max_detections), dtype=np.int64)
    picked_score = np.empty(len(picked), dtype=score.dtype)
    if method == "hard":
        order = np.argsort(-score, kind="stable")[: np.count_nonzero(score >= as_float(min_score))]
        count = _keep_hard(
            start=start,
            end=end,
            length=length,
            order=order,
            class_of=np.repeat(np.arange(len(first)), left),
            first=first,
            tiou_threshold=as_float(tiou_threshold),
            picked=picked,
        )
        picked, picked_score = place[picked[:count]], score[picked[:count]]
    else:
        count = _pick_soft(
            start=start,
            end=end,
            length=length,
            score=score,
            place=place,
            first=first,
            left=left,
            method=CODES[method],
            sigma=as_float(sigma),
            tiou_threshold=as_float(tiou_threshold),
            tiou_threshold_per_length=as_float(tiou_threshold_per_length),
            min_score=as_float(min_score),
            picked=picked,
            picked_score=picked_score,
        )
    return torch.from_numpy(picked[:count]).to(device), torch.from_numpy(picked_score[:count]).to(device)


def _rows_by_class(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places in the input, class after class, and each class's first and number in that order."""
    place = np.argsort(labels, kind="stable")
    in_order = labels[place]
    is_first = np.ones(len(labels), dtype=bool)
    np.not_equal(in_order[1:], in_order[:-1], out=is_first[1:])
    first = np.flatnonzero(is_first)
    return place, first, np.diff(first, append=len(labels))


def _compiled(function: Callable[..., Any]) -> Any:
    njit: Any = numba.njit
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written: compile in every process
        return njit(nogil=True, error_model="numpy")(function)


@_compiled
def _keep_hard(
    start: np.ndarray,
    end: np.ndarray,
    length: np.ndarray,
    order: np.ndarray,
    class_of: np.ndarray,
    first: np.ndarray,
    tiou_threshold: float,
    picked: np.ndarray,
) -> int:
    """Walk through the candidates best first; keep those that no kept one of their class overlaps.

    Args:
        start, end, length: (N,), class after class.
        order: (M,) places in these, best first.
        class_of: (N,) int64. first: (C,) int64, where each class begins.
        picked: (K,) int64, the result: places in these.

    Returns:
        How many were kept.
    """
    kept = np.empty(len(start), dtype=np.int64)
    end_of_kept = first.copy()
    count = 0
    for candidate in order:
        if count == len(picked):
            break
        c = class_of[candidate]
        is_kept = True
        for i in range(first[c], end_of_kept[c]):
            other = kept[i]
            overlap = min(end[candidate], end[other]) - max(start[candidate], start[other])
            tiou = overlap / (length[other] + length[candidate] - overlap) if overlap > 0 else 0 * overlap
            if tiou >= tiou_threshold:
                is_kept = False
                break
        if is_kept:
            kept[end_of_kept[c]] = candidate
            end_of_kept[c] += 1
            picked[count] = candidate
            count += 1
    return count


@_compiled
def _pick_soft(
    start: np.ndarray,
    end: np.ndarray,
    length: np.ndarray,
    score: np.ndarray,
    place: np.ndarray,
    first: np.ndarray,
    left: np.ndarray,
    method: int,
    sigma: float,
    tiou_threshold: float,
    tiou_threshold_per_length: float,
    min_score: float,
    picked: np.ndarray,
    picked_score: np.ndarray,
) -> int:
    """Turn after turn, the class whose best candidate is highest picks it, and its other candidates decay.

    Args:
        start, end, length, score: (N,), class after class; changed.
        place: (N,) int64, goes along with them; changed.
        first, left: (C,) int64, where the candidates of a class begin and how many they are; changed.
        method to min_score: as in `soft_nms`, in the type of the scores.
        picked, picked_score: (K,) int64 and of the scores' type, the result: `place` of what was picked, best first.

    Returns:
        How many were picked.
    """
    as_float = score.dtype.type
    one = as_float(1)
    best = np.empty(len(first), dtype=np.int64)
    for c in range(len(first)):
        best[c] = first[c] + np.argmax(score[first[c] : first[c] + left[c]])
        if score[best[c]] < min_score:
            left[c] = 0
    for turn in range(len(picked)):
        c = -1
        for other in range(len(first)):
            if left[other] > 0 and (c < 0 or score[best[other]] > score[best[c]]):
                c = other
        if c < 0:
            return turn
        pick, head, stop = best[c], first[c], first[c] + left[c]
        picked[turn], picked_score[turn] = place[pick], score[pick]
        pick_start, pick_end, pick_length = start[pick], end[pick], length[pick]
        start[pick], end[pick], length[pick] = start[head], end[head], length[head]
        score[pick], place[pick] = score[head], place[head]
        threshold = tiou_threshold
        if method == BMN_GAUSSIAN:
            threshold += tiou_threshold_per_length * pick_length
        next_best, highest = -1, -one
        i = head + 1
        while i < stop:
            overlap = min(pick_end, end[i]) - max(pick_start, start[i])
            if overlap > 0:
                tiou = overlap / (pick_length + length[i] - overlap)
                if method == LINEAR:
                    if tiou >= threshold:
                        score[i] *= one - tiou
                elif method == GAUSSIAN or tiou >= threshold:
                    score[i] *= as_float(math.exp(np.float64(-(tiou * tiou) / sigma)))
            if score[i] < min_score:  # the last one fills the gap, and is looked at next
                stop -= 1
                start[i], end[i], length[i] = start[stop], end[stop], length[stop]
                score[i], place[i] = score[stop], place[stop]
                continue
            if score[i] > highest:
                next_best, highest = i, score[i]
            i += 1
        first[c], left[c], best[c] = head + 1, stop - head - 1, next_best
    return len(picked)
