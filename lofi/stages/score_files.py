"""Score a prediction file against an annotation file, by the rules of its dataset, and against another prediction file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lofi.data.annotations import read_annotations
from lofi.evaluation.bootstrap import paired_bootstrap
from lofi.evaluation.dataset_rules import (
    CUSTOM_RULES,
    DATASET_RULES,
    DatasetRules,
    default_subset,
    doubtful_videos,
    ground_truth_of,
    predictions_of,
)
from lofi.evaluation.predictions import check_overlap, read_predictions
from lofi.evaluation.protocols import protocol_named
from lofi.evaluation.results import Results, bootstrap_to_plain, comparison_to_plain
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.evaluation.video_lists import read_ambiguous, read_video_names
from lofi.progress import say
from lofi.stages.score import Scoring, score_tables

MANY_PREDICTIONS = 1_000_000
"""From here on scoring takes long enough to be announced."""
BYTES_PER_PREDICTION = 60
"""In a file, at least."""
PAIRED_SAMPLES = 1000
"""Resamples of a comparison where no other number is asked for."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files of one evaluation."""

    annotations: Path
    predictions: Path
    subset: str | None = None
    """None takes what the dataset's files usually call it."""
    ambiguous: Path | None = None
    """Lines VIDEO START END of stretches that count neither way."""
    exclude: Path | None = None
    """Names of videos to leave out."""
    against: Path | None = None
    """Predictions to compare with."""


@dataclass(frozen=True, kw_only=True)
class ScoredFiles:
    """What an evaluation of files found."""

    results: Results
    curves: dict[str, Any] | None
    """As of `score.Scored`."""
    notes: tuple[str, ...]
    """What is known of videos of this dataset and bears on the score."""


def rules_named(name: str) -> DatasetRules:
    """The rules of a dataset. Raises ValueError with those that exist."""
    if name not in DATASET_RULES:
        raise ValueError(f"dataset {name!r} is not known; there are {', '.join(sorted(DATASET_RULES))}.")
    return DATASET_RULES[name]


def score_files(sources: Sources, *, scoring: Scoring) -> ScoredFiles:
    """Score a prediction file against an annotation file.

    Raises:
        ValueError: a file is broken, the subset is not there, or no prediction lies in it.
    """
    if sources.ambiguous is not None and not protocol_named(scoring.protocol).ambiguous_is_left_out:
        raise ValueError(
            f"{sources.ambiguous}: ambiguous stretches have no effect under the protocol {scoring.protocol}; of all "
            "protocols thumos14 alone leaves them out."
        )
    exclude = read_video_names(sources.exclude) if sources.exclude else ()
    truth, subset = _read_truth(sources, rules=scoring.rules, exclude=exclude)
    predictions = _read_found(sources.predictions, truth=truth, rules=scoring.rules, exclude=exclude)
    if len(predictions) >= MANY_PREDICTIONS:
        say(f"scoring {len(predictions):,} predictions")
    try:
        scored = score_tables(truth, predictions, scoring=scoring)
    except ValueError as error:
        raise _named(error, sources.predictions) from error
    source = {
        "annotations": str(sources.annotations),
        "predictions": str(sources.predictions),
        "subset": subset,
    }
    if scoring.rules is not CUSTOM_RULES:
        source["dataset"] = scoring.rules.name
    results = replace(scored.results, source=source)
    if sources.against is not None:
        other = _read_found(sources.against, truth=truth, rules=scoring.rules, exclude=exclude)
        results = _compare(results, truth, (other, predictions), scoring=scoring, against=sources.against)
    doubtful = doubtful_videos(truth, rules=scoring.rules)
    notes = tuple(f"{video} is in the score: {why}" for video, why in doubtful.items())
    return ScoredFiles(results=results, curves=scored.curves, notes=notes)


def _read_truth(sources: Sources, *, rules: DatasetRules, exclude: Sequence[str]) -> tuple[GroundTruth, str]:
    """The instances of the subset as they were published, and its name."""
    annotated = read_annotations(sources.annotations, as_published=True)
    ambiguous = read_ambiguous(sources.ambiguous) if sources.ambiguous else None
    try:
        subset = sources.subset
        if subset is None:
            subset = default_subset(rules, {video.subset for video in annotated.videos.values()})
        videos = annotated.subset(subset)
        truth = ground_truth_of(
            {video.name: video.segments for video in videos},
            rules=rules,
            classes=annotated.classes,
            durations_sec={video.name: video.duration_sec for video in videos},
            ambiguous=ambiguous,
            exclude=exclude,
        )
    except ValueError as error:
        raise _named(error, sources.annotations) from error
    return truth, subset


def _read_found(
    path: Path, *, truth: GroundTruth, rules: DatasetRules, exclude: Sequence[str]
) -> Predictions:
    if path.is_file() and path.stat().st_size >= MANY_PREDICTIONS * BYTES_PER_PREDICTION:
        say(f"reading {path}")
    predictions = read_predictions(path)
    try:
        predictions = predictions_of(predictions, rules=rules, exclude=exclude)
        check_overlap(truth, predictions)
    except ValueError as error:
        raise _named(error, path) from error
    return predictions


def _named(error: ValueError, path: Path) -> ValueError:
    """The same error, beginning with the file where it does not name it."""
    return error if str(path) in str(error) else ValueError(f"{path}: {error}")


def _compare(
    results: Results,
    truth: GroundTruth,
    both: tuple[Predictions, Predictions],
    *,
    scoring: Scoring,
    against: Path,
) -> Results:
    """The results with the paired test against the other predictions, the first of `both`."""
    other, this = both
    found = paired_bootstrap(
        truth,
        other,
        this,
        tious=scoring.tious,
        seed=scoring.seed,
        samples=scoring.bootstrap or PAIRED_SAMPLES,
        protocol=protocol_named(scoring.protocol),
    )
    return replace(
        results,
        bootstrap=bootstrap_to_plain(found.second),
        against=comparison_to_plain(found, predictions=str(against)),
    )
