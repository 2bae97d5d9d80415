"""Score a prediction file against an annotation file, by the rules of its dataset, and against another prediction file."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lofi.data.annotations import read_annotations
from lofi.evaluation.bootstrap import paired_bootstrap_of_matchings
from lofi.evaluation.dataset_rules import (
    AMBIGUOUS,
    CUSTOM_RULES,
    DATASET_RULES,
    DatasetRules,
    default_subset,
    doubtful_videos,
    ground_truth_of,
    predictions_of,
)
from lofi.evaluation.matching import Matching, match_predictions
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
    """What a careful reader of the score would ask about: doubtful videos, ambiguous stretches, lists that fit in part."""


def rules_named(name: str) -> DatasetRules:
    """The rules of a dataset. Raises ValueError with those that exist."""
    if name not in DATASET_RULES:
        raise ValueError(f"dataset {name!r} is not known; there are {', '.join(sorted(DATASET_RULES))}.")
    return DATASET_RULES[name]


def check_sources(sources: Sources, *, scoring: Scoring) -> None:
    """Read every file but the predictions, so that what is wrong with one is said before hours of predicting.

    Raises:
        ValueError: as of `score_files`.
    """
    subset = _read_subset(sources, scoring=scoring)
    if sources.against is not None:
        _read_found(sources.against, subset=subset, rules=scoring.rules)


def score_files(sources: Sources, *, scoring: Scoring) -> ScoredFiles:
    """Score a prediction file against an annotation file.

    Raises:
        ValueError: a file is broken, the subset is not there, no prediction lies in it, or a list of videos names none of it.
    """
    subset = _read_subset(sources, scoring=scoring)
    predictions = _read_found(sources.predictions, subset=subset, rules=scoring.rules)
    if len(predictions) >= MANY_PREDICTIONS:
        say(f"scoring {len(predictions):,} predictions")
    # A comparison resamples these predictions as well.
    alone = scoring if sources.against is None else replace(scoring, bootstrap=0)
    with _naming(sources.predictions):
        scored = score_tables(subset.truth, predictions, scoring=alone)
    source = {
        "annotations": str(sources.annotations),
        "predictions": str(sources.predictions),
        "subset": subset.name,
    }
    if scoring.rules is not CUSTOM_RULES:
        source["dataset"] = scoring.rules.name
    results = replace(scored.results, source=source)
    if sources.against is not None:
        del predictions
        other = _read_found(sources.against, subset=subset, rules=scoring.rules)
        with _naming(sources.against):
            against = match_predictions(
                subset.truth, other, tious=scoring.tious, protocol=scored.matching.protocol
            )
        results = _compare(
            results, against, scored.matching, scoring=scoring, predictions=str(sources.against)
        )
    return ScoredFiles(results=results, curves=scored.curves, notes=subset.notes)


@dataclass(frozen=True, kw_only=True)
class _Subset:
    """What is scored against."""

    name: str
    truth: GroundTruth
    exclude: tuple[str, ...]
    notes: tuple[str, ...]


def _read_subset(sources: Sources, *, scoring: Scoring) -> _Subset:
    """The instances of the subset as they were published."""
    protocol, rules = protocol_named(scoring.protocol), scoring.rules
    if sources.ambiguous is not None and not protocol.ambiguous_is_left_out:
        raise ValueError(
            f"{sources.ambiguous}: ambiguous stretches have no effect under the protocol {scoring.protocol}; of all "
            "protocols thumos14 alone leaves them out."
        )
    exclude = read_video_names(sources.exclude) if sources.exclude else ()
    ambiguous = read_ambiguous(sources.ambiguous) if sources.ambiguous else None
    annotated = read_annotations(sources.annotations, as_published=True)
    if protocol.ambiguous_is_left_out and rules.ambiguous_label is None:
        rules = replace(
            rules, ambiguous_label=AMBIGUOUS
        )  # the challenge's label, whatever the dataset is called
    with _naming(sources.annotations):
        name = sources.subset
        if name is None:
            name = default_subset(rules, {video.subset for video in annotated.videos.values()})
        videos = annotated.subset(name)
        if ambiguous is None and protocol.ambiguous_is_left_out:  # what the annotations have themselves
            ambiguous = {video.name: list(video.ambiguous) for video in videos if video.ambiguous} or None
        truth = ground_truth_of(
            {video.name: video.segments for video in videos},
            rules=rules,
            classes=annotated.classes,
            durations_sec={video.name: video.duration_sec for video in videos},
            ambiguous=ambiguous,
            exclude=exclude,
        )
    notes = [f"{video} is in the score: {why}" for video, why in doubtful_videos(truth, rules=rules).items()]
    num_left_out = len(videos) - len(truth.videos)
    if num_left_out < len(exclude):
        notes.append(f"{num_left_out} of the {len(exclude)} videos to exclude are in the subset")
    if protocol.ambiguous_is_left_out and not truth.ambiguous:
        notes.append(
            f"no ambiguous stretch is known, so false positives there count; official {protocol.name} scores leave them "
            "out: give --ambiguous, such as Ambiguous_test.txt"
        )
    if AMBIGUOUS in truth.classes:
        notes.append(f"{AMBIGUOUS} is scored as a class; give --dataset thumos14 if it is none")
    return _Subset(name=name, truth=truth, exclude=exclude, notes=tuple(notes))


def _read_found(path: Path, *, subset: _Subset, rules: DatasetRules) -> Predictions:
    if path.is_file() and path.stat().st_size >= MANY_PREDICTIONS * BYTES_PER_PREDICTION:
        say(f"reading {path}")
    predictions = read_predictions(path)
    with _naming(path):
        predictions = predictions_of(predictions, rules=rules, exclude=subset.exclude)
        check_overlap(subset.truth, predictions)
    return predictions


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let our own errors begin with the file where they do not name it. One of numpy's is a bug of ours, not of the file."""
    try:
        yield
    except ValueError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if str(path) in str(error) or not frame.f_globals["__name__"].startswith("lofi."):
            raise
        raise ValueError(f"{path}: {error}") from error


def _compare(
    results: Results, other: Matching, this: Matching, *, scoring: Scoring, predictions: str
) -> Results:
    """The results with the paired test against the other predictions."""
    found = paired_bootstrap_of_matchings(
        other, this, seed=scoring.seed, samples=scoring.bootstrap or PAIRED_SAMPLES
    )
    return replace(
        results,
        bootstrap=bootstrap_to_plain(found.second),
        against=comparison_to_plain(found, predictions=predictions),
    )
