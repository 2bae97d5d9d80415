"""Average recall at an average number of proposals per video (AR@AN), and recall at k x the number of instances.

AR@AN is that of the ActivityNet evaluation toolkit (`eval_proposal`), which OpenTAD took over; equal to both where no two
scores of a video are equal. Labels count for nothing. The budget of AN proposals per video is spent in proportion: each
video gives the same SHARE of its proposals, best first, so a video with many proposals gives many. The toolkit's own
habits are kept, because published numbers have them: the share is computed from all proposals, those of videos outside
the ground truth included; it is rounded down per video, twice; videos without an instance take no part.
What differs: no proposals at all give 0 (the toolkit divides by 0); equal scores are ordered by start and end unless
`ties` says otherwise, so that the order of the file does not matter.

Recall at k x (ActionFormer's and OpenTAD's `recall@kx`): of each class in each video the k x n best predictions, n being
its instances there; the share of instances that any of them covers, over all videos; then the mean over the classes that
have an instance. A prediction may cover several instances and several predictions one: nothing is assigned.

Shapes: M instances, N predictions, T thresholds, P numbers of proposals, K classes, X multiples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lofi.evaluation.pairs import pair_blocks, paired_tiou
from lofi.evaluation.ranking import order_groups, rank_of_names
from lofi.evaluation.tables import GroundTruth, Predictions, indices_in

Ties = Literal["time", "unstable", "video"]
RECALL_TIOUS = tuple(float(tiou) for tiou in np.linspace(0.5, 0.95, 10))
NEVER = np.iinfo(np.int64).max
"""Rank of the covering prediction of an instance that none covers."""
ROWS_AT_ONCE = 1 << 16
"""Predictions whose group is looked up together: bounds the memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AverageRecall:
    """Fractions between 0 and 1."""

    tious: tuple[float, ...]
    recall_TP: np.ndarray
    """(T, P) recall of each threshold at 1, 2, ... P proposals per video."""
    recall: np.ndarray
    """(P,) its mean over the thresholds: AR@AN."""
    num_proposals: np.ndarray
    """(P,) the proposals per video behind each entry."""
    auc: float
    """Area under recall over num_proposals, divided by the largest of them."""

    def at(self, proposals: int) -> float:
        """AR at this number of proposals per video (from 1 on)."""
        return float(self.recall[proposals - 1])


def average_recall(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    tious: Sequence[float] = RECALL_TIOUS,
    max_proposals: int = 100,
    instances: np.ndarray | None = None,
    ties: Ties = "time",
) -> AverageRecall:
    """AR at 1 ... `max_proposals` proposals per video.

    Args:
        truth: M instances.
        predictions: N proposals in any order; labels are not looked at.
        tious: T thresholds that recall is averaged over; a tIoU equal to one covers.
        max_proposals: P, the largest average number of proposals per video.
        instances: rows of `truth` that take part, such as `Matching.instances` under OpenTAD's rules; all by default, as
            the toolkit has it.
        ties: the order of equal scores, as of `Protocol.ties`; the references have "unstable".
    """
    if max_proposals < 1:
        raise ValueError(f"max_proposals is {max_proposals}; it must be at least 1.")
    truth = _only(truth, instances)
    instances_V = np.bincount(truth.video, minlength=len(truth.videos))
    known = indices_in(predictions.videos, truth.videos)
    takes_part = (known >= 0) & (instances_V[known] > 0)
    # The last group is of those that take no part.
    group = np.where(takes_part, known, len(truth.videos)).astype(np.int32)[predictions.video]
    ranked = _rank(predictions, group=group, num_groups=len(truth.videos), ties=ties)
    del group

    num_videos = int(np.count_nonzero(instances_V))
    share = max_proposals * num_videos / len(predictions) if len(predictions) else 0.0
    kept_V = np.minimum((ranked.count * share).astype(np.int64), ranked.count)
    num_kept = int(kept_V.sum())
    levels = np.arange(1, max_proposals + 1)
    shares = levels / max_proposals * (max_proposals * num_videos / num_kept) if num_kept else levels * 0.0
    first_MT = _first_cover(
        truth,
        predictions,
        ranked=ranked,
        group=truth.video,
        limits=kept_V[truth.video],
        tious=np.asarray(tious, dtype=np.float64),
    )

    recalled_TP = np.zeros((len(tious), max_proposals + 1), dtype=np.int64)
    kept_M = kept_V[truth.video]
    for kept in np.unique(kept_M[kept_M > 0]):
        counts = np.minimum((kept * shares).astype(np.int64), kept)
        # The first level whose share of this video's proposals reaches the covering one; P where none does.
        level_MT = np.searchsorted(counts, first_MT[kept_M == kept], side="right")
        for row, level in enumerate(level_MT.T):
            recalled_TP[row] += np.bincount(level, minlength=max_proposals + 1)
    recall_TP = recalled_TP[:, :-1].cumsum(axis=1) / len(truth)
    recall = recall_TP.mean(axis=0)
    num_proposals = shares * (num_kept / num_videos) if num_kept else levels.astype(np.float64)
    return AverageRecall(
        tious=tuple(float(tiou) for tiou in tious),
        recall_TP=recall_TP,
        recall=recall,
        num_proposals=num_proposals,
        auc=float(np.trapezoid(recall, num_proposals) / num_proposals[-1]),
    )


