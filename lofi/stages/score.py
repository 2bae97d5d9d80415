"""Score predictions against annotations, both as columns: every measure that results.json holds.

Nothing here needs torch, so that scoring files starts at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np

from lofi.evaluation.average_recall import average_recall, recall_at_kx
from lofi.evaluation.bootstrap import bootstrap_matching
from lofi.evaluation.characteristics import BORDERS, fitting_borders
from lofi.evaluation.curves import recall_curve, sample_curves
from lofi.evaluation.dataset_rules import CUSTOM_RULES, DatasetRules
from lofi.evaluation.error_analysis import analyze_errors
from lofi.evaluation.matching import Matching, match_predictions
from lofi.evaluation.mean_average_precision import EvaluationConfig, average_precisions
from lofi.evaluation.protocols import protocol_named
from lofi.evaluation.results import Results, bootstrap_to_plain, make_results
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How predictions are scored, and what is computed of them besides mAP and recall."""

    tious: Sequence[float]
    """Thresholds of mAP."""
    rules: DatasetRules = CUSTOM_RULES
    protocol: str = "default"
    """A name of `evaluation.protocols.PROTOCOLS`."""
    errors: bool = False
    """Whether errors are analysed."""
    curves: bool = False
    """Whether precision-recall curves are sampled."""
    bootstrap: int = 0
    """Resamples of the videos for intervals; 0 gives none."""
    seed: int = 0
    """Of the resampling."""

    def __post_init__(self) -> None:
        protocol_named(self.protocol)
        EvaluationConfig(tious=list(self.tious))  # checks them
        if self.bootstrap < 0:
            raise ValueError(
                f"bootstrap is {self.bootstrap}; it must be a number of resamples, or 0 for none."
            )
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or greater.")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What an evaluation found."""

    results: Results
    curves: dict[str, Any] | None
    """precision_recall and average_recall, sampled, as JSON; where they were asked for."""
    matching: Matching
    """What a comparison with other predictions goes on from."""


def score_tables(truth: GroundTruth, predictions: Predictions, *, scoring: Scoring) -> Scored:
    """Every measure of one set of predictions."""
    rules, protocol = scoring.rules, protocol_named(scoring.protocol)
    matching = match_predictions(truth, predictions, tious=scoring.tious, protocol=protocol)
    # ActivityNet's toolkit, whose measure it is, wants every instance found; OpenTAD those that it counts.
    recalled = matching.instances if protocol.name == "opentad" else None
    recall = average_recall(
        truth,
        predictions,
        tious=rules.recall_tious,
        max_proposals=rules.max_proposals,
        instances=recalled,
        ties=protocol.ties,
    )
    recall_TX = recall_at_kx(
        truth,
        predictions,
        tious=scoring.tious,
        multiples=rules.recall_multiples,
        instances=matching.instances,
        ties=protocol.ties,
    )
    results = make_results(
        average_precisions(matching),
        recall,
        instances=_named_counts(matching.classes, matching.num_instances_K),
        counts=_counts(truth, predictions, num_classes=int(np.count_nonzero(matching.num_instances_K))),
        recall_at_kx=dict(zip(rules.recall_multiples, recall_TX.T, strict=True)),
        versions={"lofi-sola": metadata.version("lofi-sola"), "numpy": np.__version__},
    )
    if scoring.errors:
        results = replace(results, errors=_errors(truth, predictions, matching=matching, scoring=scoring))
    if scoring.bootstrap:
        found = bootstrap_matching(matching, seed=scoring.seed, samples=scoring.bootstrap)
        results = replace(results, bootstrap=bootstrap_to_plain(found))
    curves = None
    if scoring.curves:
        curves = {
            "precision_recall": sample_curves(matching).to_plain(),
            "average_recall": recall_curve(recall),
        }
    return Scored(results=results, curves=curves, matching=matching)


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


def _errors(
    truth: GroundTruth, predictions: Predictions, *, matching: Matching, scoring: Scoring
) -> dict[str, Any]:
    borders = BORDERS.get(scoring.rules.name) or fitting_borders(truth)
    return analyze_errors(truth, predictions, matching=matching, borders=borders).to_plain()


def _counts(truth: GroundTruth, predictions: Predictions, *, num_classes: int) -> dict[str, int]:
    with_predictions = {predictions.videos[index] for index in np.unique(predictions.video)}
    return {
        "videos": len(truth.videos),
        "classes": num_classes,
        "reversed": predictions.num_reversed,
        "zero_length": predictions.num_zero_length,
        "missing_videos": len(set(truth.videos) - with_predictions),
        "reversed_instances": truth.num_reversed,
        "instances_outside_video": truth.num_outside_video,
    }


def _named_counts(names: Sequence[str], counts: np.ndarray) -> dict[str, int]:
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}
