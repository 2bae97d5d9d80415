"""The THUMOS14 challenge's average precision, one instance and one detection at a time.

Written from the rules of TH14evalDet (not interpolated, tIoU strictly above, Ambiguous left out), not from its code.
"""

from collections.abc import Sequence

from lofi.segments import Detection, LabelledSegment


def slow_thumos14_average_precision(
    ground_truth: dict[str, list[LabelledSegment]],
    predictions: dict[str, list[Detection]],
    *,
    label: str,
    tiou: float,
    ambiguous: dict[str, Sequence[tuple[float, float]]],
) -> float:
    judged: list[tuple[float, bool]] = []
    for video in sorted({*ground_truth, *predictions}):
        found = sorted(
            (row for row in predictions.get(video, ()) if row.label == label), key=lambda row: -row.score
        )
        is_free = [True] * len(found)
        for instance in (row for row in ground_truth.get(video, ()) if row.label == label):
            overlaps = [
                _overlap((row.start_sec, row.end_sec), (instance.start_sec, instance.end_sec))
                if free
                else -1.0
                for row, free in zip(found, is_free, strict=True)
            ]
            if overlaps and max(overlaps) > tiou:
                is_free[overlaps.index(max(overlaps))] = False
        for row, free in zip(found, is_free, strict=True):
            touches = any(
                _overlap((row.start_sec, row.end_sec), each) > 0 for each in ambiguous.get(video, ())
            )
            if not free or not touches:
                judged.append((row.score, not free))
    judged.sort(key=lambda pair: -pair[0])
    num_instances = sum(row.label == label for rows in ground_truth.values() for row in rows)
    hits, area = 0, 0.0
    for rank, (_, is_hit) in enumerate(judged, start=1):
        hits += is_hit
        area += hits / rank if is_hit else 0.0
    return area / num_instances


def _overlap(first: tuple[float, float], second: tuple[float, float]) -> float:
    intersection = min(first[1], second[1]) - max(first[0], second[0])
    return intersection / (max(first[1], second[1]) - min(first[0], second[0])) if intersection > 0 else 0.0
