from dataclasses import replace

import pytest
import torch
from torch import nn

from lofi.engine import deepspeed_engine
from lofi.engine.precision import autocast_section
from lofi.memory.zero_states import partition_states, read_zero, sent_bytes_of

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
        ({"stage": 3, "reduce_bucket_size": 7}, 28),
    ],
)
def test_the_bucket_is_what_the_engine_lets_deepspeed_allocate(section, expected):
    assert read_zero({"zero_optimization": section}, world_size=2).bucket_bytes(P) == expected


def two_linears_and_a_norm():
    return nn.Sequential(nn.Linear(30, 50), nn.LayerNorm(50), nn.Linear(50, 7))


@pytest.mark.parametrize(
    ("autocasts", "trains_norms", "expected"), [(True, True, {2, 4}), (True, False, {2}), (False, True, {4})]
)
def test_under_autocast_gradients_of_linear_layers_travel_in_half(autocasts, trains_norms, expected):
    module = two_linears_and_a_norm()
    trained = [p for each in module for p in each.parameters() if trains_norms or isinstance(each, nn.Linear)]
    assert sent_bytes_of(module, trained=trained, autocasts=autocasts) == expected


@pytest.mark.parametrize(("stage", "expected"), [(1, 56), (2, 56), (3, 42)])
def test_every_type_in_which_gradients_travel_has_a_bucket(stage, expected):
    zero = read_zero({"zero_optimization": {"stage": stage, "reduce_bucket_size": 7}}, world_size=2)
    assert replace(zero, sent_bytes=frozenset({2, 4})).bucket_bytes(P) == expected


@pytest.mark.parametrize(("precision", "overlaps"), [("fp32", False), ("bf16", True)])
def test_the_engine_holds_the_buckets_that_the_formula_says(precision, overlaps):
    """Stage 2 on a CPU, read while the backward pass ends."""
    deepspeed_engine.start_ranks()
    module = two_linears_and_a_norm()
    optimizer = torch.optim.AdamW(module.parameters())
    block = {"zero_optimization": {"stage": 2, "overlap_comm": overlaps}}
    sent = sent_bytes_of(module, trained=module.parameters(), autocasts=precision != "fp32")
    zero = replace(read_zero(block, world_size=1), sent_bytes=sent)
    engine = deepspeed_engine.build_engine(
        module,
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        micro_batch_size=2,
        gradient_clipping=0.0,
        autocast_section=autocast_section(precision),
        block=block,
    )
    held = []

    def read(gradient):
        buckets = engine.optimizer.ipg_buckets.values()
        held.append(sum(buffer.nbytes for bucket in buckets for buffer in bucket.buffer))

    x = torch.randn(2, 30, requires_grad=True)
    x.register_hook(read)
    engine.backward(engine(x).sum())
    assert held == [zero.bucket_bytes(sum(p.numel() for p in module.parameters()))]
