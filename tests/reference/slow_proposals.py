"""Maps of proposals, one proposal, one bin, one sample and one instance at a time. Plain numbers and lists."""

import math


def read_at(sequence: list[float], place: float) -> float:
    """Linear interpolation; snippet i stands at i, and there is nothing beyond either end."""
    below = math.floor(place)
    share = place - below
    total = 0.0
    for index, weight in ((below, 1.0 - share), (below + 1, share)):
        if 0 <= index < len(sequence):
            total += weight * sequence[index]
    return total


def slow_bins(
    sequence: list[float], *, start: int, length: int, bins: int, samples: int | None, context: float
) -> list[float]:
    """One channel of one proposal, aligned to its bins."""
    begin, end = start - context * length, start + length + context * length
    width = (end - begin) / bins
    count = samples or max(1, math.ceil(width - 1e-9))
    return [
        sum(read_at(sequence, begin + (n + (i + 0.5) / count) * width - 0.5) for i in range(count)) / count
        for n in range(bins)
    ]


def slow_tiou(first: tuple[float, float], second: tuple[float, float]) -> float:
    shared = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    return shared / (first[1] - first[0] + second[1] - second[0] - shared)


def slow_targets(
    segments: list[tuple[float, float, int]], *, num_snippets: int, max_duration: int
) -> tuple[list[list[float]], list[float], list[float]]:
    """tIoU map [duration][start], start and end scores."""
    tiou = [
        [
            max((slow_tiou((s, s + d + 1), (a, b)) for a, b, _ in segments), default=0.0)
            for s in range(num_snippets)
        ]
        for d in range(max_duration)
    ]

    def near(places: list[float], centre: float) -> float:
        """How much of one snippet around `centre` lies within 1.5 snippets of a boundary."""
        return max(
            (max(0.0, min(centre + 0.5, p + 1.5) - max(centre - 0.5, p - 1.5)) for p in places), default=0.0
        )

    start = [near([a for a, _, _ in segments], i) for i in range(num_snippets)]
    end = [near([b for _, b, _ in segments], i + 1) for i in range(num_snippets)]
    return tiou, start, end


def slow_balanced_cross_entropy(probabilities: list[float], positive: list[bool]) -> float:
    """Equation 5 of BMN: coefficients by the ratio of all to positives. At least one of each."""
    ratio = len(positive) / sum(positive)
    weight_negative, weight_positive = 0.5 * ratio / (ratio - 1), 0.5 * ratio
    total = 0.0
    for probability, is_positive in zip(probabilities, positive, strict=True):
        weight = weight_positive if is_positive else weight_negative
        total -= weight * math.log(probability if is_positive else 1.0 - probability)
    return total / len(positive)


def slow_regression(cells: list[tuple[float, float, float]]) -> float:
    """Equation 8 of BMN on (probability, tIoU, random number) of every valid proposal."""
    high = [cell for cell in cells if cell[1] > 0.7]
    middle = [cell for cell in cells if 0.3 < cell[1] <= 0.7]
    low = [cell for cell in cells if 0.0 < cell[1] <= 0.3]
    chosen = list(high)
    for others in (middle, low):
        chosen += [cell for cell in others if cell[2] < len(high) / len(others)]
    return 0.5 * sum((p - tiou) ** 2 for p, tiou, _ in chosen) / len(chosen)


def slow_candidates(scores: list[float]) -> list[int]:
    """Snippets that are peaks, or exceed half of the greatest score."""
    found = []
    for i, score in enumerate(scores):
        before = scores[i - 1] if i > 0 else -1.0
        after = scores[i + 1] if i + 1 < len(scores) else -1.0
        if (score > before and score > after) or score > 0.5 * max(scores):
            found.append(i)
    return found
