"""Average recall at an average number of proposals per video (AR@AN), as ActivityNet's toolkit computes it.

Source: the ActivityNet evaluation toolkit (`eval_proposal`); equal to it where no two scores of a video are equal.
Labels count for nothing. The budget of AN proposals per video is spent in proportion: each video gives the same SHARE of
its proposals, best first, so a video with many proposals gives many. The toolkit's own habits are kept, because published
numbers have them: the share is computed from all proposals, those of videos outside the ground truth included; it is
rounded down per video, twice; videos without an instance take no part.
What differs: no proposals at all give 0 (the toolkit divides by 0); equal scores are ordered by start and end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lofi.segments import Detection, LabelledSegment, tiou_matrix

RECALL_TIOUS = tuple(float(tiou) for tiou in np.linspace(0.5, 0.95, 10))


@dataclass(frozen=True, kw_only=True)
class AverageRecall:
    """Fractions between 0 and 1."""

    recall: np.ndarray
    """(max_proposals,) mean recall over the thresholds at 1, 2, ... proposals per video."""
    num_proposals: np.ndarray
    """(max_proposals,) the proposals per video behind each entry."""
    auc: float
    """Area under recall over num_proposals, divided by the largest of them."""

    def at(self, proposals: int) -> float:
        """AR at this number of proposals per video (from 1 on)."""
        return float(self.recall[proposals - 1])


def average_recall(
    ground_truth: Mapping[str, Sequence[LabelledSegment]],
    predictions: Mapping[str, Sequence[Detection]],
    *,
    tious: Sequence[float] = RECALL_TIOUS,
    max_proposals: int = 100,
) -> AverageRecall:
    """AR at 1 ... `max_proposals` proposals per video.

    Args:
        ground_truth: video -> instances, seconds.
        predictions: video -> detections, seconds, in any order.
        tious: thresholds that recall is averaged over.
        max_proposals: the largest average number of proposals per video.
    """
    videos = sorted(video for video, segments in ground_truth.items() if segments)
    if not videos:
        raise ValueError(
            f"the ground truth has no instance in {len(ground_truth)} videos; nothing to evaluate."
        )
    num_instances = sum(len(ground_truth[video]) for video in videos)
    num_all = sum(len(rows) for rows in predictions.values())
    share = max_proposals * len(videos) / num_all if num_all else 0.0

    tables, num_kept = [], 0
    for video in videos:
        rows = sorted(predictions.get(video, ()), key=lambda row: (-row.score, row.start_sec, row.end_sec))
        if not rows:
            continue
        kept = rows[: min(int(len(rows) * share), len(rows))]
        num_kept += len(kept)
        instances = np.array([(each.start_sec, each.end_sec) for each in ground_truth[video]])
        proposals = np.array([(each.start_sec, each.end_sec) for each in kept]).reshape(-1, 2)
        tables.append(tiou_matrix(instances, proposals))
    levels = np.arange(1, max_proposals + 1)
    if not num_kept:
        zeros = np.zeros(max_proposals)
        return AverageRecall(recall=zeros, num_proposals=levels.astype(np.float64), auc=0.0)

    shares = levels / max_proposals * (max_proposals * len(videos) / num_kept)
    recalled = np.zeros((len(tious), max_proposals))
    for table in tables:
        counts = np.minimum((table.shape[1] * shares).astype(np.int64), table.shape[1])
        # The best tIoU of each instance among the first n proposals, for n = 0, 1, ...
        best = np.concatenate([np.full((len(table), 1), -1.0), np.maximum.accumulate(table, axis=1)], axis=1)
        for row, tiou in enumerate(tious):
            recalled[row] += (best[:, counts] >= tiou).sum(axis=0)
    recall = (recalled / num_instances).mean(axis=0)
    num_proposals = shares * (num_kept / len(videos))
    auc = float(np.trapezoid(recall, num_proposals) / num_proposals[-1])
    return AverageRecall(recall=recall, num_proposals=num_proposals, auc=auc)
