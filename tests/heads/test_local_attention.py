"""Local attention: the dense and the blocked computation against a slow loop; the transformer block's masks."""

import pytest
import torch
from reference.slow_local_attention import slow_local_attention

from lofi.heads.actionformer import blocks
from lofi.heads.actionformer.blocks import TransformerBlock, local_attention


def random_inputs(length: int, *, seed: int = 0) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(seed)
    query, key, value = torch.randn(3, 2, 3, length, 5, dtype=torch.float64).unbind()
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[1, length - length // 3 :] = False
    return query, key, value, mask


@pytest.mark.parametrize("length", [1, 4, 11, 13])
@pytest.mark.parametrize("window", [1, 3, 7, None])
@pytest.mark.parametrize("dense_max_length", [0, 128])
def test_local_attention_equals_slow_loop(
    length: int, window: int | None, dense_max_length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "DENSE_MAX_LENGTH", dense_max_length)
    monkeypatch.setattr(blocks, "QUERY_BLOCK", 4)
    query, key, value, mask = random_inputs(length)
    fast = local_attention(query, key, value, mask=mask, window=window)
    slow = slow_local_attention(query, key, value, mask=mask, window=window)
    torch.testing.assert_close(fast * mask[:, None, :, None], slow)


@pytest.mark.parametrize("length", [1, 4, 11])
@pytest.mark.parametrize("window", [1, 3, 7])
@pytest.mark.parametrize("dense_max_length", [0, 128])
def test_relative_biases_and_their_gradients_equal_the_slow_loop(
    length: int, window: int, dense_max_length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "DENSE_MAX_LENGTH", dense_max_length)
    monkeypatch.setattr(blocks, "QUERY_BLOCK", 4)
    query, key, value, mask = random_inputs(length)
    results = []
    for attend in (local_attention, slow_local_attention):
        torch.manual_seed(1)
        bias = torch.randn(3, window, dtype=torch.float64, requires_grad=True)
        out = attend(query, key, value, mask=mask, window=window, bias=bias) * mask[:, None, :, None]
        (gradient,) = torch.autograd.grad(out.square().sum(), bias)
        results.append((out, gradient))
    torch.testing.assert_close(results[0], results[1])
    without = local_attention(query, key, value, mask=mask, window=window)
    zero = local_attention(query, key, value, mask=mask, window=window, bias=torch.zeros_like(bias))
    torch.testing.assert_close(zero, without)


def test_attention_where_everything_is_masked_is_finite() -> None:
    query, key, value, mask = random_inputs(6)
    for window, bias in ((3, None), (3, torch.zeros(3, 3, dtype=torch.float64)), (None, None)):
        out = local_attention(query, key, value, mask=torch.zeros_like(mask), window=window, bias=bias)
        assert torch.isfinite(out).all()


def test_blocked_attention_has_the_gradient_of_dense_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "QUERY_BLOCK", 4)
    gradients = []
    for dense_max_length in (0, 128):
        monkeypatch.setattr(blocks, "DENSE_MAX_LENGTH", dense_max_length)
        *inputs, mask = random_inputs(10)
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = local_attention(*leaves, mask=mask, window=5)
        (out * mask[:, None, :, None]).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize(("stride", "relative"), [(1, False), (2, False), (2, True)])
def test_block_ignores_masked_positions_even_nan(stride: int, relative: bool) -> None:
    torch.manual_seed(0)
    block = TransformerBlock(6, num_heads=2, window=5, stride=stride, relative_positions=relative).double()
    torch.nn.init.ones_(block.attention_path.scale)
    x = torch.randn(2, 6, 9, dtype=torch.float64)
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    out, out_mask = block(x, mask)
    poisoned, _ = block(x.masked_fill(~mask[:, None], float("nan")), mask)
    torch.testing.assert_close(poisoned, out)
    alone, _ = block(x[1:, :, :5], mask[1:, :5])
    torch.testing.assert_close(out[1:, :, : alone.shape[2]], alone)
    assert out_mask.shape == (2, -(-9 // stride))
    assert (out[1, :, alone.shape[2] :] == 0).all()


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    path = blocks.ScaledPath(3, drop=0.25)
    torch.nn.init.ones_(path.scale)
    out = path(torch.ones(4000, 3, 2))
    per_sample = out.flatten(1)
    assert per_sample.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (per_sample == per_sample[:, :1]).all()
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)
    assert (path.eval()(torch.ones(2, 3, 5)) == 1).all()
