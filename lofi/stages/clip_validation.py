"""Validation of pretexts while they train: their own accuracies on clips of the validation subset, over all ranks."""

import time

import torch
from torch import nn

from lofi.config.recipe import Recipe
from lofi.data.annotations import Annotations
from lofi.data.sampler import PredictionPlan, build_loader
from lofi.engine import deepspeed_engine
from lofi.engine.validation import Judge, Scored
from lofi.progress import track
from lofi.stages.build import full_fidelity, open_windows, say_left_out
from lofi.stages.evaluate import prediction_autocast

MAX_BATCH_WINDOWS = 32
"""Windows per batch and rank; fewer where training has fewer in all."""


def clip_judge(recipe: Recipe, annotations: Annotations, *, ranks: deepspeed_engine.Ranks) -> Judge | None:
    """A judge that measures the objective's module on the windows it names; None where the recipe asks for none.

    The batches do not depend on the number of ranks, nor do the random numbers of pretexts that draw some: a validation is
    the same wherever it is made, and leaves the run's own random numbers alone (`stages.validation.Validator`).
    """
    config = recipe.objective.config
    if config.validate_every_epochs is None:
        return None
    assert recipe.kind.measured_on is not None
    videos = annotations.subset(recipe.data.validation_subset)
    try:
        windows = recipe.kind.measured_on(recipe, videos, annotations.classes)
    except ValueError as error:
        raise ValueError(
            f"data.validation_subset {recipe.data.validation_subset}: {error} Or set objective.validate_every_epochs: null "
            "and objective.weights: newest."
        ) from error
    say_left_out(recipe, videos, subset=recipe.data.validation_subset)
    dataset = open_windows(recipe, annotations, windows)
    plan = PredictionPlan(
        videos=[window.video for window in dataset.windows],
        batch_size=min(MAX_BATCH_WINDOWS, recipe.train.batch_size),
        fidelity=full_fidelity(recipe),
        rank=ranks.rank,
        world_size=ranks.world_size,
    )

    def score(module: nn.Module, title: str) -> Scored:
        begin = time.perf_counter()
        rows = []
        with track(title, total=plan.num_windows) as advance, prediction_autocast(recipe, ranks.device):
            for batch in build_loader(dataset, plan.batches(), workers=recipe.data.workers):
                rows.append(module.measure(batch))  # type: ignore[operator]
                advance(batch.num_windows)
        mine = torch.cat(rows) if rows else None
        there = [each for each in deepspeed_engine.gather_from_ranks(mine) if each is not None]
        found = module.summarise(torch.cat(there))  # type: ignore[operator]
        return Scored(score=found.score, details=found.details, seconds=time.perf_counter() - begin)

    return Judge(
        measure=recipe.kind.measure,
        every_epochs=config.validate_every_epochs,
        weights=config.weights,
        subset=recipe.data.validation_subset,
        score=score,
        judges_start=True,
    )
