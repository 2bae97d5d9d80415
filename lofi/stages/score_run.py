"""The files of a run that a score needs: its recipe says which annotations, which subset and which thresholds."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lofi.config.load import load_recipe
from lofi.config.objective_kinds import Parts
from lofi.config.objectives import OWN_PARTS
from lofi.engine.run_directory import RunDirectory
from lofi.evaluation.mean_average_precision import EvaluationConfig
from lofi.stages.evaluate import evaluate_run
from lofi.stages.score import Scoring
from lofi.stages.score_files import Sources


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What `stages.score` takes, of one run."""

    annotations: Path
    predictions: Path
    subset: str
    tious: list[float]
    """The recipe's."""


def run_files(path: Path, *, parts: Parts = OWN_PARTS) -> RunFiles:
    """The files of a run, of which the predictions may not be there yet.

    Raises:
        ValueError: no run directory, or one that finds no segments.
    """
    run = RunDirectory(path=path)
    if not run.recipe.is_file():
        raise ValueError(f"{path} is no run directory (no {run.recipe.name}).")
    recipe = load_recipe(run.recipe, parts=parts)
    if recipe.objective.name != "tal":
        raise ValueError(f"{path}: objective {recipe.objective.name} has no detections to evaluate.")
    return RunFiles(
        annotations=Path(recipe.data.annotations),
        predictions=run.predictions,
        subset=recipe.data.validation_subset,
        tious=list((recipe.evaluation or EvaluationConfig()).tious),
    )


def predict_run(
    path: Path,
    *,
    anew: bool = True,
    weights: Literal["newest", "best"] | None = None,
    parts: Parts = OWN_PARTS,
) -> None:
    """See that a run's predictions are there. Collective where they are made.

    Args:
        path: the run directory.
        anew: predict its validation subset, and write its predictions.json and results.json.
        weights: which to predict with; see `evaluate_run`.
        parts: what the run's recipe can name.

    Raises:
        ValueError: it holds none and none are made, or what `evaluate_run` refuses.
    """
    run = RunDirectory(path=path)
    if anew:
        evaluate_run(path, weights=weights, parts=parts)
    elif not run.predictions.is_file():
        raise ValueError(f"{path} holds no {run.predictions.name}; leave out --no-predict to make it.")


def with_run(
    run: RunFiles, *, sources: Sources, scoring: Scoring, keeps_tious: bool
) -> tuple[Sources, Scoring]:
    """The run's files in the place of those of `sources`, and its thresholds unless others were asked for."""
    placed = replace(sources, annotations=run.annotations, predictions=run.predictions, subset=run.subset)
    return placed, scoring if keeps_tious else replace(scoring, tious=run.tious)
