"""TAC: cross entropy of a linear layer over one feature per clip; windows without a label carry no loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lofi.batches import WindowBatch
from lofi.gradients.joint import encode_joint
from lofi.objectives.tac import TacConfig, build_tac
from lofi.protocols import call_block
from lofi.segments import Targets, Window

B, L, C, T, H, W, D, K = 3, 2, 3, 4, 5, 6, 7, 8


class MeanEncoder(nn.Module):
    """frames (N, C, T, H, W) -> (N, D): a linear layer on the mean colour. Notes what it was called with."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(C, D).double()
        self.seeds = []

    def forward(self, frames, *, snippet_seeds=None, run_block=call_block):
        self.seeds.append(snippet_seeds)
        return self.linear(frames.double().mean(dim=(2, 3, 4)) / 255)


def clip_batch(labels):
    """One window per label; None is a window that could not be decoded."""
    generator = torch.Generator().manual_seed(3)
    window = Window(video="v", start_sec=0.0, end_sec=1.0, video_duration_sec=1.0)
    return WindowBatch(
        windows=(window,) * len(labels),
        targets=tuple(
            Targets(
                segments=torch.zeros(0 if label is None else 1, 2),
                labels=torch.tensor([] if label is None else [label], dtype=torch.int64),
            )
            for label in labels
        ),
        mask=torch.tensor([[label is not None] * L for label in labels]),
        frames=torch.randint(0, 256, (len(labels), L, C, T, H, W), dtype=torch.uint8, generator=generator),
    )


@pytest.fixture
def tac():
    torch.manual_seed(5)

    def make(**options):
        module = build_tac(
            TacConfig(**options), encoder=MeanEncoder(), encode=encode_joint, feature_width=D, num_classes=K
        )
        return module.double()

    return make


def slow_loss(module, batch, *, smoothing=0.0):
    """Clip by clip: the mean feature of its snippets, a linear layer, cross entropy."""
    losses = []
    for index, targets in enumerate(batch.targets):
        if len(targets.labels) == 0:
            continue
        feature = module.encoder(batch.frames[index]).mean(dim=0)
        log_shares = F.log_softmax(module.classifier(feature), dim=0)
        wanted = torch.full((K,), smoothing / K, dtype=torch.float64)
        wanted[targets.labels[0]] += 1 - smoothing
        losses.append(-(wanted * log_shares).sum())
    return sum(losses) / max(1, len(losses))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_a_loop_over_clips(smoothing, tac):
    module = tac(label_smoothing=smoothing)
    batch = clip_batch([0, 5, 7])
    losses = module(batch)
    assert losses.total.item() == pytest.approx(
        slow_loss(module, batch, smoothing=smoothing).item(), rel=1e-6
    )
    assert losses.parts["classification"].item() == losses.total.item()
    assert not losses.parts["classification"].requires_grad


def test_windows_without_a_label_change_neither_loss_nor_accuracy(tac):
    module = tac()
    whole = clip_batch([2, None, 6])
    keep = [0, 2]
    alone = WindowBatch(
        windows=tuple(whole.windows[index] for index in keep),
        targets=tuple(whole.targets[index] for index in keep),
        mask=whole.mask[keep],
        frames=whole.frames[keep],
    )
    first, second = module(whole), module(alone)
    assert first.total.item() == pytest.approx(second.total.item(), rel=1e-6)
    assert first.parts["accuracy"].item() == second.parts["accuracy"].item()


def test_a_batch_without_any_label_has_no_loss_and_a_zero_gradient(tac):
    module = tac()
    losses = module(clip_batch([None, None]))
    losses.total.backward()
    assert losses.total.item() == 0.0
    assert losses.parts["accuracy"].item() == 0.0
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert (parameter.grad == 0).all()


def test_accuracy_is_the_share_of_right_clips(tac):
    module = tac()
    batch = clip_batch([0, 1, 2])
    with torch.no_grad():
        module.classifier.weight.zero_()
        module.classifier.bias.copy_(torch.arange(K, 0, -1))
    assert module(batch).parts["accuracy"].item() == pytest.approx(1 / 3)
    assert module(clip_batch([0, 0, None])).parts["accuracy"].item() == 1.0


def test_first_losses_are_near_those_of_a_guess(tac):
    module = tac()
    with torch.no_grad():
        module.classifier.weight.zero_()
        module.classifier.bias.zero_()
    assert module(clip_batch([1, 4])).total.item() == pytest.approx(math.log(K))


def test_dropout_has_seeds_in_training_and_none_in_evaluation(tac):
    module = tac()
    module.train()(clip_batch([1, 2, 3]))
    assert module.encoder.seeds[-1].shape == (B * L,)
    module.eval()(clip_batch([1, 2, 3]))
    assert module.encoder.seeds[-1] is None


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_label_smoothing_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match=rf"objective\.label_smoothing is {value}; it must lie in \[0, 1\)"):
        TacConfig(label_smoothing=value)
