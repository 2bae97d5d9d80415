"""Soft-NMS, one class, one pick and one overlap at a time, with the field's rule for equal scores written out."""

import math


def slow_tiou(first: tuple[float, float], second: tuple[float, float]) -> float:
    intersection = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    return intersection / ((first[1] - first[0] + 1e-6) + (second[1] - second[0] + 1e-6) - intersection)


def slow_soft_nms(
    segments: list[tuple[float, float]],
    scores: list[float],
    labels: list[int],
    *,
    method: str,
    sigma: float,
    tiou_threshold: float,
    tiou_threshold_per_length: float,
    min_score: float,
) -> list[tuple[int, float]]:
    """(place in the input, decayed score) of what is kept, best first."""

    def decayed(score: float, pick: int, other: int) -> float:
        overlap = slow_tiou(segments[pick], segments[other])
        threshold = tiou_threshold
        if method == "bmn_gaussian":
            threshold += tiou_threshold_per_length * (segments[pick][1] - segments[pick][0] + 1e-6)
        if method != "gaussian" and overlap < threshold:
            return score
        return score * {"hard": 0.0, "linear": 1.0 - overlap}.get(method, math.exp(-(overlap**2) / sigma))

    kept = []
    for label in sorted(set(labels)):
        places = [i for i in range(len(scores)) if labels[i] == label]
        left = [(i, scores[i]) for i in places if method != "hard" or scores[i] >= min_score]
        if max((score for _, score in left), default=-1.0) < min_score:
            continue
        while left:
            best = max(range(len(left)), key=lambda k: (left[k][1], -k))
            pick, score = left[best]
            kept.append((pick, score))
            if method == "hard":
                left = [(i, x) for i, x in left if i != pick and decayed(x, pick, i) >= min_score]
                continue
            left[best] = left[0]
            waiting, left = left[1:], []
            while waiting:
                i, x = waiting.pop(0)
                x = decayed(x, pick, i)
                if x >= min_score:
                    left.append((i, x))
                elif waiting:
                    waiting.insert(0, waiting.pop())
    return sorted(kept, key=lambda pair: -pair[1])
