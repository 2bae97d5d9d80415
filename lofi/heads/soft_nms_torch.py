"""The turns of soft-NMS in plain PyTorch, on any device: at each turn every class picks its best candidate.

The number of classes costs no time, the number of turns does. `lofi.heads.soft_nms` says the rules.
"""

import torch
from torch import Tensor

LENGTH_OFFSET = 1e-6
"""Added to every length, as in the field's compiled function."""
GONE = -1.0
"""The score of a place that holds no candidate (any more); real ones are at least 0."""
TURNS_PER_CHECK = 8


def pick_in_turns(
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
    index_CN, is_here_CN = _rows_by_class(labels)
    start_CN, end_CN = segments[index_CN].unbind(dim=2)
    # Not below 0, so that a segment that ends before it starts has no tIoU of 0 / 0.
    length_CN = (end_CN - start_CN).clamp(min=0.0) + LENGTH_OFFSET
    segment_3CN = torch.stack([start_CN, end_CN, length_CN])
    score_CN = scores[index_CN].masked_fill(~is_here_CN, GONE)
    # Where scores are equal, the soft methods pick by the order of a list that they shuffle as they go, and what lies below
    # min_score leaves that list at the first turn. Following it costs half the time, so only where it matters.
    follows_list = method != "hard" and _has_ties(score_CN, min_score=min_score)
    is_low = score_CN.amax(dim=1, keepdim=True) < min_score if follows_list else score_CN < min_score
    score_CN = score_CN.masked_fill(is_low, GONE)
    picked_index: list[Tensor] = []
    picked_score: list[Tensor] = []
    for turn in range(min(index_CN.shape[1], max_detections)):
        best_score, best = score_CN.max(dim=1, keepdim=True)
        if turn % TURNS_PER_CHECK == 0 and _is_complete(
            picked_score, best_score, max_detections=max_detections
        ):
            break
        picked_index.append(index_CN.gather(1, best))
        picked_score.append(best_score)
        pick_3C1 = segment_3CN.gather(2, best.expand(3, -1, 1))
        threshold: float | Tensor = tiou_threshold
        if method == "bmn_gaussian":
            threshold = tiou_threshold + tiou_threshold_per_length * pick_3C1[2]
        tiou = _tiou(segment_3CN, pick_3C1)
        decayed = _decayed(score_CN, tiou, method=method, sigma=sigma, threshold=threshold)
        is_gone = (score_CN < 0.0) | (decayed < min_score)
        if not follows_list:
            score_CN = decayed.masked_fill(is_gone, GONE).scatter(1, best, GONE)
            continue
        source, is_left = _close_gaps(best, ~is_gone)
        score_CN = decayed.gather(1, source).masked_fill(~is_left, GONE)
        segment_3CN = segment_3CN.gather(2, source.expand(3, -1, -1))
        index_CN = index_CN.gather(1, source)
    if not picked_index:
        return torch.zeros(0, dtype=torch.int64, device=scores.device), scores[:0]
    decayed = torch.cat(picked_score, dim=1).flatten()
    index = torch.cat(picked_index, dim=1).flatten()
    index, decayed = index[decayed >= 0.0], decayed[decayed >= 0.0]
    order = decayed.sort(descending=True, stable=True).indices[:max_detections]
    return index[order], decayed[order]


def _tiou(segment_3CN: Tensor, pick_3C1: Tensor) -> Tensor:
    """Of every candidate and its class's pick, (C, N). Rows are start, end, length."""
    start, end, length = segment_3CN
    pick_start, pick_end, pick_length = pick_3C1
    overlap = (torch.minimum(end, pick_end) - torch.maximum(start, pick_start)).clamp(min=0.0)
    return overlap / (length + pick_length - overlap)


def _decayed(
    score_CN: Tensor, tiou: Tensor, *, method: str, sigma: float, threshold: float | Tensor
) -> Tensor:
    """The scores after a pick, (C, N), by each candidate's tIoU with it, (C, N); a threshold tensor is (C, 1)."""
    if method == "hard":
        return score_CN.masked_fill(tiou >= threshold, GONE)
    decayed = score_CN * (1.0 - tiou if method == "linear" else torch.exp(tiou**2 / -sigma))
    return decayed if method == "gaussian" else torch.where(tiou >= threshold, decayed, score_CN)


def _has_ties(score_CN: Tensor, *, min_score: float) -> bool:
    """True if two candidates of a class have the same score, not below min_score."""
    in_order = score_CN.sort(dim=1).values
    is_tie = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= min_score)
    return bool(is_tie.any())


def _close_gaps(best: Tensor, stays: Tensor) -> tuple[Tensor, Tensor]:
    """The order of the list of candidates after a turn, which decides between equal scores at the next.

    The pick changes places with the head of the list and leaves with it. Then every gap, from the head on, is filled with
    the last candidate that stays.

    Args:
        best: (C, 1) the pick's place in its row.
        stays: (C, N) which candidates remain (whatever it says of the pick).

    Returns:
        source, (C, N - 1): where in the old row each place of the new one comes from; is_left, (C, N - 1): which places
        hold a candidate (the others come last).
    """
    num_rows, width = stays.shape
    column = torch.arange(width, device=stays.device).expand(num_rows, -1)
    source = column.scatter(1, best, 0)[:, 1:]
    stays, column = stays.gather(1, source), column[:, :-1]
    left = stays.sum(dim=1, keepdim=True)
    is_left = column < left
    is_gap, is_mover = is_left & ~stays, stays & ~is_left
    last_is_0 = is_mover.sum(dim=1, keepdim=True) - is_mover.cumsum(dim=1)
    # One column more than needed takes what is no mover.
    movers = source.new_zeros(num_rows, width).scatter(
        1, torch.where(is_mover, last_is_0, width - 1), torch.where(is_mover, source, 0)
    )
    gap = (is_gap.cumsum(dim=1) - 1).clamp(min=0)
    return torch.where(is_gap, movers.gather(1, gap), source), is_left


def _is_complete(picked: list[Tensor], remaining: Tensor, *, max_detections: int) -> bool:
    """True if no further turn can change the result: scores of later picks are never above those that remain now."""
    highest = float(remaining.max())
    if highest < 0.0:
        return True
    if len(picked) * len(remaining) < max_detections:
        return False
    return float(torch.cat(picked).flatten().topk(max_detections).values[-1]) > highest


def _rows_by_class(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Places in the input, one row per class that occurs, (C, N) int64; and which of them are no padding, (C, N)."""
    _, row, counts = labels.unique(return_inverse=True, return_counts=True)
    order = row.argsort(stable=True)
    column = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[row[order]]
    shape = (len(counts), int(counts.max()) if len(counts) else 0)
    places = torch.zeros(shape, dtype=torch.int64, device=labels.device)
    is_here = torch.zeros(shape, dtype=torch.bool, device=labels.device)
    places[row[order], column] = order
    is_here[row[order], column] = True
    return places, is_here
