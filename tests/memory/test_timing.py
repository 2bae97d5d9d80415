"""Seconds of a step by part."""

import itertools

import pytest
import torch

from lofi.memory.timing import PARTS, StepClock, transfer_seconds


def test_parts_sum_to_the_step_and_what_lies_between_is_other():
    ticks = itertools.count(step=1.0)
    clock = StepClock(device=torch.device("cpu"), now=lambda: next(ticks))
    for _ in range(3):
        with clock.step():
            with clock.part("data"):
                pass
            with clock.part("forward"):
                clock.now()
            with clock.part("backward"):
                pass
    parts = clock.seconds_per_step()
    assert tuple(parts) == PARTS
    assert sum(parts.values()) == pytest.approx(clock.seconds / 3)
    assert parts == {"data": 1.0, "forward": 2.0, "backward": 1.0, "optimizer": 0.0, "other": 4.0}


def test_nothing_is_transferred_to_a_cpu():
    assert transfer_seconds([torch.zeros(3, 2)], device=torch.device("cpu")) is None
