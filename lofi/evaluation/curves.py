"""Precision-recall and recall curves, sampled: what the figures are drawn from, as plain numbers.

Precision at a recall is the highest precision at that recall or above (the envelope that interpolated AP is the area of),
0 where the recall is never reached. Shapes: K classes, T thresholds, R points of recall.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lofi.evaluation.average_recall import AverageRecall
from lofi.evaluation.matching import Matching
from lofi.evaluation.mean_average_precision import precision_recall_curve, tiou_key

NUM_POINTS = 51
"""Recall 0, 0.02, ... 1."""
CLASS_TIOUS = 3
"""Thresholds whose curves are kept for every class: the first, the middle one, the last."""
DIGITS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """Sampled curves; fractions between 0 and 1."""

    tious: tuple[float, ...]
    classes: tuple[str, ...]
    """The classes that have an instance."""
    recall: np.ndarray
    """(R,) the points of recall."""
    precision_KTR: np.ndarray
    """(K, T, R) precision of each class."""

    def to_plain(self) -> dict[str, Any]:
        """As JSON: the mean over the classes at every threshold, and each class at CLASS_TIOUS of them."""
        count = len(self.tious)
        chosen = sorted({0, count // 2, count - 1}) if count > CLASS_TIOUS else range(count)
        mean_TR = self.precision_KTR.mean(axis=0)
        return {
            "recall": _rounded(self.recall),
            "mean": {tiou_key(tiou): _rounded(mean) for tiou, mean in zip(self.tious, mean_TR, strict=True)},
            "classes": {
                name: {tiou_key(self.tious[index]): _rounded(curves_TR[index]) for index in chosen}
                for name, curves_TR in zip(self.classes, self.precision_KTR, strict=True)
            },
        }


def sample_curves(matching: Matching, *, num_points: int = NUM_POINTS) -> Curves:
    """The precision-recall curve of every class that has an instance, at every threshold."""
    recall = np.linspace(0, 1, num_points)
    present = np.flatnonzero(matching.num_instances_K)
    precision_KTR = np.zeros((len(present), len(matching.tious), num_points))
    for row, label in enumerate(present):
        for column in range(len(matching.tious)):
            curve = precision_recall_curve(matching, class_index=int(label), tiou_index=column)
            # One 0 more: what a recall that is never reached finds. Rounding must not push a reached one beyond its point.
            envelope = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
            precision_KTR[row, column] = envelope[np.searchsorted(curve.recall, recall - 1e-9)]
    return Curves(
        tious=matching.tious,
        classes=tuple(matching.classes[label] for label in present),
        recall=recall,
        precision_KTR=precision_KTR,
    )


def recall_curve(recall: AverageRecall) -> dict[str, Any]:
    """AR against the average number of proposals, as JSON: the mean over the thresholds and each threshold."""
    return {
        "proposals": _rounded(recall.num_proposals),
        "mean": _rounded(recall.recall),
        "tIoU": {
            tiou_key(tiou): _rounded(values)
            for tiou, values in zip(recall.tious, recall.recall_TP, strict=True)
        },
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.round(values, DIGITS)]
