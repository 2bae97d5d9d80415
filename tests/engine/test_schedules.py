import math

import pytest

from lofi.engine.schedules import ConstantConfig, CosineConfig, StepConfig, rate_factor, step_factor


def test_lofi_schedule_halves_every_five_epochs():
    config = StepConfig()
    factors = [rate_factor(epoch, config, num_epochs=15) for epoch in (0, 4.99, 5, 9.5, 10, 14)]
    assert factors == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_step_schedule_changes_exactly_at_the_epoch_boundary():
    factor = step_factor(StepConfig(every_epochs=1), num_epochs=3, steps_per_epoch=7)
    assert [factor(step) for step in (6, 7, 13, 14)] == [1.0, 0.5, 0.5, 0.25]


def test_rates_fall_at_listed_epochs():
    config = StepConfig(milestones=(4, 6), factor=0.01, warmup_epochs=2)
    factor = step_factor(config, num_epochs=8, steps_per_epoch=3)
    found = [factor(step) for step in (2, 11, 12, 17, 18, 23)]
    assert found == pytest.approx([0.5, 1.0, 0.01, 0.01, 1e-4, 1e-4])


def test_cosine_goes_from_one_through_half_to_its_final_factor():
    config = CosineConfig(warmup_epochs=2, final_factor=0.1)
    assert rate_factor(2, config, num_epochs=10) == 1.0
    assert rate_factor(6, config, num_epochs=10) == pytest.approx(0.55)
    assert rate_factor(10, config, num_epochs=10) == pytest.approx(0.1)


def test_warmup_rises_linearly_and_its_first_step_is_not_zero():
    factor = step_factor(ConstantConfig(warmup_epochs=2), num_epochs=5, steps_per_epoch=4)
    assert [factor(step) for step in range(10)] == pytest.approx([k / 8 for k in range(1, 9)] + [1.0, 1.0])


def test_a_cosine_never_rises_after_its_warmup():
    factor = step_factor(CosineConfig(warmup_epochs=1), num_epochs=4, steps_per_epoch=5)
    factors = [factor(step) for step in range(5, 20)]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] > 0
    assert math.isclose(rate_factor(4, CosineConfig(), num_epochs=4), 0.0, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepConfig(factor=1.5), r"schedule.factor is 1.5; it must lie in \(0, 1\]"),
        (lambda: StepConfig(every_epochs=0), "schedule.every_epochs is 0"),
        (lambda: StepConfig(milestones=(4, 6), every_epochs=5), r"every_epochs \(5\) both say when"),
        (lambda: StepConfig(milestones=(6, 4)), r"schedule.milestones is \[6, 4\]; .* ascending"),
        (lambda: StepConfig(milestones=(0, 4)), r"schedule.milestones is \[0, 4\]; .* at least 1"),
        (lambda: CosineConfig(warmup_epochs=-1), "schedule.warmup_epochs is -1; it must not be negative"),
    ],
)
def test_impossible_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
