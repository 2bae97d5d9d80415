"""Score predictions against annotations: mAP and AR of two files, or of what a run has just predicted."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lofi.data.annotations import read_annotations
from lofi.evaluation.average_recall import average_recall
from lofi.evaluation.mean_average_precision import EvaluationConfig, mean_average_precision
from lofi.evaluation.predictions import read_predictions
from lofi.evaluation.results import Results, make_results
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment


def evaluate_files(*, annotations: Path, predictions: Path, subset: str, config: EvaluationConfig) -> Results:
    """Score a prediction file against an annotation file."""
    annotated = read_annotations(annotations)
    truth = {video.name: list(video.segments) for video in annotated.subset(subset)}
    return score(truth, read_predictions(predictions).by_video(), config=config, classes=annotated.classes)


def score(
    truth: Mapping[str, Sequence[LabelledSegment]],
    predictions: Mapping[str, Sequence[Detection]],
    *,
    config: EvaluationConfig,
    classes: Sequence[str],
) -> Results:
    """mAP and AR of predictions against annotated segments, both by video."""
    instances, found = GroundTruth.of(truth, classes=classes), Predictions.of(predictions)
    mean_ap = mean_average_precision(instances, found, tious=config.tious)
    return make_results(mean_ap, average_recall(instances, found))
