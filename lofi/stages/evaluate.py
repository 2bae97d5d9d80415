"""Evaluate a run: its validation subset predicted anew, then scored -> predictions.json and results.json."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lofi.config.load import load_recipe
from lofi.config.recipe import Recipe
from lofi.data.annotations import read_annotations
from lofi.data.sampler import PredictionPlan, build_loader
from lofi.detector import Detector
from lofi.engine import deepspeed_engine
from lofi.engine.checkpoint import check_classes, load_weights, newest_weights
from lofi.engine.precision import device_has_bf16, resolve_precision
from lofi.engine.run_directory import RunDirectory
from lofi.evaluation.mean_average_precision import EvaluationConfig
from lofi.evaluation.predictions import write_predictions
from lofi.evaluation.results import Results, write_results
from lofi.inference import detect_windows, merge_videos
from lofi.stages.build import build_objective, feature_width_of, full_fidelity, open_prediction
from lofi.stages.score import score

PREDICTION_WINDOWS = 4
"""Windows per batch of prediction, per rank."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What an evaluation found."""

    results: Results
    seconds: float
    """Prediction and scoring."""
    failures: dict[str, str] = field(default_factory=dict)
    """Video -> reason, of those that could not be decoded; they have no detections and count against the result."""


def evaluate_run(
    path: Path, *, recipe: Recipe | None = None, ranks: deepspeed_engine.Ranks | None = None
) -> Evaluated:
    """Predict the validation subset with a run's newest weights, at full fidelity, and score it. Collective.

    Args:
        path: the run directory; predictions.json and results.json are written there.
        recipe: the run's own, where it is at hand.
        ranks: from `start_ranks`; they share the videos.
    """
    begin = time.perf_counter()
    run = RunDirectory(path=path)
    if not run.recipe.is_file():
        raise ValueError(f"{path} is no run directory (no {run.recipe.name}).")
    recipe = recipe or load_recipe(run.recipe)
    if recipe.objective.name != "tal":
        raise ValueError(f"{path}: objective {recipe.objective.name} has no detections to evaluate.")
    ranks = ranks or deepspeed_engine.start_ranks()
    annotations = read_annotations(recipe.data.annotations)
    detector = build_objective(
        recipe, classes=annotations.classes, feature_width=feature_width_of(recipe), with_weights=False
    )
    assert isinstance(detector, Detector)
    weights = newest_weights(run.checkpoints)
    check_classes(weights, annotations.classes)
    load_weights(detector, weights)
    detector.to(ranks.device).eval()

    dataset = open_prediction(recipe, annotations)
    plan = PredictionPlan(
        num_windows=len(dataset),
        batch_size=PREDICTION_WINDOWS,
        fidelity=full_fidelity(recipe),
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    batches = build_loader(dataset, plan.batches(), workers=recipe.data.workers)
    with _autocast(recipe, ranks.device):
        found, failures = detect_windows(
            detector.detect, batches, num_windows=len(plan.indices), title=f"predicting {path.name}"
        )
    gathered = deepspeed_engine.gather_from_ranks((found, failures))
    found = [each for found_there, _ in gathered for each in found_there]
    failures = {video: reason for _, failed_there in gathered for video, reason in failed_there.items()}
    assert recipe.postprocess is not None
    predictions = merge_videos(found, config=recipe.postprocess, classes=annotations.classes)
    truth = {video.name: list(video.segments) for video in annotations.subset(recipe.data.validation_subset)}
    results = score(
        truth, predictions, config=recipe.evaluation or EvaluationConfig(), classes=annotations.classes
    )
    if ranks.rank == 0:
        write_predictions(run.predictions, predictions)
        write_results(run.results, results)
    return Evaluated(results=results, seconds=time.perf_counter() - begin, failures=failures)


def recipe_precision(recipe: Recipe, device: torch.device) -> str:
    """fp32, bf16 or fp16: what the recipe's `train.precision` means on this device."""
    return resolve_precision(
        recipe.train.precision,
        device_type=device.type,
        has_bf16=device_has_bf16(device),
        zero_stage=deepspeed_engine.zero_stage(recipe.deepspeed),
    )


def _autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[None]:
    precision = recipe_precision(recipe, device)
    if precision == "fp32":
        return nullcontext()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    context: AbstractContextManager[None] = torch.autocast(device.type, dtype=dtype)
    return context
