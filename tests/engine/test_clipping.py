"""Gradients clipped by the norm that the loop has taken already, at ZeRO stage 0, against plain PyTorch."""

import pytest
import torch
from torch import nn

from lofi.engine import deepspeed_engine

LR = 0.1


def two_layers():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).requires_grad_(True)


def batches(count):
    return list(torch.randn(count, 2, 5, generator=torch.Generator().manual_seed(1)))


def plain_weights(inputs, *, clipping, accumulated):
    """Weights after the steps, and the norm before clipping of each."""
    module, norms = two_layers(), []
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    for place, x in enumerate(inputs):
        (module(x).square().sum() / accumulated).backward()
        if (place + 1) % accumulated == 0:
            most = clipping or float("inf")
            norms.append(float(nn.utils.clip_grad_norm_(module.parameters(), most)))
            optimizer.step()
            optimizer.zero_grad()
    return module.state_dict(), norms


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("clipping", [0.25, 1e6, 0.0])
def test_a_clipped_step_is_that_of_plain_pytorch(clipping, accumulated):
    deepspeed_engine.start_ranks()
    module = two_layers()
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    engine = deepspeed_engine.build_engine(
        module,
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        micro_batch_size=2,
        gradient_clipping=clipping,
        autocast_section={},
        block={"gradient_accumulation_steps": accumulated},
    )
    inputs = batches(4)
    norms = []
    for x in inputs:
        engine.backward(engine(x).square().sum())
        norm = deepspeed_engine.gradient_norm_before_step(engine)
        norms.append(norm)
        assert not deepspeed_engine.step(engine, norm=norm, gradient_clipping=clipping)
    expected, expected_norms = plain_weights(inputs, clipping=clipping, accumulated=accumulated)
    assert norms[accumulated - 1 :: accumulated] == expected_norms
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, expected[name])
    deepspeed_engine.close_engine(engine)
