"""Logs -> thinned curves."""

import numpy as np

from lofi.report.loss_curves import thin


def test_thinning_keeps_the_mean_of_each_group() -> None:
    steps, values = thin(np.arange(6.0), np.array([1.0, 3.0, 5.0, 7.0, 2.0, 4.0]), most=3)
    assert steps.tolist() == [0.5, 2.5, 4.5]
    assert values.tolist() == [2.0, 6.0, 3.0]


def test_thinning_uses_every_step_where_the_groups_are_uneven() -> None:
    for length in range(4, 30):
        steps, values = thin(np.arange(float(length)), np.ones(length), most=4)
        assert len(steps) == 4
        assert values.tolist() == [1.0] * 4


def test_a_short_curve_is_left_as_it_is() -> None:
    steps, values = thin(np.array([0.0, 1.0]), np.array([5.0, 4.0]), most=3)
    assert (steps.tolist(), values.tolist()) == ([0.0, 1.0], [5.0, 4.0])
