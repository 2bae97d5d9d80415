"""What CUDA's autocast and attention do otherwise, on fake CPU tensors."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from lofi.memory.cuda_rules import cuda_rules
from lofi.memory.fake import fake_tensors

B, H, L = 2, 3, 10


@pytest.fixture(autouse=True)
def on_fake_cuda():
    with fake_tensors(), cuda_rules(nn.Identity()):
        yield


def saved_by(run):
    """Shape and dtype of what a forward pass keeps for its backward pass, and its result."""
    saved = []

    def keep(tensor):
        saved.append((tuple(tensor.shape), tensor.dtype))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = run()
    return saved, out


def query_key_value(width, dtype=torch.float32):
    return [torch.empty(B, H, L, width, dtype=dtype, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("softmax", [lambda x: F.softmax(x, dim=-1), lambda x: x.softmax(dim=-1)])
def test_softmax_under_autocast_keeps_and_gives_float32(softmax):
    x = torch.empty(4, 7, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        saved, out = saved_by(lambda: softmax(x))
    assert out.dtype is torch.float32
    assert saved == [((4, 7), torch.float32)]
    assert softmax(x).dtype is torch.bfloat16


def test_a_checkpoint_recomputes_under_the_same_rules():
    """Were its softmax in bfloat16 this time, or its attention another kernel, the checkpoint would find other tensors."""
    x, mask = torch.empty(B, H, L, 16, requires_grad=True), torch.ones(B, 1, L, L, dtype=torch.bool)

    def attend(x):
        x = x.to(torch.bfloat16)
        return F.scaled_dot_product_attention(x, x, x, attn_mask=mask) * x.softmax(dim=-1)

    with torch.autocast("cpu", torch.bfloat16):
        loss = checkpoint(attend, x, use_reentrant=False).sum()
    loss.backward()
    assert x.grad.shape == x.shape


def test_masked_attention_keeps_its_inputs_a_bias_its_result_and_a_sum_but_no_scores():
    mask = torch.ones(B, 1, L, L, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        saved, out = saved_by(
            lambda: F.scaled_dot_product_attention(*query_key_value(16, torch.bfloat16), attn_mask=mask)
        )
    heads, half = (B, H, L, 16), torch.bfloat16
    assert (out.shape, out.dtype) == (heads, half)
    kept = Counter((shape, dtype) for shape, dtype in saved if shape)
    assert kept == {(heads, half): 4, ((B, H, L, L), half): 1, ((B, H, 32), torch.float32): 1}


def test_a_bias_is_one_for_all_heads_and_padded_to_rows_of_8():
    seen = []
    mask = torch.ones(B, 1, L, L, dtype=torch.bool)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: seen.append(x) or x, lambda x: x):
        F.scaled_dot_product_attention(*query_key_value(16), attn_mask=mask)
    (bias,) = [each for each in seen if each.shape == (B, H, L, L)]
    assert bias.untyped_storage().nbytes() == B * L * 16 * 4


@pytest.mark.parametrize(("width", "dtype"), [(12, torch.bfloat16), (6, torch.float32)])
def test_heads_of_odd_width_keep_their_scores(width, dtype):
    mask = torch.ones(B, 1, L, L, dtype=torch.bool)
    saved, _ = saved_by(
        lambda: F.scaled_dot_product_attention(*query_key_value(width, dtype), attn_mask=mask)
    )
    assert ((B, H, L, L), torch.float32) in saved or ((B * H, L, L), torch.float32) in saved


def test_gradients_of_masked_attention_have_the_shapes_of_its_inputs():
    inputs = query_key_value(8)
    out = F.scaled_dot_product_attention(*inputs, attn_mask=torch.ones(1, 1, L, L, dtype=torch.bool))
    out.sum().backward()
    assert [each.grad.shape for each in inputs] == [(B, H, L, 8)] * 3


@pytest.mark.parametrize(
    ("width", "dtype", "kept_width", "sums"),
    [
        (16, torch.bfloat16, 16, (B, H, L)),
        (12, torch.bfloat16, 16, (B, H, L)),
        (12, torch.float32, 12, (B, H, 32)),
    ],
)
def test_attention_without_a_mask_keeps_its_inputs_its_result_and_a_sum(width, dtype, kept_width, sums):
    saved, out = saved_by(lambda: F.scaled_dot_product_attention(*query_key_value(width, dtype)))
    assert (out.shape, out.dtype) == ((B, H, L, width), dtype)
    kept = Counter((shape, dtype) for shape, dtype in saved if len(shape) > 1)
    assert kept == {((B, H, L, kept_width), dtype): 4, (sums, torch.float32): 1}


def test_without_a_mask_heads_of_odd_width_keep_their_scores_in_float32_alone():
    saved, _ = saved_by(lambda: F.scaled_dot_product_attention(*query_key_value(6)))
    assert any(shape[-2:] == (L, L) for shape, _ in saved)
    with torch.autocast("cpu", torch.bfloat16):
        saved, out = saved_by(lambda: F.scaled_dot_product_attention(*query_key_value(6)))
    assert out.dtype is torch.bfloat16
    assert not any(shape[-2:] == (L, L) for shape, _ in saved)


def test_a_backward_pass_keeps_its_options():
    x, y = torch.empty(3, requires_grad=True), torch.empty(3, requires_grad=True)
    loss = (x * y).sum()
    loss.backward(retain_graph=True, inputs=[x])
    assert (x.grad is None, y.grad is None) == (False, True)
    loss.backward()
    assert y.grad.shape == y.shape
