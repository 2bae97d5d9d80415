"""Interpolated average precision of one class at one threshold, one prediction at a time."""

from lofi.segments import Detection, LabelledSegment


def slow_average_precision(
    ground_truth: dict[str, list[LabelledSegment]],
    predictions: dict[str, list[Detection]],
    *,
    label: str,
    tiou: float,
) -> float:
    instances = [
        (video, each) for video, rows in ground_truth.items() for each in rows if each.label == label
    ]
    ranked = sorted(
        ((video, each) for video, rows in predictions.items() for each in rows if each.label == label),
        key=lambda pair: -pair[1].score,
    )
    taken: set[int] = set()
    hits = []
    for video, prediction in ranked:
        best, best_overlap = None, 0.0
        for index, (other_video, instance) in enumerate(instances):
            if other_video != video or index in taken:
                continue
            overlap = _overlap(prediction, instance)
            if overlap >= tiou and overlap > best_overlap:
                best, best_overlap = index, overlap
        hits.append(best is not None)
        if best is not None:
            taken.add(best)
    area, last_recall = 0.0, 0.0
    for rank in range(len(hits)):
        recall = sum(hits[: rank + 1]) / len(instances)
        precision = max(sum(hits[: later + 1]) / (later + 1) for later in range(rank, len(hits)))
        area += (recall - last_recall) * precision
        last_recall = recall
    return area


def _overlap(first: Detection, second: LabelledSegment) -> float:
    intersection = max(0.0, min(first.end_sec, second.end_sec) - max(first.start_sec, second.start_sec))
    union = (first.end_sec - first.start_sec) + (second.end_sec - second.start_sec) - intersection
    return intersection / union if union > 0 else 0.0
