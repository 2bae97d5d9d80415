"""Mean average precision over tIoU thresholds by ActivityNet's protocol.

Source: the ActivityNet evaluation toolkit (`eval_detection`); equal to it within 1e-9 where no two scores are equal.
- Per class, predictions of all videos in order of score; each takes the free instance of its video and class with the
  highest tIoU (of equal ones the latest), if that is at least the threshold, else it is a false positive; interpolated
  average precision (area under the envelope of precision, as VOC 2011).
- Classes without an instance in the ground truth are left out of the mean; classes without predictions count 0.
- Predictions in videos without ground truth are false positives, as in the toolkit, also where the video is not of the
  subset at all; these are counted in the result.
What differs: predictions with an unknown label are ignored and counted (the toolkit stops with a KeyError); equal scores
are ordered by start, end and name of the video, so that the result does not depend on the order in the file; the tIoU of
two segments of no length is 0 (the toolkit's is 0 / 0, which it takes for a hit).

Shapes: K classes, T thresholds, G (class, video) pairs, M instances of the fullest pair.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lofi.segments import Detection, LabelledSegment

ACTIVITYNET_TIOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The recipe's `evaluation:` block. The subset is `data.validation_subset`."""

    tious: list[float] = field(default_factory=lambda: list(ACTIVITYNET_TIOUS))
    """tIoU thresholds of mAP, each above 0 and at most 1, ascending."""
    every_epochs: int | None = None
    """Also while training, after every so many epochs and the last; the checkpoint with the best average mAP is then kept.
    null: only at the end of the run."""
    weights: Literal["newest", "best"] = "newest"
    """Which checkpoint the run's result, launch/evaluate.py and encoder.weights=RUN take. best needs every_epochs; it is
    chosen on the very subset that it is measured on, so its mAP is optimistic: compare it with nothing but other bests."""

    def __post_init__(self) -> None:
        if self.every_epochs is not None and self.every_epochs < 1:
            raise ValueError(
                f"evaluation.every_epochs is {self.every_epochs}; it must be at least 1, or null for the end alone."
            )
        if self.weights == "best" and self.every_epochs is None:
            raise ValueError(
                "evaluation.weights: best needs validation while training; set evaluation.every_epochs."
            )
        if not self.tious:
            raise ValueError("evaluation.tious is empty; give at least one threshold, such as [0.5].")
        wrong = [tiou for tiou in self.tious if not 0.0 < tiou <= 1.0]
        if wrong:
            raise ValueError(f"evaluation.tious holds {wrong[0]}; thresholds must be above 0 and at most 1.")
        if sorted(set(self.tious)) != list(self.tious):
            raise ValueError(
                f"evaluation.tious is {list(self.tious)}; thresholds must ascend, each given once."
            )


def parse_tious(text: str) -> list[float]:
    """Thresholds as they are typed: "first:last:step", the last included, or a list such as "0.5,0.75".

    Rounded to 6 digits, so that 0.3:0.7:0.1 gives 0.6 and not the float next to it.
    """
    separator = ":" if ":" in text else ","
    try:
        numbers = [float(part) for part in text.split(separator)]
    except ValueError:
        numbers = []
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"tIoUs {text!r}: write first:last:step or a list, such as 0.3:0.7:0.1 or 0.5,0.75.")
    if separator == ":":
        if len(numbers) != 3 or numbers[2] <= 0 or numbers[1] < numbers[0]:
            raise ValueError(
                f"tIoUs {text!r}: a range is first:last:step, last not below first and step above 0, such as 0.3:0.7:0.1."
            )
        first, last, step = numbers
        numbers = [first + index * step for index in range(math.floor((last - first) / step + 1e-6) + 1)]
    return [round(number, 6) for number in numbers]


