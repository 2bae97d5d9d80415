"""A counted step told by kind, phase and operation."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lofi.gradients import offload
from lofi.gradients.offload import saved_on_host
from lofi.memory.counting import KINDS, LiveTensorCount
from lofi.memory.fake import fake_tensors
from lofi.memory.timeline import replay, storage_kinds

FLOAT = 4


def count_step(module, x, *, forward, optimizer=None):
    parameters = list(module.parameters())
    with LiveTensorCount(
        device_type="cpu",
        kinds={"parameters": parameters, "inputs": [x]},
        gradients=lambda: [p.grad for p in parameters if p.grad is not None],
    ) as count:
        forward(module, x).sum().backward()
        if optimizer is not None:
            optimizer.step()
    return count


def two_layers():
    return nn.Sequential(nn.Linear(30, 50, bias=False), nn.Tanh(), nn.Linear(50, 7, bias=False))


def test_kinds_sum_to_the_peak_and_no_kind_is_lost():
    timeline = replay(count_step(two_layers(), torch.ones(20, 30), forward=lambda m, x: m(x)))
    assert tuple(timeline.bytes_at_peak) == KINDS
    assert sum(timeline.bytes_at_peak.values()) == timeline.peak_bytes
    assert timeline.bytes_at_peak["parameters"] == (30 * 50 + 50 * 7) * FLOAT
    assert timeline.bytes_at_peak["inputs"] == 20 * 30 * FLOAT


def test_activations_are_what_the_forward_pass_leaves():
    """The two outputs of linear and tanh: tanh keeps its own, the first linear's is freed before the last layer ends."""
    count = count_step(two_layers(), torch.ones(20, 30), forward=lambda m, x: m(x))
    timeline = replay(count)
    start = next(mark.start for mark in timeline.curve.phases if mark.name == "backward")
    before = max(place for place, operation in enumerate(timeline.curve.operations) if operation <= start)
    kept = timeline.curve.live_bytes["activations"][before]
    assert 20 * 50 * FLOAT <= kept <= (20 * 50 + 20 * 7 + 2) * FLOAT


def test_gradients_are_known_from_where_they_were_made():
    module = two_layers()
    timeline = replay(count_step(module, torch.ones(20, 30), forward=lambda m, x: m(x)))
    assert timeline.curve.live_bytes["gradients"][-1] == (30 * 50 + 50 * 7) * FLOAT
    assert max(timeline.curve.live_bytes["gradients"]) == (30 * 50 + 50 * 7) * FLOAT


def test_recomputed_activations_are_activations_of_the_backward_pass():
    def forward(module, x):
        return checkpoint(module, x, use_reentrant=False)

    timeline = replay(count_step(two_layers(), torch.ones(20, 30), forward=forward))
    start = next(mark.start for mark in timeline.curve.phases if mark.name == "backward")
    activations = zip(timeline.curve.operations, timeline.curve.live_bytes["activations"], strict=True)
    in_forward = [num_bytes for operation, num_bytes in activations if operation < start]
    assert max(in_forward) < 20 * 50 * FLOAT <= max(timeline.curve.live_bytes["activations"])


def test_states_that_an_optimizer_makes_show_in_its_phase():
    module = two_layers()
    optimizer = torch.optim.AdamW(module.parameters(), foreach=True)
    count = count_step(module, torch.ones(2, 30), forward=lambda m, x: m(x), optimizer=optimizer)
    timeline = replay(count)
    assert [mark.name for mark in timeline.curve.phases] == ["forward", "backward", "optimizer"]
    assert timeline.peak_phase == "optimizer"
    assert timeline.phase_peak_bytes["optimizer"] == timeline.peak_bytes == count.peak_bytes


def test_a_thinned_curve_keeps_the_peak():
    count = count_step(two_layers(), torch.ones(20, 30), forward=lambda m, x: m(x))
    whole, thinned = replay(count), replay(count, most_points=5)
    assert len(thinned.curve.operations) == 5 < len(whole.curve.operations)
    totals = [sum(values) for values in zip(*thinned.curve.live_bytes.values(), strict=True)]
    assert max(totals) == whole.peak_bytes == thinned.peak_bytes


def test_a_step_without_tensors_is_refused():
    with LiveTensorCount(device_type="cpu") as count:
        pass
    with pytest.raises(ValueError, match=r"no tensor was counted"):
        replay(count)


def test_what_was_there_before_the_step_is_an_input_though_nobody_said_so():
    frames = torch.ones(20, 30, dtype=torch.uint8)
    module = nn.Linear(30, 50)
    with LiveTensorCount(device_type="cpu", kinds={"parameters": module.parameters()}) as count:
        module(frames.view(4, 5, 30).float()).sum().backward()
    assert max(replay(count).curve.live_bytes["inputs"]) == 20 * 30


def test_activations_that_come_back_from_the_host_are_activations_and_copied_frames_inputs(monkeypatch):
    monkeypatch.setattr(offload, "LEAST_BYTES", 0)
    with fake_tensors():
        module, frames = two_layers(), torch.zeros(20, 30, device="meta")
        with LiveTensorCount(device_type="cpu", kinds={"parameters": module.parameters()}) as count:
            x = frames.to("cpu")
            with saved_on_host(frames.device):
                y = checkpoint(module[2], torch.tanh(module[0](x)), use_reentrant=False)
            y.sum().backward()
    copies = [index for index, made in enumerate(count.made) if made.comes_from_host]
    kinds = storage_kinds(count)
    assert [kinds[index] for index in copies[:1]] == ["inputs"]
    assert len(copies) > 1
    assert {kinds[index] for index in copies[1:]} == {"activations"}
