"""Checkpoints of another version of the package are refused with what differs; those of this one are not."""

import re

import pytest
import torch
from torch import nn

from lofi.engine import deepspeed_engine
from lofi.engine.checkpoint import Position, load_checkpoint, save_checkpoint
from lofi.engine.optimizers import AdamwConfig, build_optimizer


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(3, 2)
        self.head = nn.BatchNorm1d(2)

    def forward(self, rows):
        return self.head(self.encoder(rows)).square().mean()


def in_one_group(module):
    """As an older version made it, which decayed everything."""
    return torch.optim.AdamW([{"name": "encoder", "params": list(module.parameters())}])


def in_groups_of_today(module):
    return build_optimizer(module, AdamwConfig())


def engine_of(module, *, stage, make_optimizer):
    deepspeed_engine.start_ranks()
    optimizer = make_optimizer(module)
    return deepspeed_engine.build_engine(
        module,
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        micro_batch_size=4,
        gradient_clipping=0.0,
        autocast_section={},
        block={"zero_optimization": {"stage": stage}},
    )


@pytest.fixture
def saved(tmp_path):
    """A function: (module, stage, optimizer) -> its checkpoint."""

    def save(module, **options):
        engine = engine_of(module, **options)
        position = Position(epoch=1, batch=0, step=2)
        checkpoint = save_checkpoint(engine, tmp_path, position=position, keep=1, metadata={})
        deepspeed_engine.close_engine(engine)
        return checkpoint

    return save


def refusal(engine, checkpoint):
    with pytest.raises(ValueError, match=r"cannot be resumed") as caught:
        load_checkpoint(engine, checkpoint)
    deepspeed_engine.close_engine(engine)
    assert "Start a new run from its weights.safetensors" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_other_optimizer_groups_are_refused(stage, saved):
    checkpoint = saved(Tiny(), stage=stage, make_optimizer=in_one_group)
    engine = engine_of(Tiny(), stage=stage, make_optimizer=in_groups_of_today)
    message = refusal(engine, checkpoint)
    before, now = re.findall(r"\((\d) tensors?\)", message)[:1], re.findall(r"\((\d) tensors?\)", message)[1:]
    assert (before, now) == (["4"], ["1", "1", "2"])
    assert "buffers" not in message


def test_buffers_that_a_checkpoint_lacks_or_has_too_many_are_refused(saved):
    module = Tiny()
    module.register_buffer("earlier", torch.zeros(5), persistent=False)
    checkpoint = saved(module, stage=0, make_optimizer=in_groups_of_today)
    module = Tiny()
    module.register_buffer("moments", torch.zeros(2, 3), persistent=False)
    message = refusal(engine_of(module, stage=0, make_optimizer=in_groups_of_today), checkpoint)
    assert "it lacks the buffers moments [2, 3];" in message
    assert "it holds the buffers earlier [5], which this version does not have" in message
    assert "optimizer" not in message


@pytest.mark.parametrize("stage", [0, 2])
def test_a_checkpoint_of_this_version_goes_on(stage, saved):
    checkpoint = saved(Tiny(), stage=stage, make_optimizer=in_groups_of_today)
    engine = engine_of(Tiny(), stage=stage, make_optimizer=in_groups_of_today)
    assert load_checkpoint(engine, checkpoint).step == 2
    deepspeed_engine.close_engine(engine)
