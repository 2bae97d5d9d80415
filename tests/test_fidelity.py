import pytest

from lofi.fidelity import Fidelity, FidelityConfig, FidelitySchedule, build_schedule

FULL = {"num_snippets": 100, "frames": 8, "height": 224, "width": 224}


def fidelity(*sizes):
    return Fidelity(num_snippets=sizes[0], frames=8, height=sizes[1], width=sizes[1])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("none", (fidelity(100, 224),)),
        ("space", (fidelity(100, 112),)),
        ("time", (fidelity(25, 224),)),
        ("space_time", (fidelity(50, 158),)),
        ("cyclic", (fidelity(100, 112), fidelity(25, 224), fidelity(50, 158))),
    ],
)
def test_reductions_are_those_of_the_paper(reduction, expected):
    assert build_schedule(FidelityConfig(**FULL, reduction=reduction)).fidelities == expected


@pytest.mark.parametrize("reduction", ["space", "time", "space_time"])
def test_each_reduction_keeps_a_quarter_of_the_volume(reduction):
    config = FidelityConfig(**FULL, reduction=reduction)
    share = build_schedule(config).fidelities[0].volume / config.full.volume
    assert share == pytest.approx(0.25, abs=0.002)


def test_long_cycle_switches_every_epoch_and_short_every_sixteen_batches():
    long = build_schedule(FidelityConfig(**FULL, reduction="cyclic"))
    assert [long.at(epoch=e, step=17 * e).num_snippets for e in range(4)] == [100, 25, 50, 100]
    short = build_schedule(FidelityConfig(**FULL, reduction="cyclic", cycle="short"))
    steps = (0, 15, 16, 31, 32, 47, 48)
    assert [short.at(epoch=0, step=s).num_snippets for s in steps] == [100, 100, 25, 25, 50, 50, 100]


def test_cycle_every_lengthens_the_cycle():
    schedule = build_schedule(FidelityConfig(**FULL, reduction="cyclic", cycle_every=2))
    assert [schedule.at(epoch=e, step=0).num_snippets for e in range(5)] == [100, 100, 25, 25, 50]


def test_a_constant_schedule_never_changes():
    schedule = FidelitySchedule(fidelities=(fidelity(7, 9),))
    assert {schedule.at(epoch=e, step=s) for e in range(3) for s in range(5)} == {fidelity(7, 9)}


def test_an_option_without_effect_is_refused():
    with pytest.raises(ValueError, match=r"cycle_every have no effect with reduction: space"):
        FidelityConfig(**FULL, reduction="space", cycle_every=3)


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="height is 0; it must be at least 1"):
        FidelityConfig(num_snippets=1, frames=8, height=0, width=3)
