"""Soft-NMS, one class, one pick and one overlap at a time."""

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
    min_score: float,
) -> list[tuple[int, float]]:
    """(place in the input, decayed score) of what is kept, best first."""
    kept = []
    for label in sorted(set(labels)):
        left = {i: scores[i] for i in range(len(scores)) if labels[i] == label and scores[i] >= min_score}
        while left:
            pick = max(left, key=lambda i: (left[i], -i))
            kept.append((pick, left.pop(pick)))
            for i in list(left):
                overlap = slow_tiou(segments[pick], segments[i])
                if method == "gaussian":
                    left[i] *= math.exp(-(overlap**2) / sigma)
                elif overlap >= tiou_threshold:
                    left[i] *= 1.0 - overlap if method == "linear" else 0.0
                if left[i] < min_score:
                    del left[i]
    return sorted(kept, key=lambda pair: -pair[1])
