"""Where a detector loses: what its false positives are and cost, which instances are hard, which are never found.

In the manner of DETAD (Alwassel et al., "Diagnosing Error in Temporal Action Detectors", ECCV 2018, arXiv:1807.10706);
`false_positives`, `sensitivity`, `characteristics` and `partial_precision` say by which rules. Equal to what the authors'
tool computes within 1e-12 (checked on 8,616 predictions on THUMOS14 and 33,491 on ActivityNet), except:

- of instances at the same largest tIoU one with the predicted label decides (the tool: the first of the file, which makes
  wrong labels of many of THUMOS14's cliff dives, annotated as dives as well);
- an instance longer than its video is of the largest coverage (the tool drops it), one of no length counts where the
  protocol counts it (the tool drops it), and predictions with an unknown label are ignored (the tool stops).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lofi.evaluation.characteristics import ACTIVITYNET_BORDERS, Borders
from lofi.evaluation.false_positives import LOW_TIOU, TYPES, FalsePositives, analyze_false_positives
from lofi.evaluation.matching import Matching
from lofi.evaluation.sensitivity import Bucket, Sensitivity, analyze_sensitivity
from lofi.evaluation.tables import GroundTruth, Predictions


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorAnalysis:
    """The three analyses, and what they are of."""

    protocol: str
    tious: tuple[float, ...]
    """T thresholds; every number is over all of them."""
    low_tiou: float
    false_positives: FalsePositives
    sensitivity: Sensitivity

    def to_plain(self) -> dict[str, Any]:
        """Numbers, lists and dicts for JSON; None for what does not exist (an empty band or bucket, an open border)."""
        false_positives, sensitivity = self.false_positives, self.sensitivity
        return {
            "protocol": self.protocol,
            "tious": list(self.tious),
            "low_tiou": self.low_tiou,
            "false_positives": {
                "band_shares": _shares(false_positives.band_shares_BE),
                "best_shares": _shares(false_positives.best_shares_BE),
                "average_mAP": false_positives.average_map,
                "gains": false_positives.gains,
                "gain_of_all": false_positives.gain_of_all,
                "average_mAP_N": false_positives.average_map_n,
                "gains_N": false_positives.gains_n,
            },
            "sensitivity": {
                "average_mAP_N": sensitivity.average_map_n,
                "missed": sensitivity.missed,
                "buckets": {
                    name: [_bucket(each) for each in buckets] for name, buckets in sensitivity.buckets.items()
                },
            },
        }


def analyze_errors(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    matching: Matching,
    borders: Borders = ACTIVITYNET_BORDERS,
    low_tiou: float = LOW_TIOU,
) -> ErrorAnalysis:
    """Analyse what a matching found wrong.

    Args:
        truth: what was matched.
        predictions: what was matched.
        matching: of the two, by `match_predictions`; its thresholds and its protocol hold here.
        borders: between the buckets of instances, see `characteristics.BORDERS`.
        low_tiou: a prediction whose largest tIoU lies below it, and below the threshold, is background. At a threshold that
            does not lie above it nothing is localization or confusion.

    Raises:
        ValueError: the matching is of other predictions, or low_tiou is out of range.
    """
    if matching.num_predictions != len(predictions):
        raise ValueError(
            f"the matching is of {matching.num_predictions} predictions, but {len(predictions)} are given; match "
            "the same ones."
        )
    if not 0.0 < low_tiou < 1.0:
        raise ValueError(f"low_tiou is {low_tiou}; it must lie between 0 and 1.")
    return ErrorAnalysis(
        protocol=matching.protocol.name,
        tious=matching.tious,
        low_tiou=low_tiou,
        false_positives=analyze_false_positives(truth, predictions, matching=matching, low_tiou=low_tiou),
        sensitivity=analyze_sensitivity(truth, matching=matching, borders=borders),
    )


def _shares(shares_BE: np.ndarray) -> list[dict[str, float] | None]:
    return [None if np.isnan(row).any() else dict(zip(TYPES, row.tolist(), strict=True)) for row in shares_BE]


def _bucket(bucket: Bucket) -> dict[str, Any]:
    return {
        "name": bucket.name,
        "above": _finite(bucket.above),
        "up_to": _finite(bucket.up_to),
        "instances": bucket.num_instances,
        "average_mAP": _finite(bucket.average_map),
        "average_mAP_N": _finite(bucket.average_map_n),
        "missed": _finite(bucket.missed),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
