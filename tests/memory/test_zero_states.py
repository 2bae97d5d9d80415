import pytest

from lofi.memory.zero_states import partition_states, read_zero

P = 1000
STATES = {"trained_elements": P, "parameters": 4 * P + 80, "gradients": 4 * P, "optimizer": 8 * P}


def states(world_size, **section):
    zero = read_zero({"zero_optimization": section}, world_size=world_size)
    found = partition_states(zero, **STATES)
    return found.parameters, found.gradients, found.optimizer


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (0, (4080, 4000, 8000)),
        (1, (4080, 4000, 3000)),
        (2, (4080, 1000, 3000)),
        (3, (1080 + 4000, 1000, 2000)),
    ],
)
def test_each_stage_shares_one_kind_more_by_four_ranks(stage, expected):
    assert states(4, stage=stage) == expected


def test_offload_takes_the_optimizer_from_the_device():
    assert states(2, stage=2, offload_optimizer={"device": "cpu"})[2] == 0
    assert states(2, stage=2, offload_optimizer={"device": "none"})[2] == 6000


def test_stage_3_holds_no_more_gathered_weights_than_allowed():
    assert states(4, stage=3, stage3_max_live_parameters=100)[0] == 80 + 1000 + 400


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"stage": 0}, 0),
        ({"stage": 1}, 4 * P),
        ({"stage": 2, "reduce_bucket_size": 7}, 28),
        ({"stage": 2, "reduce_bucket_size": 7, "overlap_comm": True}, 56),
        ({"stage": 3, "reduce_bucket_size": 7}, 56),
    ],
)
def test_the_bucket_is_what_the_engine_lets_deepspeed_allocate(section, expected):
    assert read_zero({"zero_optimization": section}, world_size=2).bucket_bytes(P) == expected
