"""Accuracies of classified clips, and what an objective says of itself when it is validated.

Validation is in two steps, so that ranks can share the clips: `measure` gives a row of numbers for each clip of a batch
(NaN for one that could not be decoded), `summarise` makes the scores of all rows, whatever rank they came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from lofi.batches import WindowBatch

VALIDATION_CHUNK_SNIPPETS = 32
"""Snippets encoded together in validation: it must fit wherever training did."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Fractions between 0 and 1."""

    score: float
    """What chooses the best checkpoint; greater is better."""
    details: dict[str, float]


class Measurable(Protocol):
    """An objective that can be validated on clips. An nn.Module."""

    def measure(self, batch: WindowBatch) -> Tensor:
        """(N, M) float64 on the CPU, a row for each clip that the batch makes; NaN where it says nothing."""
        ...

    def summarise(self, rows: Tensor) -> Measured:
        """(N, M), the rows of all windows -> scores."""
        ...


def check_validation(validate_every_epochs: int | None, weights: Literal["newest", "best"]) -> None:
    """Raise ValueError for options of an objective that make no sense together."""
    if validate_every_epochs is not None and validate_every_epochs < 1:
        raise ValueError(
            f"objective.validate_every_epochs is {validate_every_epochs}; it must be at least 1, or null."
        )
    if weights not in ("newest", "best"):
        raise ValueError(f"objective.weights is {weights!r}; it must be newest or best.")
    if weights == "best" and validate_every_epochs is None:
        raise ValueError(
            "objective.weights: best needs validation while training; set objective.validate_every_epochs."
        )


def place_of_label(logits: Tensor, labels: Tensor) -> Tensor:
    """How many other classes score at least as high as the right one.

    Args:
        logits: (N, K).
        labels: (N,) int64.

    Returns:
        (N,) int64; 0 is a right answer, less than 5 is right in the first five. A tie counts as wrong.
    """
    own = logits.gather(1, labels[:, None])
    return (logits >= own).sum(dim=1) - 1


def class_accuracies(labels: Tensor, places: Tensor) -> dict[str, float]:
    """Accuracies of N classified clips.

    Args:
        labels: (N,), N at least 1.
        places: (N,) of `place_of_label`.

    Returns:
        top1, top5, and the mean over the classes that occur of each class's top1.
    """
    is_right = (places == 0).double()
    per_class = [is_right[labels == label].mean() for label in labels.unique()]
    return {
        "top1": float(is_right.mean()),
        "top5": float((places < 5).double().mean()),
        "mean_class": float(torch.stack(per_class).mean()),
    }


def rows_of(columns: Sequence[Tensor], *, is_valid: Tensor) -> Tensor:
    """Columns of (B,) each -> (B, M) float64 on the CPU, NaN where `is_valid` (B,) is False."""
    rows = torch.stack([column.detach().double().cpu() for column in columns], dim=1)
    rows[~is_valid.cpu()] = torch.nan
    return rows


def valid_rows(rows: Tensor) -> Tensor:
    """Those without NaN in their first column. Raises ValueError where there is none."""
    there = rows[~rows[:, 0].isnan()]
    if not len(there):
        raise ValueError(
            f"none of the {len(rows)} validation clips could be used; there is nothing to measure."
        )
    return there