def recall_at_kx(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    tious: Sequence[float],
    multiples: Sequence[int] = (1, 5),
    instances: np.ndarray | None = None,
    ties: Ties = "time",
) -> np.ndarray:
    """Recall of the k x n best predictions of every class in every video, n being its instances there.

    Args:
        truth: M instances.
        predictions: N detections in any order; those whose label is no class, or whose video is not of the subset, cannot
            cover anything.
        tious: T thresholds; a tIoU equal to one covers.
        multiples: X values of k.
        instances: rows of `truth` that take part, all by default. Both references drop duplicates and instances of no
            length; `Matching.instances` under OpenTAD's rules does as well.
        ties: the order of equal scores, as of `Protocol.ties`; both references have "unstable".

    Returns:
        (T, X) mean over the classes that have an instance.
    """
    truth = _only(truth, instances)
    num_classes = len(truth.classes)
    group_M = truth.video.astype(np.int64) * num_classes + truth.label
    groups, place_M, instances_G = np.unique(group_M, return_inverse=True, return_counts=True)
    group = _place_of(predictions, truth, groups=groups)
    ranked = _rank(predictions, group=group, num_groups=len(groups), ties=ties)
    del group
    largest = np.minimum(ranked.count, max(multiples) * instances_G)
    first_MT = _first_cover(
        truth,
        predictions,
        ranked=ranked,
        group=place_M,
        limits=largest[place_M],
        tious=np.asarray(tious, dtype=np.float64),
    )
    instances_K = np.bincount(truth.label, minlength=num_classes)
    recall_TX = np.zeros((len(tious), len(multiples)))
    for column, multiple in enumerate(multiples):
        covered_MT = first_MT < (multiple * instances_G[place_M])[:, None]
        for row, covered in enumerate(covered_MT.T):
            covered_K = np.bincount(truth.label, weights=covered, minlength=num_classes)
            recall_TX[row, column] = (covered_K[instances_K > 0] / instances_K[instances_K > 0]).mean()
    return recall_TX


def _only(truth: GroundTruth, instances: np.ndarray | None) -> GroundTruth:
    if instances is None:
        return truth
    columns = {name: getattr(truth, name)[instances] for name in ("video", "label", "start", "end")}
    return replace(truth, **columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ranked:
    """Rows of predictions, group by group, best first."""

    rows: np.ndarray
    first: np.ndarray
    """(G,) place in `rows` where each group begins."""
    count: np.ndarray
    """(G,) int64."""


def _place_of(predictions: Predictions, truth: GroundTruth, *, groups: np.ndarray) -> np.ndarray:
    """Place among `groups` (video x K + class, ascending) of each prediction, their number where it is none: (N,) int32."""
    known_label = indices_in(predictions.labels, truth.classes)
    known_video = indices_in(predictions.videos, truth.videos)
    place = np.full(len(predictions), len(groups), dtype=np.int32)
    for first in range(0, len(predictions), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        label, video = known_label[predictions.label[rows]], known_video[predictions.video[rows]]
        wanted = np.where(
            (label >= 0) & (video >= 0), video.astype(np.int64) * len(truth.classes) + label, -1
        )
        found = np.minimum(np.searchsorted(groups, wanted), len(groups) - 1)
        place[rows] = np.where(groups[found] == wanted, found, len(groups))
    return place


def _rank(predictions: Predictions, *, group: np.ndarray, num_groups: int, ties: Ties) -> _Ranked:
    """By group, best first; those of the group `num_groups` are left out."""
    if not np.isfinite(predictions.score).all():
        wrong = np.flatnonzero(~np.isfinite(predictions.score))[0]
        name = predictions.videos[predictions.video[wrong]]
        raise ValueError(
            f"a prediction of video {name!r} has score {predictions.score[wrong]}; it must be finite."
        )
    borders = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=num_groups + 1))])
    rows = np.argsort(group, kind="stable").astype(np.int32)[: borders[-2]]
    name_rank_V = rank_of_names(predictions.videos)
    order_groups(rows, predictions, borders=borders[:-1], ties=ties, name_rank_V=name_rank_V)
    return _Ranked(rows=rows, first=borders[:-2], count=np.diff(borders[:-1]))


def _first_cover(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    ranked: _Ranked,
    group: np.ndarray,
    limits: np.ndarray,
    tious: np.ndarray,
) -> np.ndarray:
    """Rank of the best prediction of its group that covers each instance: (M, T) int64, NEVER where none does.

    Args:
        group: (M,) group of each instance.
        limits: (M,) how many of the group's predictions are looked at.
    """
    first_MT = np.full((len(truth), len(tious)), NEVER)
    for block in pair_blocks(limits):
        rows = ranked.rows[ranked.first[group[block.owner]] + block.rank]
        tiou = paired_tiou(
            truth.start[block.owner],
            truth.end[block.owner],
            other_start=predictions.start[rows],
            other_end=predictions.end[rows],
        )
        for column, threshold in enumerate(tious):
            covering = np.where(tiou >= threshold, block.rank, NEVER)
            first_MT[block.owners, column] = np.minimum.reduceat(covering, block.begin)
    return first_MT
