"""Validation while training: the validation subset predicted with the weights that are in training, and scored.

The same prediction as at the end of a run (`stages.evaluate`), and the same numbers as its checkpoint gives: in evaluation,
without gradient, at full fidelity, the videos shared by the ranks. It draws no random number, so a run trains alike whether
it is validated or not.
"""

from typing import Any

import torch

from lofi.config.recipe import Recipe
from lofi.data.annotations import Annotations
from lofi.detector import Detector
from lofi.engine import deepspeed_engine
from lofi.engine.checkpoint import WEIGHTS_FILE, Position, checkpoint_name
from lofi.engine.run_directory import RunDirectory
from lofi.engine.validation import (
    Validation,
    best_validation,
    read_validations,
    write_best,
    write_validations,
)
from lofi.progress import say
from lofi.stages.build import open_prediction
from lofi.stages.evaluate import Evaluated, load_detector, predict_and_score


class Validator:
    """`engine.validation.Validate`, for one engine from the position where it starts."""

    def __init__(
        self,
        engine: Any,
        *,
        recipe: Recipe,
        run: RunDirectory,
        annotations: Annotations,
        ranks: deepspeed_engine.Ranks,
        start: Position,
    ) -> None:
        """Read the run's log up to `start`, and state the best checkpoint anew. Collective.

        Args:
            engine: in training; its module is a detector.
            recipe: with `evaluation.every_epochs`.
            run: its directory.
            annotations: the recipe's.
            ranks: they share the videos.
            start: what comes after it in the log was not saved, and will be done again.
        """
        assert recipe.evaluation is not None
        assert recipe.evaluation.every_epochs is not None
        self.validations = read_validations(run.validation, last_step=start.step)
        """All so far, oldest first."""
        self.final: Evaluated | None = None
        """That of the last epoch, with its predictions, where this process made it; those of other epochs are let go."""
        self._engine = engine
        self._recipe = recipe
        self._config = recipe.evaluation
        self._every_epochs = recipe.evaluation.every_epochs
        self._run = run
        self._annotations = annotations
        self._dataset = open_prediction(recipe, annotations)
        self._ranks = ranks
        self._write()

    def is_due(self, position: Position) -> bool:
        """After every so many epochs and after the last, once."""
        if position.batch > 0 or position.epoch == 0:
            return False
        is_last = position.epoch == self._recipe.train.epochs
        is_done = any(row.step == position.step for row in self.validations)
        return (is_last or position.epoch % self._every_epochs == 0) and not is_done

    def __call__(self, position: Position) -> Validation:
        """Validate, log, and state the best checkpoint. Collective."""
        devices = [self._ranks.device] if self._ranks.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            evaluated = self._evaluate(position)
        found = Validation(
            epoch=position.epoch,
            step=position.step,
            average_mAP=evaluated.results.average_mAP,
            mAP=evaluated.results.mAP,
            seconds=evaluated.seconds,
        )
        before = best_validation(self._run.checkpoints, self.validations)
        self.validations.append(found)
        if position.epoch == self._recipe.train.epochs:
            self.final = evaluated
        self._write()
        if before is None or found.average_mAP > before.average_mAP:
            comparison = "the best so far"
        else:
            comparison = f"best: {100 * before.average_mAP:.2f} %, epoch {before.epoch}"
        say(f"validation, {found.describe()}; {comparison}")
        return found

    def _evaluate(self, position: Position) -> Evaluated:
        title = f"validating epoch {position.epoch}"
        if self._engine.zero_optimization_stage() < 3:
            with deepspeed_engine.prediction_mode(self._engine) as module:
                return self._predict(module, title=title)
        # At stage 3 no rank has whole weights: a second module takes them from the checkpoint of this position.
        weights = self._run.checkpoints / checkpoint_name(position.step) / WEIGHTS_FILE
        detector = load_detector(self._recipe, self._annotations, weights=weights)
        return self._predict(detector.to(self._ranks.device), title=title)

    def _predict(self, detector: torch.nn.Module, *, title: str) -> Evaluated:
        assert isinstance(detector, Detector)
        return predict_and_score(
            detector,
            self._dataset,
            recipe=self._recipe,
            annotations=self._annotations,
            ranks=self._ranks,
            title=title,
        )

    def _write(self) -> None:
        """The log, then the best. All ranks leave together: the next checkpoint spares the best."""
        if self._ranks.rank == 0:
            write_validations(self._run.validation, self.validations)
            write_best(
                self._run.checkpoints,
                best_validation(self._run.checkpoints, self.validations),
                weights=self._config.weights,
                subset=self._recipe.data.validation_subset,
            )
        deepspeed_engine.wait_for_ranks()
