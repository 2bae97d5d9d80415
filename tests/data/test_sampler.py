from dataclasses import replace
from itertools import chain

import pytest
import torch

from lofi.data.decode import DecodeError
from lofi.data.frame_windows import FrameWindows
from lofi.data.grid import GridConfig
from lofi.data.sampler import BatchPlan, PredictionPlan, build_loader
from lofi.data.samples import SampleKey
from lofi.fidelity import Fidelity, FidelityConfig, FidelitySchedule, build_schedule
from lofi.segments import Window

FULL = Fidelity(num_snippets=8, frames=2, height=12, width=20)
CYCLIC = build_schedule(
    FidelityConfig(
        num_snippets=8, frames=2, height=12, width=20, reduction="cyclic", cycle="short", cycle_every=2
    )
)


def plan(num_windows=23, batch_size=6, **keys):
    return BatchPlan(num_windows=num_windows, batch_size=batch_size, schedule=CYCLIC, **{"seed": 5, **keys})


def indices(batches):
    return [[key.index for key in batch] for batch in batches]


def test_an_epoch_has_distinct_windows_in_full_batches_and_each_epoch_another_order():
    epochs = [indices(plan().batches(epoch=epoch)) for epoch in range(4)]
    for batches in epochs:
        flat = list(chain(*batches))
        assert [len(batch) for batch in batches] == [6, 6, 6]
        assert len(set(flat)) == 18
        assert set(flat) <= set(range(23))
    assert len({str(batches) for batches in epochs}) == 4
    assert set(chain(*chain(*epochs))) == set(range(23))


def test_the_same_seed_gives_the_same_batches_and_another_seed_others():
    assert list(plan().batches(epoch=3)) == list(plan().batches(epoch=3))
    assert indices(plan(seed=6).batches(epoch=3)) != indices(plan().batches(epoch=3))


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_ranks_share_each_global_batch(world_size):
    whole = indices(plan().batches(epoch=2))
    shares = [indices(plan(rank=rank, world_size=world_size).batches(epoch=2)) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        assert list(chain(*(share[step] for share in shares))) == batch


@pytest.mark.parametrize("first_batch", [0, 1, 2, 3])
def test_a_resumed_epoch_is_the_rest_of_the_epoch(first_batch):
    assert (
        list(plan().batches(epoch=1, first_batch=first_batch)) == list(plan().batches(epoch=1))[first_batch:]
    )


def test_fidelity_follows_the_schedule_over_the_whole_run():
    fidelities = []
    for epoch in range(5):
        for batch in plan().batches(epoch=epoch):
            assert len({key.fidelity for key in batch}) == 1
            assert all(key.training and key.epoch == epoch for key in batch)
            fidelities.append(batch[0].fidelity)
    assert fidelities == [CYCLIC.at(epoch=0, step=step) for step in range(15)]
    assert fidelities[:5] == [CYCLIC.fidelities[i] for i in (0, 0, 1, 1, 2)]


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"world_size": 4}, "batch size 6 cannot be shared evenly by 4 ranks; take a multiple of 4"),
        ({"num_windows": 5}, "batch size 6 is larger than the 5 training windows"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"rank": 2, "world_size": 2}, "rank is 2"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(keys, match):
    with pytest.raises(ValueError, match=match):
        plan(**keys)


def prediction_plans(sizes, world_size):
    """The plans of all ranks for videos with so many windows each."""
    videos = [f"video_{number}" for number, size in enumerate(sizes) for _ in range(size)]
    return videos, [
        PredictionPlan(videos=videos, batch_size=3, fidelity=FULL, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("sizes", [[], [1], [1] * 5, [1] * 12, [7, 1, 1, 2, 4, 1]])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_prediction_takes_every_window_once_in_the_batches_of_one_rank(sizes, world_size):
    videos, plans = prediction_plans(sizes, world_size)
    batches = [list(one.batches()) for one in plans]
    everything = sorted(chain(*map(indices, batches)))
    assert list(chain(*everything)) == list(range(len(videos)))
    (alone,) = prediction_plans(sizes, 1)[1]
    assert everything == indices(alone.batches())
    assert [sum(map(len, share)) for share in batches] == [one.num_windows for one in plans]
    assert not any(key.training for share in batches for batch in share for key in batch)


def test_prediction_gives_each_rank_whole_videos_and_about_as_many_windows():
    videos, plans = prediction_plans([7, 1, 1, 2, 4, 1, 6, 3], 3)
    shares = [{videos[key.index] for batch in one.batches() for key in batch} for one in plans]
    assert sum(map(len, shares)) == len(set(videos))
    assert sorted(one.num_windows for one in plans) == [7, 8, 10]


@pytest.fixture
def windows():
    return [
        Window(video=video, start_sec=start, end_sec=start + 1.5, video_duration_sec=duration)
        for video, duration in (("long", 4.0), ("short", 2.3))
        for start in (0.0, 0.4, 0.8)
    ]


def make_dataset(windows, paths, **keys):
    return FrameWindows(windows, paths, grid=GridConfig(), seed=3, flip=True, **keys)


def test_workers_make_the_same_batches_in_the_same_order(windows, numbered_videos):
    data = make_dataset(windows, numbered_videos)
    batch_plan = plan(num_windows=6, batch_size=2)
    alone = list(build_loader(data, batch_plan.batches(epoch=0), workers=0))
    shared = list(build_loader(data, batch_plan.batches(epoch=0), workers=2))
    assert len(alone) == len(shared) == 3
    for one, other in zip(alone, shared, strict=True):
        assert one.windows == other.windows
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.mask, other.mask)
    assert alone[0].frames.shape != alone[2].frames.shape


@pytest.mark.parametrize("workers", [0, 1])
def test_a_decode_error_keeps_its_type_and_name_through_the_loader(
    windows, numbered_videos, tmp_path, workers
):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing" * 30)
    data = make_dataset([*windows, replace(windows[0], video="bad")], {**numbered_videos, "bad": broken})
    keys = [[SampleKey(index=0, fidelity=FULL)], [SampleKey(index=6, fidelity=FULL)]]
    batches = build_loader(data, keys, workers=workers)
    assert next(batches).windows[0].video == "long"
    with pytest.raises(DecodeError, match="^bad cannot be decoded") as caught:
        next(batches)
    assert caught.value.video == "bad"


def test_constant_schedule_gives_one_fidelity():
    constant = BatchPlan(num_windows=4, batch_size=2, schedule=FidelitySchedule(fidelities=(FULL,)), seed=0)
    assert {key.fidelity for batch in constant.batches(epoch=7) for key in batch} == {FULL}


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_random_state_alone(windows, numbered_videos, workers):
    before = torch.get_rng_state()
    list(
        build_loader(
            make_dataset(windows, numbered_videos), plan(num_windows=6).batches(epoch=0), workers=workers
        )
    )
    assert torch.equal(torch.get_rng_state(), before)
