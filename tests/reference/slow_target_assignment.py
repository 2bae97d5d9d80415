"""Which location learns which segment, one location and one segment at a time."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SlowTarget:
    """What one location learns: class indices, and distances in strides (None where nothing is learned)."""

    classes: frozenset[int]
    distances: tuple[float, float] | None


def slow_assignment(
    segments: list[tuple[float, float, int]],
    *,
    centre: float,
    stride: float,
    lower: float,
    upper: float,
    centre_radius: float,
) -> SlowTarget:
    candidates = []
    for start, end, label in segments:
        middle = (start + end) / 2
        first, last = max(start, middle - centre_radius * stride), min(end, middle + centre_radius * stride)
        if first < centre < last and lower <= max(centre - start, end - centre) < upper:
            candidates.append((start, end, label))
    if not candidates:
        return SlowTarget(classes=frozenset(), distances=None)
    shortest = min(end - start for start, end, _ in candidates)
    learned = [each for each in candidates if each[1] - each[0] <= shortest + 1e-3]
    start, end, _ = learned[0]
    return SlowTarget(
        classes=frozenset(label for _, _, label in learned),
        distances=((centre - start) / stride, (end - centre) / stride),
    )
