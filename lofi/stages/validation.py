"""Validation while training: the weights that are in training, judged every so many epochs.

Detectors are judged by the same prediction as at the end of a run (`stages.evaluate`), with the same numbers as their
checkpoint gives: in evaluation, without gradient, at full fidelity, the videos shared by the ranks. Other objectives bring a
judge of their own. No random number of the run is drawn, so it trains alike whether it is validated or not.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from lofi.config.recipe import Recipe
from lofi.data.annotations import Annotations
from lofi.detector import Detector
from lofi.engine import deepspeed_engine
from lofi.engine.checkpoint import WEIGHTS_FILE, Position, checkpoint_name
from lofi.engine.ema import WeightAverage
from lofi.engine.run_directory import RunDirectory
from lofi.engine.seeds import seed_model
from lofi.engine.validation import (
    Judge,
    Scored,
    Validation,
    best_validation,
    read_validations,
    write_best,
    write_validations,
)
from lofi.progress import say
from lofi.stages.build import build_objective, feature_width_of, open_prediction
from lofi.stages.clip_validation import clip_judge
from lofi.stages.evaluate import load_module, predict_and_score


def judge_of(recipe: Recipe, annotations: Annotations, *, ranks: deepspeed_engine.Ranks) -> Judge | None:
    """How a recipe's run is judged while it trains; None where it says nothing of that."""
    if recipe.kind.judge is not None:
        return recipe.kind.judge(recipe, annotations, ranks.device)
    if recipe.kind.measured_on is not None:
        return clip_judge(recipe, annotations, ranks=ranks)
    if recipe.evaluation is None or recipe.evaluation.every_epochs is None:
        return None
    dataset = open_prediction(recipe, annotations)

    def score(detector: nn.Module, title: str) -> Scored:
        assert isinstance(detector, Detector)
        evaluated = predict_and_score(
            detector, dataset, recipe=recipe, annotations=annotations, ranks=ranks, title=title
        )
        return Scored(
            score=evaluated.results.average_mAP,
            details={f"mAP_{tiou}": value for tiou, value in evaluated.results.mAP.items()},
            seconds=evaluated.seconds,
            made_from=evaluated,
        )

    return Judge(
        measure="average_mAP",
        every_epochs=recipe.evaluation.every_epochs,
        weights=recipe.evaluation.weights,
        subset=recipe.data.validation_subset,
        score=score,
    )


class Validator:
    """`engine.validation.Validate`, for one engine from the position where it starts."""

    def __init__(
        self,
        engine: Any,
        *,
        judge: Judge,
        recipe: Recipe,
        run: RunDirectory,
        annotations: Annotations,
        ranks: deepspeed_engine.Ranks,
        start: Position,
        average: WeightAverage | None = None,
    ) -> None:
        """Read the run's log up to `start`, and state the best checkpoint anew. Collective.

        Args:
            engine: in training.
            judge: of its module.
            recipe: of the run.
            run: its directory.
            annotations: the recipe's.
            ranks: they judge together.
            start: what comes after it in the log was not saved, and will be done again.
            average: where it is given, its means are judged.
        """
        self.validations = read_validations(run.validation, last_step=start.step)
        """All so far, oldest first."""
        self.final: Any = None
        """What the last epoch's score was made from, where this process made it; those of other epochs are let go."""
        self._engine = engine
        self._judge = judge
        self._recipe = recipe
        self._run = run
        self._annotations = annotations
        self._ranks = ranks
        self._average = average
        self._write()

    def is_due(self, position: Position) -> bool:
        """After every so many epochs and after the last, and before the first where the judge says so; once each."""
        if position.batch > 0 or any(row.step == position.step for row in self.validations):
            return False
        if position.epoch == 0:
            return self._judge.judges_start
        is_last = position.epoch == self._recipe.train.epochs
        return is_last or position.epoch % self._judge.every_epochs == 0

    def __call__(self, position: Position) -> Validation:
        """Validate, log, and state the best checkpoint. Collective."""
        devices = [self._ranks.device] if self._ranks.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            scored = self._score(position)
        found = Validation(
            epoch=position.epoch,
            step=position.step,
            measure=self._judge.measure,
            score=scored.score,
            details=scored.details,
            seconds=scored.seconds,
        )
        before = best_validation(self._run.checkpoints, self.validations)
        self.validations.append(found)
        if position.epoch == self._recipe.train.epochs:
            self.final = scored.made_from
        self._write()
        say(f"validation, {found.describe()}{self._comparison(found, before=before)}")
        return found

    def _comparison(self, found: Validation, *, before: Validation | None) -> str:
        """Beside the best before it and, where it was measured, what was there before training."""
        if found.step == 0:
            return ""
        if before is None or found.score > before.score:
            parts = ["the best so far"]
        else:
            parts = [f"best: {100 * before.score:.2f} %, epoch {before.epoch}"]
        parts += [f"before training: {100 * row.score:.2f} %" for row in self.validations if row.step == 0]
        return "".join(f"; {part}" for part in parts)

    def _score(self, position: Position) -> Scored:
        title = f"validating epoch {position.epoch}" if position.step else "validating before training"
        if self._engine.zero_optimization_stage() < 3:
            means = nullcontext() if self._average is None else self._average.in_place()
            with deepspeed_engine.prediction_mode(self._engine) as module, means:
                return self._judge.score(module, title)
        # At stage 3 no rank has whole weights: a second module takes them from the checkpoint of this position, or is what
        # the first was before training.
        if position.step == 0:
            seed_model(self._recipe.seed)
            module = build_objective(
                self._recipe,
                classes=self._annotations.classes,
                feature_width=feature_width_of(self._recipe),
            ).eval()
            return self._judge.score(module.to(self._ranks.device), title)
        weights = self._run.checkpoints / checkpoint_name(position.step) / WEIGHTS_FILE
        module = load_module(self._recipe, self._annotations, weights=weights)
        return self._judge.score(module.to(self._ranks.device), title)

    def _write(self) -> None:
        """The log, then the best. All ranks leave together: the next checkpoint spares the best."""
        if self._ranks.rank == 0:
            write_validations(self._run.validation, self.validations)
            write_best(
                self._run.checkpoints,
                best_validation(self._run.checkpoints, self.validations),
                weights=self._judge.weights,
                subset=self._judge.subset,
            )
        deepspeed_engine.wait_for_ranks()
