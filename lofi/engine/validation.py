"""Validation while training: when it is due, its log, and the best checkpoint so far.

    validation.jsonl         one line per validation: epoch, step, measure (average_mAP), score, details (mAP by tIoU), seconds;
                             epoch 0 is before training, where the judge looks there too
    checkpoints/best.json    the best of them: which checkpoint, its epoch and score, and that it was chosen on what it shows

A validation follows the checkpoint of its own step, so that a run that is stopped in between loses no training and, resumed,
validates first. best.json follows from validation.jsonl and the checkpoints that are there; its checkpoint is never dropped.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import nn

from lofi.engine.checkpoint import Position, checkpoint_name, newest_weights, whole_weights
from lofi.engine.metrics import read_metrics
from lofi.files import write_json, write_text
from lofi.run_files import BEST_FILE, read_best_file

SELECTION_NOTE = (
    "the best checkpoint was chosen on the subset that it is measured on, so its score is optimistic; compare it with other "
    "bests alone"
)

MAX_DETAILS_SHOWN = 4
"""In a validation's line; of more, such as mAP by tIoU, the first, the middle and the last."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a judge says of a module. Fractions between 0 and 1."""

    score: float
    """Greater is better."""
    details: dict[str, float]
    """What else is logged, such as mAP_0.50."""
    seconds: float
    made_from: Any = None
    """What the score was made from, for who needs it again (`stages.evaluate.Evaluated`)."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """How an objective's modules are judged while they train."""

    measure: str
    """Name of the score: average_mAP, balanced_linear_accuracy."""
    every_epochs: int
    weights: Literal["newest", "best"]
    """Which checkpoint the run hands on."""
    subset: str
    """Of the annotations, that the score is measured on."""
    score: Callable[[nn.Module, str], Scored]
    """(the trained module in evaluation, title of a progress bar) -> the same score on every rank. Collective."""
    judges_start: bool = False
    """Also before the first step, as epoch 0: what training must beat. It has no checkpoint, so it is never the best."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """One validation. Fractions between 0 and 1."""

    epoch: int
    """Finished epochs; 0 before training."""
    step: int
    """Finished steps: the number in its checkpoint's name."""
    measure: str
    """Name of the score: average_mAP, balanced_linear_accuracy."""
    score: float
    """Greater is better."""
    details: dict[str, float]
    """What else was measured, such as mAP_0.50."""
    seconds: float

    def describe(self) -> str:
        """One line, in percent."""
        names = list(self.details)
        shown = names if len(names) <= MAX_DETAILS_SHOWN else [names[0], names[len(names) // 2], names[-1]]
        parts = ", ".join(f"{name} {100 * self.details[name]:.2f} %" for name in shown)
        when = f"epoch {self.epoch}" if self.step else "before training"
        return f"{when}: {self.measure} {100 * self.score:.2f} % ({parts}) in {self.seconds:.1f} s"


class Validate(Protocol):
    """What the loop asks of validation (`stages.validation.Validator`). Collective."""

    def is_due(self, position: Position) -> bool:
        """Whether the run must be validated here and has not been."""
        ...

    def __call__(self, position: Position) -> Validation:
        """Validate the weights that are in training, whose checkpoint is written; keep the log and the best."""
        ...


def read_validations(path: Path, *, last_step: int | None = None) -> list[Validation]:
    """The validations of a run so far, up to `last_step`; a line that a crash cut off is left out."""
    rows = [Validation(**row) for row in read_metrics(path)]
    return [row for row in rows if last_step is None or row.step <= last_step]


def write_validations(path: Path, validations: Sequence[Validation]) -> None:
    """The whole log anew, atomically: it is short, and a resumed run drops its end."""
    write_text(path, "".join(json.dumps(asdict(row)) + "\n" for row in validations))


def best_validation(checkpoints: Path, validations: Sequence[Validation]) -> Validation | None:
    """The one with the greatest score (of equal ones the earliest) among those whose checkpoint is there."""
    there = [row for row in validations if (checkpoints / checkpoint_name(row.step)).is_dir()]
    return max(there, key=lambda row: (row.score, -row.step), default=None)


def write_best(
    checkpoints: Path, best: Validation | None, *, weights: Literal["newest", "best"], subset: str
) -> None:
    """Write best.json, or remove it where there is no best.

    Args:
        checkpoints: the run's folder of them.
        best: from `best_validation`.
        weights: the recipe's choice: whether the run hands on its best checkpoint or its newest.
        subset: what was validated on.
    """
    if best is None:
        (checkpoints / BEST_FILE).unlink(missing_ok=True)
        return
    content = {"checkpoint": checkpoint_name(best.step), **asdict(best), "weights": weights, "subset": subset}
    write_json(checkpoints / BEST_FILE, {**content, "note": SELECTION_NOTE})


def read_best(checkpoints: Path) -> Path | None:
    """The best checkpoint so far; None where nothing was validated."""
    best = read_best_file(checkpoints)
    return None if best is None else best.checkpoint


def run_weights(checkpoints: Path, *, choice: Literal["newest", "best"]) -> Path:
    """weights.safetensors of a run's newest or best checkpoint, as it was written. Raises ValueError."""
    if choice == "newest":
        return newest_weights(checkpoints)
    best = read_best(checkpoints)
    if best is None:
        raise ValueError(
            f"{checkpoints} holds no {BEST_FILE}: the run was not validated while training (evaluation.every_epochs); take "
            "the newest weights."
        )
    weights = whole_weights(best)
    if weights is None:
        raise ValueError(
            f"the best checkpoint {best} has no whole weights any more; take the newest weights."
        )
    return weights


def handed_on_weights(checkpoints: Path) -> Path:
    """The weights that a run hands on: those of its best checkpoint where its recipe says so, else of its newest."""
    best = read_best_file(checkpoints)
    takes_best = best is not None and best.is_handed_on
    return run_weights(checkpoints, choice="best" if takes_best else "newest")
