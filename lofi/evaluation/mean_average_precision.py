"""Mean average precision over tIoU thresholds, by ActivityNet's protocol or another of `lofi.evaluation.protocols`.

Source: the ActivityNet evaluation toolkit (`eval_detection`); equal to it within 1e-9 where no two scores are equal.
- Per class, predictions of all videos in order of score; each takes the free instance of its video and class with the
  highest tIoU, if that is at least the threshold, else it is a false positive (`lofi.evaluation.matching`); interpolated
  average precision (area under the envelope of precision, as VOC 2011).
- Classes without an instance in the ground truth are left out of the mean; classes without predictions count 0.
- Predictions in videos without ground truth are false positives, as in the toolkit, also where the video is not of the
  subset at all; these are counted in the result.
Ties, duplicates, unknown labels and other protocols: the table in `lofi.evaluation.protocols`.

Average precision is computed from the hits alone: precision falls between two hits, so its envelope has its steps there.

Shapes: K classes, T thresholds, N predictions, h hits of one class at one threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lofi.evaluation.matching import Matching, match_predictions
from lofi.evaluation.protocols import PROTOCOLS, Protocol
from lofi.evaluation.tables import GroundTruth, Predictions

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
        unwritten = [tiou for tiou in self.tious if abs(float(tiou_key(tiou)) - tiou) > 1e-9]
        if unwritten:
            raise ValueError(
                f"evaluation.tious holds {unwritten[0]}; results are written under thresholds of two digits, such as 0.55."
            )
        if sorted(set(map(tiou_key, self.tious))) != [tiou_key(tiou) for tiou in self.tious]:
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

    protocol: str
    tious: tuple[float, ...]
    classes: tuple[str, ...]
    ap_KT: np.ndarray
    """(K, T) average precision; NaN for a class without an instance in the ground truth."""
    map_T: np.ndarray
    """(T,) mean over the classes that have one."""
    average: float
    """Mean of map_T."""
    num_instances: int
    """Instances that were to be found."""
    num_duplicates: int
    """Instances given again in the ground truth; whether they count, the protocol says."""
    num_zero_length: int
    """Annotated instances that end where they start; whether they count, the protocol says."""
    num_predictions: int
    """All predictions given."""
    num_unknown_labels: int
    """Of them, ignored: their label has no instance in the subset."""
    num_outside: int
    """Of them, false positives for lying in a video that the ground truth does not name."""


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """One class at one threshold, after each prediction that counts, best first; fractions between 0 and 1."""

    recall: np.ndarray
    """(n,)"""
    precision: np.ndarray
    """(n,) as it is, not its envelope."""
    score: np.ndarray
    """(n,) score of the prediction."""


def tiou_key(tiou: float) -> str:
    """How files and tables write a threshold: two digits."""
    return f"{tiou:.2f}"


def mean_average_precision(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    tious: Sequence[float],
    protocol: Protocol = PROTOCOLS["default"],
) -> MeanAveragePrecision:
    """Evaluate the predictions of one subset; arguments and errors as of `match_predictions`."""
    return average_precisions(match_predictions(truth, predictions, tious=tious, protocol=protocol))


def average_precisions(matching: Matching) -> MeanAveragePrecision:
    """AP of every class at every threshold, and their means."""
    ap_KT = np.full((len(matching.classes), len(matching.tious)), np.nan)
    for label in np.flatnonzero(matching.num_instances_K):
        for column in range(len(matching.tious)):
            ap_KT[label, column] = _average_precision(
                _precision_at_hits(matching, class_index=int(label), tiou_index=column),
                num_instances=int(matching.num_instances_K[label]),
                is_interpolated=matching.protocol.is_interpolated,
            )
    map_T = ap_KT[matching.num_instances_K > 0].mean(axis=0)
    return MeanAveragePrecision(
        protocol=matching.protocol.name,
        tious=matching.tious,
        classes=matching.classes,
        ap_KT=ap_KT,
        map_T=map_T,
        average=float(map_T.mean()),
        num_instances=len(matching.instances),
        num_duplicates=matching.num_duplicates,
        num_zero_length=matching.num_zero_length,
        num_predictions=matching.num_predictions,
        num_unknown_labels=matching.num_unknown_labels,
        num_outside=matching.num_outside,
    )


def precision_recall_curve(matching: Matching, *, class_index: int, tiou_index: int) -> PrecisionRecall:
    """The curve of a class, one point for each prediction that counts.

    Raises:
        ValueError: the class has no instance.
    """
    num_instances = int(matching.num_instances_K[class_index])
    if not num_instances:
        raise ValueError(
            f"class {matching.classes[class_index]!r} has no instance in the ground truth, so it has no curve."
        )
    begin, end = matching.first_K1[class_index : class_index + 2]
    is_hit = np.zeros(end - begin, dtype=bool)
    is_hit[matching.hits_of(class_index=class_index, tiou_index=tiou_index) - begin] = True
    counts = is_hit | ~matching.is_ambiguous[begin:end]
    hits = is_hit[counts].cumsum()
    return PrecisionRecall(
        recall=hits / num_instances,
        precision=hits / np.arange(1, len(hits) + 1),
        score=matching.score[begin:end][counts],
    )


def _precision_at_hits(matching: Matching, *, class_index: int, tiou_index: int) -> np.ndarray:
    """(h,) precision at each hit, best score first."""
    begin, end = matching.first_K1[class_index : class_index + 2]
    position = matching.hits_of(class_index=class_index, tiou_index=tiou_index)
    hits = np.arange(1, len(position) + 1)
    rank = position - begin + 1
    if matching.protocol.ambiguous_is_left_out:
        is_ambiguous = matching.is_ambiguous[begin:end]
        # Ambiguous ones up to this place, less those that hit and so count.
        rank = rank - is_ambiguous.cumsum()[position - begin] + is_ambiguous[position - begin].cumsum()
    return hits / rank


def _average_precision(precision: np.ndarray, *, num_instances: int, is_interpolated: bool) -> float:
    if is_interpolated:
        precision = np.maximum.accumulate(precision[::-1])
    return float(precision.sum() / num_instances)
