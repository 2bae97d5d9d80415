"""The target, its floor and the loss against a loop over cells."""

import math

import pytest
import torch

from sola.similarity import (
    entropy_floor,
    matching_loss,
    predicted_similarity,
    step_distance,
    target_similarity,
)


def test_the_published_target_and_its_entropy_floor():
    target = target_similarity(step_distance(8), coefficient=16.0)
    assert torch.equal(target, target.T)
    assert target[0].tolist() == pytest.approx(
        [1.0, 1.0, 0.9820, 0.8554, 0.7311, 0.6548, 0.6093, 0.5809], abs=1e-4
    )
    assert float(entropy_floor(target)) == pytest.approx(0.2777, abs=1e-4)


def test_a_prediction_that_equals_the_target_costs_the_floor_and_any_other_more():
    target = target_similarity(step_distance(5), coefficient=3.0)
    floor = float(entropy_floor(target))
    assert float(matching_loss(target[None], target)) == pytest.approx(floor, abs=1e-4)
    assert float(matching_loss(torch.full((2, 5, 5), 0.9), target)) > floor


def test_the_loss_equals_a_loop_over_cells():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 3, generator=generator)
    projected = torch.randn(2, 4, 3, generator=generator)
    target = target_similarity(step_distance(4), coefficient=16.0)
    loss = float(matching_loss(predicted_similarity(features, projected), target))
    cells = []
    for b in range(2):
        for i in range(4):
            for j in range(4):
                cosine = float(torch.cosine_similarity(features[b, i], projected[b, j], dim=0))
                p = min(max((1 + cosine) / 2, 1e-5), 1 - 1e-5)
                t = 1.0 if i == j else 1 / (1 + math.exp(-16.0 / (i - j) ** 2))
                cells.append(-t * math.log(p) - (1 - t) * math.log(1 - p))
    assert loss == pytest.approx(sum(cells) / len(cells), rel=1e-5)


def test_no_gradient_reaches_the_features_that_stay():
    features = torch.randn(1, 3, 2, requires_grad=True)
    projected = torch.randn(1, 3, 2, requires_grad=True)
    matching_loss(predicted_similarity(features, projected), torch.full((3, 3), 0.7)).backward()
    assert features.grad is None
    assert projected.grad.abs().max() > 0
