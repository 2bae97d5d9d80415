"""The files of a run that a score needs: its recipe says which annotations, which subset and which thresholds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lofi.config.load import load_recipe
from lofi.engine.run_directory import RunDirectory
from lofi.evaluation.mean_average_precision import EvaluationConfig
from lofi.stages.evaluate import evaluate_run


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What `stages.score` takes, of one run."""

    annotations: Path
    predictions: Path
    subset: str
    tious: list[float]
    """The recipe's."""


def predicted_run(
    path: Path, *, predict: bool = True, weights: Literal["newest", "best"] | None = None
) -> RunFiles:
    """The files of a run. Collective where it is predicted.

    Args:
        path: the run directory.
        predict: predict its validation subset anew, and write its predictions.json and results.json.
        weights: which to predict with; see `evaluate_run`.

    Raises:
        ValueError: no run directory, one that finds no segments, or one that holds no predictions where none are made.
    """
    run = RunDirectory(path=path)
    if predict:
        evaluate_run(path, weights=weights)
    if not run.recipe.is_file():
        raise ValueError(f"{path} is no run directory (no {run.recipe.name}).")
    recipe = load_recipe(run.recipe)
    if not predict and not run.predictions.is_file():
        raise ValueError(f"{path} holds no {run.predictions.name}; leave out --no-predict to make it.")
    return RunFiles(
        annotations=Path(recipe.data.annotations),
        predictions=run.predictions,
        subset=recipe.data.validation_subset,
        tious=list((recipe.evaluation or EvaluationConfig()).tious),
    )
