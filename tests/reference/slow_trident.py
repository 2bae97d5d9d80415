"""TriDet's boundaries and losses, one location, one class and one bin at a time. Plain numbers."""

import math


def softmax(scores: list[float]) -> list[float]:
    exponentials = [math.exp(score) for score in scores]
    return [each / sum(exponentials) for each in exponentials]


def slow_distance(boundary: list[float], offsets: list[float], *, location: int, step: int) -> float:
    """Expected distance from a location of one level to a boundary before (step -1) or after it (step 1).

    boundary: scores of the level's positions; offsets: score of each distance 0 to N. Beyond the level, scores are 0.
    """
    scores = []
    for distance, offset in enumerate(offsets):
        place = location + step * distance
        scores.append(offset + (boundary[place] if 0 <= place < len(boundary) else 0.0))
    return sum(distance * share for distance, share in enumerate(softmax(scores)))


def slow_focal(probability: float, target: float) -> float:
    entropy = -(target * math.log(probability) + (1 - target) * math.log(1 - probability))
    wrong = probability * (1 - target) + (1 - probability) * target
    return (0.25 * target + 0.75 * (1 - target)) * wrong**2 * entropy


def slow_tiou_and_loss(predicted: tuple[float, float], wanted: tuple[float, float]) -> tuple[float, float]:
    """Of segments [-left, right] seen from the same place."""
    shared = min(predicted[0], wanted[0]) + min(predicted[1], wanted[1])
    tiou = shared / (sum(predicted) + sum(wanted) - shared)
    hull = max(predicted[0], wanted[0]) + max(predicted[1], wanted[1])
    centres = [(right - left) / 2 for left, right in (predicted, wanted)]
    return tiou, 1 - tiou + ((centres[0] - centres[1]) / hull) ** 2
