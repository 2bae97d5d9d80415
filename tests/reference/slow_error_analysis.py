"""Error analysis at one threshold list by plain loops over dicts: types, gains, buckets, what is missed."""

from dataclasses import dataclass

from lofi.segments import Detection, LabelledSegment

Truth = dict[str, list[LabelledSegment]]
Found = dict[str, list[Detection]]
Key = tuple[str, int]
TYPES = ["true_positive", "double_detection", "wrong_label", "localization", "confusion", "background"]


@dataclass(frozen=True)
class Judged:
    """One prediction at one threshold: the instance it hits, or what is wrong with it."""

    label: str
    hit: Key | None
    type: str


def judge(truth: Truth, found: Found, *, tiou: float, low_tiou: float = 0.1) -> list[Judged]:
    """All predictions with a known label, best score first."""
    classes = {row.label for rows in truth.values() for row in rows}
    ranked = [(video, row) for video, rows in found.items() for row in rows if row.label in classes]
    taken: set[Key] = set()
    judged = []
    for video, row in sorted(ranked, key=lambda pair: -pair[1].score):
        overlaps = {(video, index): _overlap(row, each) for index, each in enumerate(truth.get(video, []))}
        free = {
            key: value
            for key, value in overlaps.items()
            if value >= tiou and key not in taken and truth[video][key[1]].label == row.label
        }
        hit = max(free, key=lambda key: free[key]) if free else None
        if hit is not None:
            taken.add(hit)
            judged.append(Judged(row.label, hit, "true_positive"))
            continue
        largest = max(overlaps.values(), default=0.0)
        labels = {truth[video][key[1]].label for key, value in overlaps.items() if value == largest}
        if largest < low_tiou:
            kind = "background"
        elif row.label in labels:
            kind = "double_detection" if largest >= tiou else "localization"
        else:
            kind = "wrong_label" if largest >= tiou else "confusion"
        judged.append(Judged(row.label, None, kind))
    return judged


def slow_band_shares(
    truth: Truth, found: Found, *, tious: list[float], num_bands: int
) -> list[list[float] | None]:
    instances = _instances_per_class(truth)
    shares: list[list[float] | None] = []
    for band in range(num_bands):
        kinds = []
        for tiou in tious:
            judged = judge(truth, found, tiou=tiou)
            for label, count in instances.items():
                of_class = [each for each in judged if each.label == label]
                kinds += [each.type for each in of_class[band * count : (band + 1) * count]]
        shares.append([kinds.count(kind) / len(kinds) for kind in TYPES] if kinds else None)
    return shares


def slow_gain(
    truth: Truth, found: Found, *, tious: list[float], kind: str, num_bands: int | None = None
) -> float:
    """Plain over all predictions, or normalised over the best `num_bands` x instances of each class."""
    instances = _instances_per_class(truth)
    per_class = sum(instances.values()) / len(instances) if num_bands else None
    gain = 0.0
    for tiou in tious:
        judged = judge(truth, found, tiou=tiou)
        for label, count in instances.items():
            of_class = [each for each in judged if each.label == label][
                : num_bands * count if num_bands else None
            ]
            without = [each for each in of_class if each.type != kind]
            gain += _average_precision(without, count, per_class=per_class)
            gain -= _average_precision(of_class, count, per_class=per_class)
    return gain / len(tious) / len(instances)


def slow_bucket(
    truth: Truth, found: Found, *, tious: list[float], members: set[Key], is_normalized: bool
) -> float:
    """Average mAP over the instances of one bucket."""
    classes = _instances_per_class(truth)
    per_class = sum(classes.values()) / len(classes) if is_normalized else None
    at = [judge(truth, found, tiou=tiou) for tiou in tious]
    stays = [
        all(judged[place].hit is None or judged[place].hit in members for judged in at)
        for place in range(len(at[0]))
    ]
    averages = []
    for judged in at:
        left = [each for each, stay in zip(judged, stays, strict=True) if stay]
        values = []
        for label in classes:
            count = sum(truth[video][index].label == label for video, index in members)
            if count:
                of_class = [each for each in left if each.label == label]
                values.append(_average_precision(of_class, count, per_class=per_class))
        averages.append(sum(values) / len(values))
    return sum(averages) / len(averages)


def slow_missed(truth: Truth, found: Found, *, tious: list[float], members: set[Key]) -> float:
    """Share of instances without a hit above normalised precision 0.05."""
    classes = _instances_per_class(truth)
    per_class = sum(classes.values()) / len(classes)
    missed = 0
    for tiou in tious:
        judged = judge(truth, found, tiou=tiou)
        seen = set()
        for label, count in classes.items():
            of_class = [each for each in judged if each.label == label]
            for place, each in enumerate(of_class):
                if each.hit and _precision(of_class[: place + 1], count, per_class=per_class) > 0.05:
                    seen.add(each.hit)
        missed += len(members - seen)
    return missed / len(members) / len(tious)


def _instances_per_class(truth: Truth) -> dict[str, int]:
    labels = [row.label for rows in truth.values() for row in rows]
    return {label: labels.count(label) for label in sorted(set(labels))}


def _precision(judged: list[Judged], count: int, *, per_class: float | None) -> float:
    hits = sum(each.hit is not None for each in judged)
    if per_class is None:
        return hits / len(judged)
    recall = hits / count
    misses = len(judged) - hits
    return recall * per_class / (recall * per_class + misses) if hits else 0.0


def _average_precision(judged: list[Judged], count: int, *, per_class: float | None) -> float:
    precisions = [_precision(judged[: place + 1], count, per_class=per_class) for place in range(len(judged))]
    return sum(max(precisions[place:]) / count for place, each in enumerate(judged) if each.hit is not None)


def _overlap(first: Detection, second: LabelledSegment) -> float:
    intersection = max(0.0, min(first.end_sec, second.end_sec) - max(first.start_sec, second.start_sec))
    union = (first.end_sec - first.start_sec) + (second.end_sec - second.start_sec) - intersection
    return intersection / union if union > 0 else 0.0
