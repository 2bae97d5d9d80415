"""Every gradient path on one small float64 encoder with dropout: equal where it claims to be exact."""

from functools import partial

import pytest
import torch
from torch import nn

from lofi.encoders.dropout import SnippetDropout
from lofi.gradients.checkpointed import encode_checkpointed
from lofi.gradients.chunked import encode_chunked
from lofi.gradients.detached import encode_detached
from lofi.gradients.joint import encode_joint
from lofi.gradients.sampled import encode_sampled
from lofi.protocols import call_block

B, L, C, T, H, W, D = 2, 5, 3, 4, 6, 7, 8


class SmallEncoder(nn.Module):
    """Two blocks, dropout after each; frames (N, C, T, H, W) uint8 -> (N, D)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(C, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.GELU())
        self.second = nn.Sequential(nn.Conv3d(4, D, 3, padding=1), nn.Tanh())
        self.dropout = SnippetDropout(0.4)
        self.batch_sizes = []
        self.seen_blocks = 0

    def forward(self, frames, *, snippet_seeds=None, run_block=call_block):
        self.batch_sizes.append(len(frames))
        x = frames.to(self.first[0].weight.dtype) / 255
        for block in (self.first, self.second):
            x = run_block(block, x)
            self.seen_blocks += 1
        return self.dropout(x.mean(dim=(2, 3, 4)), snippet_seeds=snippet_seeds)


@pytest.fixture
def setting():
    torch.manual_seed(3)
    encoder = SmallEncoder().double().train()
    frames = torch.randint(0, 256, (B, L, C, T, H, W), dtype=torch.uint8)
    seeds = torch.randint(2**62, (B, L))
    weight = torch.randn(B, L, D, dtype=torch.float64)
    return encoder, frames, seeds, weight


def loss_and_gradients(encode, setting):
    encoder, frames, seeds, weight = setting
    encoder.zero_grad()
    encoder.batch_sizes.clear()
    features = encode(encoder, frames, snippet_seeds=seeds)
    loss = ((features * weight).cumsum(dim=1) ** 2).sum()
    if loss.requires_grad:
        loss.backward()
    return loss.detach(), {
        n: None if p.grad is None else p.grad.clone() for n, p in encoder.named_parameters()
    }


EXACT = {
    "checkpointed": encode_checkpointed,
    "checkpointed_offloaded": partial(encode_checkpointed, offload=True),
    **{f"chunked_{size}": partial(encode_chunked, chunk_size=size) for size in (1, 3, B * L, 64)},
    "chunked_checkpointed": partial(encode_chunked, chunk_size=4, checkpoint_blocks=True),
    "sampled_at_share_one": partial(encode_sampled, chunk_size=3, share=1.0),
    "sampled_recomputed_at_share_one": partial(encode_sampled, chunk_size=3, share=1.0, recompute=True),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_paths_equal_joint_with_dropout_on(name, setting):
    loss, expected = loss_and_gradients(encode_joint, setting)
    other_loss, gradients = loss_and_gradients(EXACT[name], setting)
    assert other_loss == pytest.approx(loss.item(), rel=1e-13)
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[parameter], rtol=1e-11, atol=1e-12)


def test_dropout_changes_the_gradients_so_the_equality_means_something(setting):
    _, expected = loss_and_gradients(encode_joint, setting)
    encoder, frames, seeds, weight = setting
    _, others = loss_and_gradients(encode_joint, (encoder, frames, seeds + 1, weight))
    assert any(not torch.allclose(others[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("chunk_size", "expected"), [(1, [1] * 10), (3, [3, 3, 3, 1]), (10, [10])])
def test_chunked_encodes_one_chunk_at_a_time_and_recomputes_all_but_the_last(chunk_size, expected, setting):
    loss_and_gradients(partial(encode_chunked, chunk_size=chunk_size), setting)
    forward, backward = setting[0].batch_sizes[: len(expected)], setting[0].batch_sizes[len(expected) :]
    assert forward == expected
    assert backward == expected[:-1][::-1]


def test_detached_carries_no_gradient_and_equals_eval(setting):
    encoder, frames, seeds, _ = setting
    features = encode_detached(encoder, frames, snippet_seeds=seeds, chunk_size=3)
    assert not features.requires_grad
    encoder.eval()
    torch.testing.assert_close(features, encode_joint(encoder, frames, snippet_seeds=None))


def drawn_gradients(setting, seeds, **options):
    encoder, frames, _, weight = setting
    return loss_and_gradients(
        partial(encode_sampled, chunk_size=2, **options), (encoder, frames, seeds, weight)
    )[1]


def test_sampled_keeps_features_and_loss_exact(setting):
    loss, _ = loss_and_gradients(encode_joint, setting)
    sampled_loss, _ = loss_and_gradients(partial(encode_sampled, chunk_size=2, share=0.4), setting)
    assert sampled_loss == pytest.approx(loss.item(), rel=1e-13)


def test_sampled_gradient_is_the_sum_over_the_drawn_chunks(setting):
    """Each chunk alone (a share small enough for one), over all draws, sums to the exact gradient."""
    encoder, frames, seeds, weight = setting
    encoder.dropout.p = 0.0
    _, expected = loss_and_gradients(encode_joint, setting)
    by_chunk = {}
    for draw in range(60):
        drawn = seeds.clone()
        drawn[0, 0] = draw
        gradient = drawn_gradients(setting, drawn, share=0.01)
        by_chunk[tuple(gradient["first.0.bias"].tolist())] = gradient
    assert len(by_chunk) == B * L // 2
    for name in expected:
        summed = sum(gradient[name] for gradient in by_chunk.values())
        torch.testing.assert_close(summed, expected[name], rtol=1e-10, atol=1e-11)


def test_rescaled_sampled_gradient_is_larger_by_the_inverse_share(setting):
    _, _, seeds, _ = setting
    plain = drawn_gradients(setting, seeds, share=0.4)
    rescaled = drawn_gradients(setting, seeds, share=0.4, rescale=True)
    for name in plain:
        torch.testing.assert_close(rescaled[name], plain[name] * 5 / 2, rtol=1e-10, atol=1e-11)


def test_recomputing_the_drawn_chunks_changes_no_bit_of_the_sampled_gradient(setting):
    _, _, seeds, _ = setting
    kept = drawn_gradients(setting, seeds, share=0.4)
    recomputed = drawn_gradients(setting, seeds, share=0.4, recompute=True)
    assert all(torch.equal(recomputed[name], value) for name, value in kept.items())
    drawn, others = 2, 3
    assert len(setting[0].batch_sizes) == drawn + others + drawn


def test_sampling_is_seeded(setting):
    _, _, seeds, _ = setting
    again = drawn_gradients(setting, seeds, share=0.4)
    assert all(
        torch.equal(again[name], value) for name, value in drawn_gradients(setting, seeds, share=0.4).items()
    )


class PerPixelEncoder(nn.Module):
    """A linear layer and a mean: small enough that its bf16 gradient can be checked against float64."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(C, D)

    def forward(self, frames, *, snippet_seeds=None, run_block=call_block):
        return self.layer(frames.float().mean(dim=(2, 3, 4)) / 255)


@pytest.mark.parametrize("encode", [encode_chunked, partial(encode_sampled, share=1.0)])
def test_many_chunks_under_bf16_do_not_sum_their_gradients_in_bf16(encode):
    """Next to one chunk's rounding, 400 chunks must not lose more (a shared bf16 cast of the weights would)."""
    torch.manual_seed(0)
    encoder = PerPixelEncoder()
    frames = torch.randint(0, 256, (1, 400, C, 1, 2, 2), dtype=torch.uint8)
    seeds = torch.arange(400)[None]
    weight = torch.rand(1, 400, D) + 0.5

    def gradient(path):
        encoder.zero_grad()
        (path(encoder, frames, snippet_seeds=seeds).float() * weight).sum().backward()
        return encoder.layer.weight.grad.clone()

    exact = gradient(encode_joint)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        chunked = gradient(partial(encode, chunk_size=1))
    assert float((chunked - exact).norm() / exact.norm()) < 4e-3
