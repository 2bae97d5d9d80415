"""The temporal shift, against a slow loop and in the limits."""

import pytest
import torch
from reference.temporal_shift_loop import slow_shift_frames

from lofi.encoders.temporal_shift import shift_frames


@pytest.mark.parametrize("num_channels", [8, 17, 24])
@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_shift_equals_the_slow_loop(num_channels, num_frames):
    x = torch.randn(2, num_frames, num_channels, 3, 4)
    assert torch.equal(shift_frames(x, fraction=0.125), slow_shift_frames(x, fold=num_channels // 8))


def test_fraction_zero_shifts_nothing():
    x = torch.randn(2, 3, 8, 4, 5)
    assert torch.equal(shift_frames(x, fraction=0.0), x)


def test_half_the_channels_each_way_leaves_none_unshifted():
    x = torch.randn(2, 3, 8, 4, 5)
    assert torch.equal(shift_frames(x, fraction=0.5), slow_shift_frames(x, fold=4))


def test_shift_does_not_change_its_input():
    x = torch.randn(2, 3, 8, 4, 5)
    before = x.clone()
    shift_frames(x, fraction=0.125)
    assert torch.equal(x, before)
