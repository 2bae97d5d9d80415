"""results.json: what an evaluation found, as values and as a file.

    {"mAP": {"0.50": X, ...}, "average_mAP": X, "AR": {"1": X, "5": X, "10": X, "100": X}, "AUC": X,
     "protocol": NAME, "counts": {...}, "AP": {CLASS: {"0.50": X, ...}}, "instances": {CLASS: COUNT},
     "AR_at_tIoU": {"0.50": {"1": X, ...}, ...}, "recall_at_kx": {"1": {"0.50": X, ...}, ...}, "versions": {...},
     "source": {...}, "bootstrap": {...}, "against": {...}, "errors": {...}}                   where they were asked for

Fractions between 0 and 1. The first four keys are always there. Written whole or not at all.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from lofi.evaluation.average_recall import AverageRecall
from lofi.evaluation.bootstrap import BootstrapMap, Interval, PairedBootstrap
from lofi.evaluation.mean_average_precision import MeanAveragePrecision, tiou_key
from lofi.files import write_json

RECALL_AT = (1, 5, 10, 100)
"""Average numbers of proposals per video that AR is given at."""
RECALL_AT_MORE = (1, 5, 10, 50, 100, 200, 500, 1000)
"""Where AR goes beyond 100 proposals, as for THUMOS14."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """results.json as values; fractions between 0 and 1."""

    mAP: dict[str, float]
    """tIoU threshold, two digits -> mAP."""
    average_mAP: float
    AR: dict[str, float]
    """Average number of proposals per video -> average recall over the tIoUs of AR_at_tIoU (0.50 to 0.95)."""
    AUC: float
    """Area under AR over 1 to 100 proposals (1000 by the rules of THUMOS14)."""
    counts: dict[str, int] = field(default_factory=dict)
    """videos, instances, classes, predictions; of the predictions unknown_labels, outside (in videos that the subset does
    not have), reversed, zero_length; of the videos missing_videos (without a prediction); of the instances
    duplicate_instances, zero_length_instances (end where they start), reversed_instances, instances_outside_video (by more
    than 0.5 s, where the duration is known)."""
    protocol: str = "default"
    AP: dict[str, dict[str, float]] = field(default_factory=dict)
    """Class with an instance -> tIoU threshold -> average precision."""
    instances: dict[str, int] = field(default_factory=dict)
    """Class -> its instances in the subset."""
    AR_at_tIoU: dict[str, dict[str, float]] = field(default_factory=dict)
    """tIoU threshold -> average number of proposals -> recall."""
    recall_at_kx: dict[str, dict[str, float]] = field(default_factory=dict)
    """k -> tIoU threshold -> recall of the k x (number of instances) best predictions of each class and video."""
    source: dict[str, str] = field(default_factory=dict)
    """annotations, predictions, subset, dataset: what was read."""
    bootstrap: dict[str, Any] | None = None
    """Of resampled videos: [low, high] of average_mAP and of mAP by tIoU, confidence, samples, seed."""
    against: dict[str, Any] | None = None
    """The paired test against another file: its average_mAP and mAP, the difference with its interval, p_value, ..."""
    errors: dict[str, Any] | None = None
    """The error analysis, as `ErrorAnalysis.to_plain` gives it."""
    versions: dict[str, str] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """As JSON; parts that are not there are left out."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value != {}}


def make_results(
    mean_ap: MeanAveragePrecision,
    recall: AverageRecall,
    *,
    instances: Mapping[str, int] | None = None,
    counts: Mapping[str, int] | None = None,
    recall_at_kx: Mapping[int, np.ndarray] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Results:
    """The measures -> what results.json holds.

    Args:
        mean_ap: mAP and its counts.
        recall: AR@AN.
        instances: class -> number of its instances.
        counts: further counts.
        recall_at_kx: k -> (T,) recall at the thresholds of `mean_ap`.
        versions: of the packages that the numbers depend on.
    """
    tious = mean_ap.tious
    most = len(recall.recall)
    budgets = [count for count in (RECALL_AT_MORE if most > max(RECALL_AT) else RECALL_AT) if count <= most]
    return Results(
        mAP=_by_tiou(tious, mean_ap.map_T),
        average_mAP=mean_ap.average,
        AR={str(proposals): recall.at(proposals) for proposals in budgets},
        AUC=recall.auc,
        counts={
            "predictions": mean_ap.num_predictions,
            "unknown_labels": mean_ap.num_unknown_labels,
            "outside": mean_ap.num_outside,
            "instances": mean_ap.num_instances,
            "duplicate_instances": mean_ap.num_duplicates,
            "zero_length_instances": mean_ap.num_zero_length,
            **(counts or {}),
        },
        protocol=mean_ap.protocol,
        AP={
            name: _by_tiou(tious, ap_T)
            for name, ap_T in zip(mean_ap.classes, mean_ap.ap_KT, strict=True)
            if not np.isnan(ap_T).any()
        },
        instances=dict(instances or {}),
        AR_at_tIoU={
            tiou_key(tiou): {str(proposals): float(recall_P[proposals - 1]) for proposals in budgets}
            for tiou, recall_P in zip(recall.tious, recall.recall_TP, strict=True)
        },
        recall_at_kx={str(k): _by_tiou(tious, recall_T) for k, recall_T in (recall_at_kx or {}).items()},
        versions=dict(versions or {}),
    )


def write_results(path: str | Path, results: Results) -> None:
    """Write results.json."""
    write_json(path, results.to_plain())


def read_results(path: str | Path) -> Results:
    """Read results.json, also one with the first four keys alone. Unknown keys are allowed and ignored.

    Raises:
        ValueError: names file and key where something is wrong.
    """
    content = _read_json(path)
    for key in ("mAP", "average_mAP", "AR", "AUC"):
        if not isinstance(content, dict) or key not in content:
            raise ValueError(f'{path}: the key "{key}" is missing; is it a results.json?')
    known = {each.name for each in fields(Results)}
    return Results(**{key: value for key, value in content.items() if key in known})


def bootstrap_to_plain(found: BootstrapMap) -> dict[str, Any]:
    """Intervals as JSON: [low, high] of average_mAP and of mAP per tIoU."""
    return {
        "average_mAP": _ends(found.average),
        "mAP": _ends_by_tiou(found.tious, found.per_tiou),
        "confidence": found.confidence,
        "samples": found.samples,
        "seed": found.seed,
    }


def comparison_to_plain(found: PairedBootstrap, *, predictions: str) -> dict[str, Any]:
    """A paired test as JSON: these results (the second of the pair) less those of `predictions` (the first)."""
    other = found.first
    return {
        "predictions": predictions,
        "average_mAP": other.average.value,
        "mAP": {tiou_key(tiou): each.value for tiou, each in zip(other.tious, other.per_tiou, strict=True)},
        "difference": found.difference.value,
        "interval": _ends(found.difference),
        "intervals": _ends_by_tiou(other.tious, found.difference_per_tiou),
        "p_value": found.p_value,
        "confidence": other.confidence,
        "samples": other.samples,
        "seed": other.seed,
    }


def _ends(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


def _ends_by_tiou(tious: Sequence[float], intervals: Sequence[Interval]) -> dict[str, list[float]]:
    return {tiou_key(tiou): _ends(each) for tiou, each in zip(tious, intervals, strict=True)}


def _by_tiou(tious: Sequence[float], values: np.ndarray) -> dict[str, float]:
    return {tiou_key(tiou): float(value) for tiou, value in zip(tious, values, strict=True)}


def _read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}).") from error
