"""Which prediction hits which instance, at every tIoU threshold: what mAP, its curves and its bootstrap are computed from.

One side chooses in turn (predictions from the best score on; under the THUMOS14 protocol instances in the order of the
file): each takes the free one of the other side, of its own video and class, at the largest tIoU that reaches the
threshold (`lofi.evaluation.candidates`).

Shapes: N predictions that take part, M instances that take part, K classes, T thresholds, V videos, H hits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lofi.evaluation.candidates import candidates_by_class
from lofi.evaluation.duplicates import duplicates
from lofi.evaluation.protocols import PROTOCOLS, Protocol
from lofi.evaluation.ranking import rank_of_names, ranked_rows
from lofi.evaluation.tables import GroundTruth, Predictions, indices_in


@dataclass(frozen=True, kw_only=True, eq=False)
class Matching:
    """Predictions by class, within a class best first; a prediction's place in that order is its position.

    Costs 16 bytes per prediction and 16 per hit.
    """

    protocol: Protocol
    tious: tuple[float, ...]
    """T thresholds."""
    classes: tuple[str, ...]
    """K names, those of the ground truth."""
    videos: tuple[str, ...]
    """V names: those of the ground truth in its order, then others that have a prediction here, sorted."""
    rows: np.ndarray
    """(N,) int32, row of `Predictions`. Predictions whose label is none of the classes have no position."""
    video: np.ndarray
    """(N,) int32, index of `videos`."""
    score: np.ndarray
    """(N,) float64, falling within a class."""
    first_K1: np.ndarray
    """(K + 1,) int64: class k has positions first_K1[k] to first_K1[k + 1], the last excluded."""
    is_ambiguous: np.ndarray
    """(N,) bool: left out of a threshold where it does not hit (THUMOS14's Ambiguous); else all False."""
    hit_position: np.ndarray
    """(H,) int32, the prediction, ascending within a threshold."""
    hit_instance: np.ndarray
    """(H,) int32, row of `GroundTruth` that it hits."""
    first_hit_T1: np.ndarray
    """(T + 1,) int64: threshold t has hits first_hit_T1[t] to first_hit_T1[t + 1], the last excluded."""
    instances: np.ndarray
    """(M,) int32, rows of `GroundTruth` that take part, ascending."""
    instance_label: np.ndarray
    """(M,) int32, index of `classes`, of those."""
    instance_video: np.ndarray
    """(M,) int32, index of `videos`, of those."""
    num_instances_K: np.ndarray
    """(K,) int64, of those."""
    num_duplicates: int
    """Instances given again in the ground truth, whether or not they count."""
    num_zero_length: int
    """Instances that end where they start, whether or not they count."""
    num_predictions: int
    """All predictions given."""
    num_unknown_labels: int
    """Of them, ignored: their label has no instance that takes part. One that is none of the classes has no position."""
    num_outside: int
    """Of them, in videos that the ground truth does not name: they count as false positives."""

    @property
    def label(self) -> np.ndarray:
        """(N,) int32, index of `classes`."""
        return np.repeat(np.arange(len(self.classes), dtype=np.int32), np.diff(self.first_K1))

    @property
    def hits_NT(self) -> np.ndarray:
        """(N, T) bool: whether the prediction hits. Dense, for looking at small data; the measures go by `hit_position`."""
        hits = np.zeros((len(self.rows), len(self.tious)), dtype=bool)
        hits[self.hit_position, self.hit_threshold] = True
        return hits

    @property
    def instance_NT(self) -> np.ndarray:
        """(N, T) int32, row of `GroundTruth` that the prediction hits, or -1. Dense, as `hits_NT`."""
        found = np.full((len(self.rows), len(self.tious)), -1, dtype=np.int32)
        found[self.hit_position, self.hit_threshold] = self.hit_instance
        return found

    @property
    def hit_threshold(self) -> np.ndarray:
        """(H,) int32, index of `tious`."""
        return np.repeat(np.arange(len(self.tious), dtype=np.int32), np.diff(self.first_hit_T1))

    def hits_of(self, *, class_index: int, tiou_index: int) -> np.ndarray:
        """(h,) positions of one class's hits at one threshold, ascending."""
        at_tiou = self.hit_position[self.first_hit_T1[tiou_index] : self.first_hit_T1[tiou_index + 1]]
        first, last = np.searchsorted(at_tiou, self.first_K1[class_index : class_index + 2])
        return at_tiou[first:last]


def match_predictions(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    tious: Sequence[float],
    protocol: Protocol = PROTOCOLS["default"],
) -> Matching:
    """Match the predictions of one subset with its instances.

    Args:
        truth: all videos of the subset, also those without an instance.
        predictions: of any videos; those in videos that the subset does not have count as false positives.
        tious: T thresholds, each above 0 and at most 1.
        protocol: the rules.

    Raises:
        ValueError: a threshold out of range, times or scores that are not finite, no instance left to find, or, where the
            protocol refuses them, predictions with a label that has no instance.
    """
    thresholds = np.asarray(tious, dtype=np.float64)
    if not thresholds.size or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ValueError(f"tIoU thresholds are {list(tious)}; each must be above 0 and at most 1.")
    is_empty = ~(truth.end > truth.start)
    is_duplicate = duplicates(truth, in_file_order=not protocol.duplicates_count)
    keep = np.ones(len(truth), dtype=bool)
    if not protocol.zero_length_counts:
        keep &= ~is_empty
    if not protocol.duplicates_count:
        keep &= ~is_duplicate
    instances = np.flatnonzero(keep).astype(np.int32)
    if not len(instances):
        raise ValueError(
            f"the ground truth has no instance in {len(truth.videos)} videos; nothing to evaluate."
        )
    num_instances_K = np.bincount(truth.label[instances], minlength=len(truth.classes))

    videos, video_index = _all_videos(truth, predictions)
    rows, first_K1, num_unknown = ranked_rows(
        truth,
        predictions,
        protocol=protocol,
        has_instance_K=num_instances_K > 0,
        name_rank_V=rank_of_names(videos)[video_index],
    )
    video = video_index[predictions.video[rows]]
    nothing = np.zeros(0, dtype=np.int32)
    positions_T, instances_T = [[nothing] for _ in tious], [[nothing] for _ in tious]
    for candidates in candidates_by_class(
        truth,
        predictions,
        instances=instances,
        rows=rows,
        video=video,
        first_K1=first_K1,
        num_videos=len(videos),
        least_tiou=float(thresholds.min()),
        protocol=protocol,
    ):
        for index, tiou in enumerate(thresholds):
            position, instance = candidates.choose(tiou)
            positions_T[index].append(position)
            instances_T[index].append(instance)
    hits_T = [np.concatenate(parts) for parts in positions_T]
    return Matching(
        protocol=protocol,
        tious=tuple(float(tiou) for tiou in tious),
        classes=truth.classes,
        videos=videos,
        rows=rows,
        video=video,
        score=predictions.score[rows],
        first_K1=first_K1,
        is_ambiguous=_overlaps_ambiguous(truth, predictions, rows=rows, video=video, protocol=protocol),
        hit_position=np.concatenate(hits_T),
        hit_instance=np.concatenate([part for parts in instances_T for part in parts]),
        first_hit_T1=np.concatenate([[0], np.cumsum([len(hits) for hits in hits_T])]),
        instances=instances,
        instance_label=truth.label[instances],
        instance_video=truth.video[instances],
        num_instances_K=num_instances_K,
        num_duplicates=int(is_duplicate.sum()),
        num_zero_length=int((truth.end == truth.start).sum()),
        num_predictions=len(predictions),
        num_unknown_labels=num_unknown + int(np.diff(first_K1)[num_instances_K == 0].sum()),
        num_outside=int((video_index[predictions.video] >= len(truth.videos)).sum()),
    )


def _all_videos(truth: GroundTruth, predictions: Predictions) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of all videos that count, and the place among them of each of `predictions.videos`."""
    known = set(truth.videos)
    has_rows = np.bincount(predictions.video, minlength=len(predictions.videos)) > 0
    others = sorted(
        name for name, some in zip(predictions.videos, has_rows, strict=True) if some and name not in known
    )
    videos = (*truth.videos, *others)
    return videos, indices_in(predictions.videos, videos)


def _overlaps_ambiguous(
    truth: GroundTruth, predictions: Predictions, *, rows: np.ndarray, video: np.ndarray, protocol: Protocol
) -> np.ndarray:
    overlaps = np.zeros(len(rows), dtype=bool)
    if not protocol.ambiguous_is_left_out or not truth.ambiguous:
        return overlaps
    by_video = np.argsort(video, kind="stable")
    sorted_video = video[by_video]
    for index, name in enumerate(truth.videos):
        stretches = truth.ambiguous.get(name, ())
        if not len(stretches):
            continue
        of_video = by_video[slice(*np.searchsorted(sorted_video, [index, index + 1]))]
        start, end = predictions.start[rows[of_video]], predictions.end[rows[of_video]]
        for first, last in stretches:
            overlaps[of_video] |= np.minimum(np.maximum(start, end), last) > np.maximum(
                np.minimum(start, end), first
            )
    return overlaps
