"""A linear probe: multinomial logistic regression on frozen features.

Features are standardised by the training snippets' mean and deviation; the weights have an L2 penalty; L-BFGS finds the optimum,
so that no learning rate or number of epochs decides, and the result follows from the features alone. (SoLa's own linear
evaluation, by SGD in its published setting, is `sola.linear_evaluation`; the two do not give the same numbers.)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTY = 1e-3
"""Of half the squared weights, beside the mean cross entropy."""
MAX_ITERATIONS = 200


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """Fractions between 0 and 1, on the validation snippets."""

    accuracy: float
    balanced_accuracy: float
    """Mean over the classes that occur there of each one's accuracy."""
    chance: float
    """Balanced accuracy of any constant answer: 1 / classes that occur."""
    num_training: int
    """Snippets."""
    num_validation: int


def probe_linearly(
    training: Tensor, training_labels: Tensor, validation: Tensor, validation_labels: Tensor
) -> LinearProbe:
    """Fit on the training snippets, measure on the others.

    Args:
        training: (N, D).
        training_labels: (N,) int64, at least 0.
        validation: (M, D).
        validation_labels: (M,) int64.

    Raises:
        ValueError: no snippets, or training snippets of one class alone.
    """
    if not len(training) or not len(validation):
        raise ValueError(
            f"there are {len(training)} training and {len(validation)} validation snippets to probe; both are needed."
        )
    num_classes = int(max(training_labels.max(), validation_labels.max())) + 1
    if len(training_labels.unique()) < 2:
        raise ValueError("all training snippets are of one class; there is nothing to tell apart.")
    mean, deviation = training.mean(dim=0), training.std(dim=0).clamp(min=1e-6)
    weight, bias = _fit((training - mean) / deviation, training_labels, num_classes=num_classes)
    logits = (validation - mean) / deviation @ weight.T + bias
    is_right = (logits.argmax(dim=1) == validation_labels).double()
    classes = validation_labels.unique()
    per_class = [is_right[validation_labels == label].mean() for label in classes]
    return LinearProbe(
        accuracy=float(is_right.mean()),
        balanced_accuracy=float(torch.stack(per_class).mean()),
        chance=1 / len(classes),
        num_training=len(training),
        num_validation=len(validation),
    )


def _fit(features: Tensor, labels: Tensor, *, num_classes: int) -> tuple[Tensor, Tensor]:
    """(K, D) and (K,)."""
    weight = torch.zeros(num_classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = F.cross_entropy(features @ weight.T + bias, labels) + PENALTY / 2 * weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return weight.detach(), bias.detach()
