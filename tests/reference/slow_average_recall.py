"""Recall of proposals, and recall at k x, one instance and one threshold at a time."""

from lofi.segments import Detection, LabelledSegment

Truth = dict[str, list[LabelledSegment]]
Found = dict[str, list[Detection]]


def slow_average_recall(
    truth: Truth, found: Found, *, tious: list[float], max_proposals: int
) -> list[list[float]]:
    videos = [video for video in truth if truth[video]]
    num_instances = sum(len(truth[video]) for video in videos)
    share = max_proposals * len(videos) / sum(len(rows) for rows in found.values())
    kept = {}
    for video in videos:
        ranked = sorted(found.get(video, []), key=lambda row: -row.score)
        kept[video] = ranked[: int(len(ranked) * share)]
    num_kept = sum(len(rows) for rows in kept.values())
    table = []
    for tiou in tious:
        line = []
        for level in range(1, max_proposals + 1):
            level_share = level / max_proposals * (max_proposals * len(videos) / num_kept)
            covered = 0
            for video in videos:
                best = kept[video][: int(len(kept[video]) * level_share)]
                covered += sum(_is_covered(each, best, tiou=tiou) for each in truth[video])
            line.append(covered / num_instances)
        table.append(line)
    return table


def slow_recall_at_kx(
    truth: Truth, found: Found, *, tious: list[float], multiples: tuple[int, ...]
) -> list[list[float]]:
    classes = sorted({row.label for rows in truth.values() for row in rows})
    table = []
    for tiou in tious:
        line = []
        for multiple in multiples:
            recalls = []
            for label in classes:
                covered, total = 0, 0
                for video, rows in truth.items():
                    instances = [row for row in rows if row.label == label]
                    candidates = [row for row in found.get(video, []) if row.label == label]
                    ranked = sorted(candidates, key=lambda row: -row.score)[: multiple * len(instances)]
                    covered += sum(_is_covered(each, ranked, tiou=tiou) for each in instances)
                    total += len(instances)
                recalls.append(covered / total)
            line.append(sum(recalls) / len(recalls))
        table.append(line)
    return table


def _is_covered(instance: LabelledSegment, proposals: list[Detection], *, tiou: float) -> bool:
    return any(_overlap(each, instance) >= tiou for each in proposals)


def _overlap(first: Detection, second: LabelledSegment) -> float:
    intersection = max(0.0, min(first.end_sec, second.end_sec) - max(first.start_sec, second.start_sec))
    union = (first.end_sec - first.start_sec) + (second.end_sec - second.start_sec) - intersection
    return intersection / union if union > 0 else 0.0