@dataclass(frozen=True, kw_only=True)
class MeanAveragePrecision:
    """Fractions between 0 and 1."""

    tious: tuple[float, ...]
    classes: tuple[str, ...]
    ap_KT: np.ndarray
    """(K, T) average precision; NaN for a class without an instance in the ground truth."""
    map_T: np.ndarray
    """(T,) mean over the classes that have one."""
    average: float
    """Mean of map_T."""
    num_predictions: int
    """All predictions given."""
    num_unknown_labels: int
    """Of them, ignored: their label is none of the classes."""
    num_outside: int
    """Of them, false positives for lying in a video that the ground truth does not name."""


def tiou_key(tiou: float) -> str:
    """How files and tables write a threshold: two digits."""
    return f"{tiou:.2f}"


def mean_average_precision(
    ground_truth: Mapping[str, Sequence[LabelledSegment]],
    predictions: Mapping[str, Sequence[Detection]],
    *,
    tious: Sequence[float],
    classes: Sequence[str],
) -> MeanAveragePrecision:
    """Evaluate the predictions of one subset.

    Args:
        ground_truth: video -> instances, seconds; all videos of the subset, also those without an instance.
        predictions: video -> detections, seconds, in any order.
        tious: T thresholds.
        classes: K names.
    """
    class_index = {name: index for index, name in enumerate(classes)}
    video_index = {name: index for index, name in enumerate(sorted({*ground_truth, *predictions}))}
    truth = _Rows.of_ground_truth(ground_truth, class_index=class_index, video_index=video_index)
    found, num_unknown = _Rows.of_predictions(predictions, class_index=class_index, video_index=video_index)
    hits_NT = _match(found, truth, num_videos=len(video_index), tious=np.asarray(tious, dtype=np.float64))

    num_instances = np.bincount(truth.label, minlength=len(classes))
    ap_KT = np.full((len(classes), len(tious)), np.nan)
    borders = np.searchsorted(found.label, np.arange(len(classes) + 1))
    for index in np.flatnonzero(num_instances):
        hits = hits_NT[borders[index] : borders[index + 1]]
        ap_KT[index] = _average_precision(hits, num_instances=int(num_instances[index]))
    map_T = ap_KT[num_instances > 0].mean(axis=0)
    return MeanAveragePrecision(
        tious=tuple(float(tiou) for tiou in tious),
        classes=tuple(classes),
        ap_KT=ap_KT,
        map_T=map_T,
        average=float(map_T.mean()),
        num_predictions=sum(len(rows) for rows in predictions.values()),
        num_unknown_labels=num_unknown,
        num_outside=sum(len(rows) for video, rows in predictions.items() if video not in ground_truth),
    )


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Segments of all videos as columns (N,), sorted by label; predictions within a label by descending score."""

    start: np.ndarray
    end: np.ndarray
    label: np.ndarray
    video: np.ndarray

    @staticmethod
    def of_ground_truth(
        ground_truth: Mapping[str, Sequence[LabelledSegment]],
        *,
        class_index: Mapping[str, int],
        video_index: Mapping[str, int],
    ) -> "_Rows":
        for name, segments in ground_truth.items():
            for segment in segments:
                if segment.label not in class_index:
                    raise ValueError(
                        f"ground truth of video {name!r} has the label {segment.label!r}, which is none of the "
                        f"{len(class_index)} classes."
                    )
        columns = [
            (segment.start_sec, segment.end_sec, class_index[segment.label], video_index[name])
            for name, segments in ground_truth.items()
            for segment in segments
        ]
        if not columns:
            raise ValueError(
                f"the ground truth has no instance in {len(ground_truth)} videos; nothing to evaluate."
            )
        start, end, label, video = (np.asarray(column) for column in zip(*columns, strict=True))
        order = np.lexsort((-end, -start, video, label))  # of equal tIoUs the first row is taken: the latest
        return _Rows(start=start[order], end=end[order], label=label[order], video=video[order])

    @staticmethod
    def of_predictions(
        predictions: Mapping[str, Sequence[Detection]],
        *,
        class_index: Mapping[str, int],
        video_index: Mapping[str, int],
    ) -> tuple["_Rows", int]:
        columns = [
            (row.start_sec, row.end_sec, row.score, class_index[row.label], video_index[video])
            for video, rows in predictions.items()
            for row in rows
            if row.label in class_index
        ]
        num_unknown = sum(len(rows) for rows in predictions.values()) - len(columns)
        values = np.asarray([column[:3] for column in columns], dtype=np.float64).reshape(-1, 3)
        indices = np.asarray([column[3:] for column in columns], dtype=np.int64).reshape(-1, 2)
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            name = sorted(video_index)[indices[row, 1]]
            raise ValueError(
                f"prediction of video {name!r} has start, end, score {values[row].tolist()}; all must be finite."
            )
        start, end, score = values.T
        label, video = indices.T
        order = np.lexsort((video, end, start, -score, label))
        return _Rows(start=start[order], end=end[order], label=label[order], video=video[order]), num_unknown


def _match(found: _Rows, truth: _Rows, *, num_videos: int, tious: np.ndarray) -> np.ndarray:
    """Which predictions hit an instance at each threshold: (N, T) bool.

    Turn r decides the r-th best prediction of every (class, video) pair at once.
    """
    hits_NT = np.zeros((len(found.label), len(tious)), dtype=bool)
    truth_pair = truth.label * num_videos + truth.video
    pairs, first_truth, truth_counts = np.unique(truth_pair, return_index=True, return_counts=True)
    found_pair = found.label * num_videos + found.video
    has_truth = np.flatnonzero(np.isin(found_pair, pairs))
    if not len(has_truth):
        return hits_NT
    by_pair = has_truth[np.argsort(found_pair[has_truth], kind="stable")]  # within a pair still by score
    found_pairs, first_found, found_counts = np.unique(
        found_pair[by_pair], return_index=True, return_counts=True
    )
    fullest_first = np.argsort(-found_counts, kind="stable")
    first_found, found_counts = first_found[fullest_first], found_counts[fullest_first]
    which = np.searchsorted(pairs, found_pairs[fullest_first])
    first_truth, truth_counts = first_truth[which], truth_counts[which]

    slots = np.arange(truth_counts.max())
    exists_GM = slots < truth_counts[:, None]
    truth_rows_GM = np.where(exists_GM, first_truth[:, None] + slots, 0)
    start_GM, end_GM = truth.start[truth_rows_GM], truth.end[truth_rows_GM]
    free_GTM = np.repeat(exists_GM[:, None, :], len(tious), axis=1)
    for turn in range(int(found_counts.max())):
        active = int(
            np.searchsorted(-found_counts, -turn, side="left")
        )  # pairs with more than `turn` predictions
        rows = by_pair[first_found[:active] + turn]
        tiou_GM = _paired_tiou(found.start[rows], found.end[rows], start_GM[:active], end_GM[:active])
        eligible_GTM = free_GTM[:active] & (tiou_GM[:, None, :] >= tious[:, None])
        best_GT = np.where(eligible_GTM, tiou_GM[:, None, :], -1.0).argmax(axis=2)
        hit_GT = np.take_along_axis(eligible_GTM, best_GT[..., None], axis=2)[..., 0]
        hits_NT[rows] = hit_GT
        pair, threshold = np.nonzero(hit_GT)
        free_GTM[pair, threshold, best_GT[pair, threshold]] = False
    return hits_NT


def _paired_tiou(start: np.ndarray, end: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """tIoU of one segment of each pair, (G,), with the instances of the pair, (G, M) -> (G, M)."""
    intersection = np.clip(np.minimum(end[:, None], ends) - np.maximum(start[:, None], starts), 0.0, None)
    union = (end - start)[:, None] + (ends - starts) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def _average_precision(hits_NT: np.ndarray, *, num_instances: int) -> np.ndarray:
    """Predictions of one class, best first, (N, T) bool -> (T,) interpolated average precision."""
    if not len(hits_NT):
        return np.zeros(hits_NT.shape[1])
    precision_NT = hits_NT.cumsum(axis=0) / np.arange(1, len(hits_NT) + 1)[:, None]
    envelope_NT = np.maximum.accumulate(precision_NT[::-1], axis=0)[::-1]
    return (envelope_NT * hits_NT).sum(axis=0) / num_instances
