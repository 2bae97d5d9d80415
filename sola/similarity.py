"""Similarity matching: the self-similarity of a short sequence of features against a fixed target.

Source: SoLa (arXiv:2211.06023), section 3, and its published code, main_simsiam.py. Near snippets shall be alike and far
ones distinct; the distance between two snippets is the only signal, and nothing is labelled.

Shapes: B windows, N gathered positions, D feature width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PROBABILITY_MARGIN = 1e-5
"""Predicted similarities are kept this far from 0 and 1; beyond it they carry no gradient (as in the published code)."""


def target_similarity(distance: Tensor, *, coefficient: float) -> Tensor:
    """What the similarity of two snippets shall be: 1 on the diagonal, sigmoid(c / d^2) elsewhere.

    Args:
        distance: (..., N, N) at least 0, 0 on the diagonal; in gathered steps, or in seconds over a scale.
        coefficient: c.

    Returns:
        (..., N, N) in (0.5, 1].
    """
    squared = distance.square()
    is_self = squared == 0
    target = torch.sigmoid(coefficient / squared.masked_fill(is_self, 1.0))
    return target.masked_fill(is_self, 1.0)


def step_distance(num_positions: int) -> Tensor:
    """|i - j| for N gathered positions: (N, N) float."""
    index = torch.arange(num_positions, dtype=torch.float32)
    return (index[:, None] - index[None, :]).abs()


def predicted_similarity(features: Tensor, projected: Tensor) -> Tensor:
    """(1 + cosine) / 2 of every feature, without gradient, with every projected feature.

    Args:
        features: (B, N, D).
        projected: (B, N, D), what the predictor made of them.

    Returns:
        (B, N, N): row i is the feature that stays, column j the projected one that learns.
    """
    rows = F.normalize(features.detach(), dim=-1)
    columns = F.normalize(projected, dim=-1)
    return (1 + rows @ columns.transpose(1, 2)) / 2


def matching_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross entropy over batch and all N x N cells, the diagonal included: a scalar."""
    clamped = predicted.float().clamp(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return F.binary_cross_entropy(clamped, target.expand_as(clamped))


def entropy_floor(target: Tensor) -> Tensor:
    """The loss of a prediction that equals the target: no prediction is lower. A scalar."""
    cross = torch.special.entr(target) + torch.special.entr(1 - target)
    return cross.mean()
