"""Adapters of VideoMAE: they change nothing at first, and `alone` they are all of the encoder that learns."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from lofi.encoders.build import build_encoder
from lofi.encoders.choices import VideomaeConfig
from lofi.encoders.temporal_adapter import TemporalAdapter
from lofi.encoders.videomae import Videomae
from lofi.encoders.videomae_sizes import Size
from lofi.engine.optimizers import AdamwConfig, build_optimizer
from lofi.fidelity import Fidelity
from lofi.gradients.checkpointed import encode_checkpointed
from lofi.gradients.chunked import encode_chunked
from lofi.gradients.joint import encode_joint
from lofi.memory.made_up_batch import made_up_batch
from lofi.objectives.tac import Classification

SMALL = Size(width=12, depth=2, heads=3)
PATHS = {
    "joint": encode_joint,
    "checkpointed": encode_checkpointed,
    "chunked": partial(encode_chunked, chunk_size=2),
}


def random_frames(num_snippets=3, frames=4, height=32, width=48):
    return torch.randint(0, 256, (num_snippets, 3, frames, height, width), dtype=torch.uint8)


def frames_batch():
    batch = made_up_batch(
        Fidelity(num_snippets=3, frames=4, height=32, width=48), num_windows=2, num_segments=1, num_classes=5
    )
    batch.frames.random_(0, 256)
    return batch


def test_new_adapters_do_not_change_a_feature():
    torch.manual_seed(0)
    plain, adapted = Videomae(SMALL), Videomae(SMALL, has_adapters=True)
    found = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert found.unexpected_keys == []
    assert all(".adapter." in key for key in found.missing_keys)
    frames = random_frames()
    assert torch.equal(adapted(frames), plain(frames))


def test_an_adapter_equals_a_loop_over_positions_and_times():
    torch.manual_seed(0)
    adapter = TemporalAdapter(8).double()
    nn.init.normal_(adapter.up.weight)
    num_times, num_positions = 3, 5
    x = torch.randn(2, num_times * num_positions, 8, dtype=torch.float64)
    h = nn.functional.gelu(adapter.down(x)).unflatten(1, (num_times, num_positions))
    kernel, bias = adapter.temporal.weight[:, 0], adapter.temporal.bias
    expected = x.clone().unflatten(1, (num_times, num_positions))
    for time in range(num_times):
        for position in range(num_positions):
            mixed = bias.clone()
            for tap in range(3):
                if 0 <= time + tap - 1 < num_times:
                    mixed = mixed + kernel[:, tap] * h[:, time + tap - 1, position]
            expected[:, time, position] += adapter.up(h[:, time, position] + adapter.point(mixed))
    torch.testing.assert_close(adapter(x, num_times), expected.flatten(1, 2))


@pytest.mark.parametrize(("adapters", "base_learns"), [("alone", False), ("beside", True)])
def test_what_learns_with_adapters(adapters, base_learns):
    with torch.device("meta"):
        encoder, _ = build_encoder("videomae", VideomaeConfig(size="small", adapters=adapters))
    learns = {name: parameter.requires_grad for name, parameter in encoder.named_parameters()}
    assert sum(".adapter." in name for name in learns) == 12 * 8
    assert all(value is (base_learns or ".adapter." in name) for name, value in learns.items())


@pytest.mark.parametrize("path", PATHS)
def test_adapters_alone_and_the_classifier_are_all_that_trains(path):
    torch.manual_seed(0)
    module = Classification(
        encoder=Videomae(SMALL, has_adapters=True, adapters_alone=True),
        classifier=nn.Linear(SMALL.width, 5),
        encode=PATHS[path],
        label_smoothing=0.0,
    ).train()
    before = copy.deepcopy(module.state_dict())
    optimizer = build_optimizer(module, AdamwConfig(lr=1e-2))
    for _ in range(2):  # at the first step an adapter's last layer, which is zero, moves alone
        optimizer.zero_grad()
        module(frames_batch()).total.backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        learns = ".adapter." in name or name.startswith("classifier.")
        assert (parameter.grad is not None) is learns, name
        assert torch.equal(parameter, before[name]) is not learns, name


def test_adapters_alone_have_the_gradients_that_adapters_beside_have():
    torch.manual_seed(0)
    beside = Videomae(SMALL, has_adapters=True).double()
    for block in beside.blocks:
        nn.init.normal_(block.adapter.up.weight, std=0.1)
    alone = Videomae(SMALL, has_adapters=True, adapters_alone=True).double()
    alone.load_state_dict(beside.state_dict())
    frames = random_frames()
    for encoder in (beside, alone):
        encoder(frames).square().sum().backward()
    for (name, one), other in zip(alone.named_parameters(), beside.parameters(), strict=True):
        if ".adapter." in name:
            torch.testing.assert_close(one.grad, other.grad)
