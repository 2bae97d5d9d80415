"""Evaluate a run: its validation subset predicted anew, then scored -> predictions.json and results.json."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from lofi.config.load import load_recipe
from lofi.config.objective_kinds import Parts
from lofi.config.objectives import OWN_PARTS
from lofi.config.recipe import Recipe
from lofi.data.annotations import Annotations, read_annotations
from lofi.data.feature_windows import FeatureWindows
from lofi.data.frame_windows import FrameWindows
from lofi.data.sampler import PredictionPlan, build_loader
from lofi.detector import Detector
from lofi.engine import deepspeed_engine
from lofi.engine.checkpoint import check_classes, load_weights
from lofi.engine.precision import device_has_bf16, resolve_precision
from lofi.engine.run_directory import RunDirectory
from lofi.engine.validation import SELECTION_NOTE, run_weights
from lofi.evaluation.mean_average_precision import EvaluationConfig
from lofi.evaluation.predictions import write_predictions
from lofi.evaluation.results import Results, write_results
from lofi.inference import detect_windows, merge_videos
from lofi.progress import say
from lofi.segments import Detection
from lofi.stages.build import build_objective, feature_width_of, full_fidelity, open_prediction
from lofi.stages.score import score

PREDICTION_WINDOWS = 4
"""Windows per batch of prediction, per rank. Whole videos (grid.prediction: videos) are predicted one at a time: a batch of
them would be padded to the longest."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What an evaluation found."""

    results: Results
    predictions: dict[str, list[Detection]]
    """Of every video of the validation subset that could be decoded, best first."""
    seconds: float
    """Prediction and scoring."""
    failures: dict[str, str] = field(default_factory=dict)
    """Video -> reason, of those that could not be decoded; they have no detections and count against the result."""


def evaluate_run(
    path: Path,
    *,
    recipe: Recipe | None = None,
    ranks: deepspeed_engine.Ranks | None = None,
    weights: Literal["newest", "best"] | None = None,
    parts: Parts = OWN_PARTS,
) -> Evaluated:
    """Predict the validation subset with a run's weights, at full fidelity, and score it. Collective.

    Args:
        path: the run directory; predictions.json and results.json are written there.
        recipe: the run's own, where it is at hand.
        ranks: from `start_ranks`; they share the videos.
        weights: of which checkpoint; None takes the one of the recipe's `evaluation.weights`, else the newest. The best one's
            result is optimistic: it was chosen on this very subset.
        parts: what the run's recipe can name.
    """
    begin = time.perf_counter()
    run = RunDirectory(path=path)
    if not run.recipe.is_file():
        raise ValueError(f"{path} is no run directory (no {run.recipe.name}).")
    recipe = recipe or load_recipe(run.recipe, parts=parts)
    if recipe.objective.name != "tal":
        raise ValueError(f"{path}: objective {recipe.objective.name} has no detections to evaluate.")
    ranks = ranks or deepspeed_engine.start_ranks()
    annotations = read_annotations(recipe.data.annotations)
    choice = weights or (recipe.evaluation or EvaluationConfig()).weights
    chosen = run_weights(run.checkpoints, choice=choice)
    if choice == "best":
        say(f"weights of {chosen.parent.name}: {SELECTION_NOTE}")
    detector = load_module(recipe, annotations, weights=chosen).to(ranks.device)
    assert isinstance(detector, Detector)
    dataset = open_prediction(recipe, annotations)
    evaluated = predict_and_score(
        detector,
        dataset,
        recipe=recipe,
        annotations=annotations,
        ranks=ranks,
        title=f"predicting {path.name}",
    )
    evaluated = replace(evaluated, seconds=time.perf_counter() - begin)
    if ranks.rank == 0:
        write_evaluated(run, evaluated)
    return evaluated


def write_evaluated(run: RunDirectory, evaluated: Evaluated) -> None:
    """Write predictions.json and results.json. Main rank only."""
    write_predictions(run.predictions, evaluated.predictions)
    write_results(run.results, evaluated.results)


def load_module(recipe: Recipe, annotations: Annotations, *, weights: Path) -> nn.Module:
    """The module that a recipe trains with the weights of one of its checkpoints, in evaluation."""
    module = build_objective(
        recipe, classes=annotations.classes, feature_width=feature_width_of(recipe), with_weights=False
    )
    check_classes(weights, annotations.classes)
    load_weights(module, weights)
    return module.eval()


def predict_and_score(
    detector: Detector,
    dataset: FrameWindows | FeatureWindows,
    *,
    recipe: Recipe,
    annotations: Annotations,
    ranks: deepspeed_engine.Ranks,
    title: str,
) -> Evaluated:
    """Predict the validation windows, each rank its videos, and score all of them on every rank. Collective.

    Args:
        detector: in evaluation, with the same weights on every rank.
        dataset: from `open_prediction`.
        recipe: says fidelity, precision, post-processing and thresholds.
        annotations: the recipe's.
        ranks: they share the videos, each predicted once; the result does not depend on how many they are.
        title: of the progress bar.
    """
    begin = time.perf_counter()
    plan = PredictionPlan(
        videos=[window.video for window in dataset.windows],
        batch_size=1 if recipe.grid.prediction == "videos" else PREDICTION_WINDOWS,
        fidelity=full_fidelity(recipe),
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    batches = build_loader(dataset, plan.batches(), workers=recipe.data.workers)
    with prediction_autocast(recipe, ranks.device):
        found, failures = detect_windows(detector.detect, batches, num_windows=plan.num_windows, title=title)
    assert recipe.postprocess is not None
    predictions = merge_videos(found, config=recipe.postprocess, classes=annotations.classes)
    for predicted_there, failed_there in deepspeed_engine.gather_from_ranks((predictions, failures)):
        predictions.update(predicted_there)
        failures.update(failed_there)
    predictions = dict(sorted(predictions.items()))
    # Scored as launch/evaluate.py scores the files: on the segments as published, where training clips them to the video.
    published = read_annotations(recipe.data.annotations, as_published=True)
    truth = {video.name: video.segments for video in published.subset(recipe.data.validation_subset)}
    results = score(
        truth, predictions, config=recipe.evaluation or EvaluationConfig(), classes=annotations.classes
    )
    return Evaluated(
        results=results, predictions=predictions, seconds=time.perf_counter() - begin, failures=failures
    )


def recipe_precision(recipe: Recipe, device: torch.device) -> str:
    """fp32, bf16 or fp16: what the recipe's `train.precision` means on this device."""
    return resolve_precision(
        recipe.train.precision,
        device_type=device.type,
        has_bf16=device_has_bf16(device),
        zero_stage=deepspeed_engine.zero_stage(recipe.deepspeed),
    )


def prediction_autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[None]:
    """The context in which a recipe's detector predicts on this device."""
    precision = recipe_precision(recipe, device)
    if precision == "fp32":
        return nullcontext()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    context: AbstractContextManager[None] = torch.autocast(device.type, dtype=dtype)
    return context
