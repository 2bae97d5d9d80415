"""Score predictions against annotations: mAP and AR of two files, or of what a run has just predicted.

Nothing here needs torch, so that scoring files starts at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from lofi.data.annotations import read_annotations
from lofi.evaluation.average_recall import average_recall, recall_at_kx
from lofi.evaluation.curves import recall_curve, sample_curves
from lofi.evaluation.matching import match_predictions
from lofi.evaluation.mean_average_precision import EvaluationConfig, average_precisions, tiou_key
from lofi.evaluation.predictions import check_overlap, read_predictions
from lofi.evaluation.protocols import protocol_named
from lofi.evaluation.results import Results, make_results
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment

RECALL_MULTIPLES = (1, 5)
"""k of recall at k x the number of instances."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What is computed of one set of predictions."""

    tious: Sequence[float]
    """Thresholds of mAP."""
    protocol: str = "default"
    """A name of `evaluation.protocols.PROTOCOLS`."""
    curves: bool = False
    """Whether the curves are sampled."""

    def __post_init__(self) -> None:
        protocol_named(self.protocol)
        keys = [tiou_key(tiou) for tiou in EvaluationConfig(tious=list(self.tious)).tious]
        if len(set(keys)) < len(keys):
            raise ValueError(
                f"tIoU thresholds {list(self.tious)} are closer than results.json can tell apart; let them differ by 0.01."
            )


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What an evaluation of two files found."""

    results: Results
    curves: dict[str, Any] | None
    """precision_recall and average_recall, sampled, as JSON; where they were asked for."""


def score_files(*, annotations: Path, predictions: Path, subset: str, scoring: Scoring) -> Scored:
    """Score a prediction file against an annotation file.

    Raises:
        ValueError: a file is broken, the subset is not there, or no prediction lies in it.
    """
    truth = read_truth(annotations, subset=subset)
    found = read_predictions(predictions)
    check_overlap(truth, found)
    scored = score_tables(truth, found, scoring=scoring)
    source = {"annotations": str(annotations), "predictions": str(predictions), "subset": subset}
    return replace(scored, results=replace(scored.results, source=source))


def read_truth(annotations: Path, *, subset: str) -> GroundTruth:
    """The instances of one subset, as they were published."""
    annotated = read_annotations(annotations, as_published=True)
    videos = annotated.subset(subset)
    return GroundTruth.of(
        {video.name: video.segments for video in videos},
        classes=annotated.classes,
        durations_sec={video.name: video.duration_sec for video in videos},
    )


def score_tables(truth: GroundTruth, predictions: Predictions, *, scoring: Scoring) -> Scored:
    """Every measure of one set of predictions."""
    matching = match_predictions(
        truth, predictions, tious=scoring.tious, protocol=protocol_named(scoring.protocol)
    )
    recall = average_recall(truth, predictions)
    recall_TX = recall_at_kx(truth, predictions, tious=scoring.tious, multiples=RECALL_MULTIPLES)
    results = make_results(
        average_precisions(matching),
        recall,
        instances=_named_counts(matching.classes, matching.num_instances_K),
        counts=_counts(truth, predictions, num_classes=int(np.count_nonzero(matching.num_instances_K))),
        recall_at_kx=dict(zip(RECALL_MULTIPLES, recall_TX.T, strict=True)),
        versions={"lofi-sola": metadata.version("lofi-sola"), "numpy": np.__version__},
    )
    curves = None
    if scoring.curves:
        curves = {
            "precision_recall": sample_curves(matching).to_plain(),
            "average_recall": recall_curve(recall),
        }
    return Scored(results=results, curves=curves)


def score(
    truth: Mapping[str, Sequence[LabelledSegment]],
    predictions: Mapping[str, Sequence[Detection]],
    *,
    config: EvaluationConfig,
    classes: Sequence[str],
) -> Results:
    """mAP and AR of predictions against annotated segments, both by video."""
    instances, found = GroundTruth.of(truth, classes=classes), Predictions.of(predictions)
    return score_tables(instances, found, scoring=Scoring(tious=config.tious)).results


def _counts(truth: GroundTruth, predictions: Predictions, *, num_classes: int) -> dict[str, int]:
    with_predictions = {predictions.videos[index] for index in np.unique(predictions.video)}
    return {
        "videos": len(truth.videos),
        "classes": num_classes,
        "reversed": predictions.num_reversed,
        "zero_length": predictions.num_zero_length,
        "missing_videos": len(set(truth.videos) - with_predictions),
    }


def _named_counts(names: Sequence[str], counts: np.ndarray) -> dict[str, int]:
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}
