"""What a step does otherwise on CUDA than on the CPU that plays the device: autocast's norms and softmax, attention, and
optimizers in one call.

CUDA's autocast runs layer norm, group norm and softmax in float32, and hands on float32 ("CUDA ops that autocast to float32"
of PyTorch's autocast page); the CPU's leaves them in half precision. Of that list they are what our encoders and heads use
between half-precision operations; the losses are in float32 anyway.

Attention in half precision without a mask is the flash kernel on both, which keep the same; CUDA's takes heads padded to a
multiple of 8 values. With a mask, or in float32, CUDA has no flash kernel: it takes the memory-efficient one, where there is a
bias with its rows padded to 8 values, and where heads are not as wide as its tiles ask (a multiple of 8 values in half
precision, of 4 in float32: GPUs from Ampere on) plain matrices, in float32 (PyTorch 2.15, `attention.cpp` and
`cuda/sdp_utils.cpp` of ATen/native/transformers). cuDNN's kernels are not modelled: on Hopper and newer PyTorch
may take them first in half precision, with a boolean mask too, but not with a bias that learns, so that ActionFormer's
`relative_positions` changes the kernel there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from lofi.engine.optimizers import use_fused_kernels

IN_FLOAT32 = (nn.LayerNorm, nn.GroupNorm)
SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)
FLASH_DTYPES = (torch.bfloat16, torch.float16)
HEAD_ALIGNMENT = 8
"""`pad_last_dim` of attention.cpp: values; the flash kernel takes heads of such a width."""
BIAS_ALIGNMENT = 8
"""`preprocess_mask` of attention.cpp: values; every stride of the bias but the last must be a multiple of it."""
HEAD_ALIGNMENT_BYTES = 16
"""`check_head_dim_size_mem_efficient` of sdp_utils.cpp: a head's width in bytes must be a multiple of it."""


@contextmanager
def cuda_rules(module: nn.Module) -> Iterator[None]:
    """Inside, the module's norms, every softmax and every attention on fake CPU tensors do what they do on CUDA, in
    recomputations too."""
    with cuda_autocast_norms(module), _CudaAttention():
        yield


@contextmanager
def cuda_autocast_norms(module: nn.Module) -> Iterator[None]:
    """Inside, norms do under the CPU's autocast what they do under CUDA's, in recomputations too."""
    norms = [each for each in module.modules() if isinstance(each, IN_FLOAT32)]
    for norm in norms:
        norm.forward = partial(_in_float32, norm.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def step_all_weights_in_one_call(optimizer: torch.optim.Optimizer) -> None:
    """As the engine does it on CUDA: by fused kernels, without temporaries."""
    use_fused_kernels(optimizer)


def _in_float32(run: Any, x: Tensor) -> Tensor:
    if not torch.is_autocast_enabled("cpu"):
        plain: Tensor = run(x)
        return plain
    with torch.autocast("cpu", enabled=False):
        normed: Tensor = run(x.float())
    return normed


class _CudaAttention(TorchFunctionMode):
    """Softmax in float32 under autocast, and attention in the kernel that CUDA has for it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.backward:
            # What a mode was asked for runs without the mode. From an edge autograd does not ask again, and what it
            # recomputes keeps the rules.
            edge = get_gradient_edge(args[0])
            with self:
                return torch.autograd.backward(
                    edge,
                    kwargs.get("gradient"),
                    retain_graph=kwargs.get("retain_graph"),
                    create_graph=kwargs.get("create_graph", False),
                    inputs=kwargs.get("inputs"),
                )
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func in SOFTMAX and torch.is_autocast_enabled("cpu") and kwargs.get("dtype") is None:
            x: Tensor = args[0] if args else kwargs["input"]
            if x.dtype in (torch.bfloat16, torch.float16):
                kwargs = {**kwargs, "dtype": torch.float32}
        return func(*args, **kwargs)


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any
) -> Tensor:
    """As `F.scaled_dot_product_attention`. The memory-efficient kernel has no CPU form, but a shape of its own: it runs on
    fake tensors alone."""
    if torch.is_autocast_enabled("cpu"):
        half = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(half), key.to(half), value.to(half)
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(half)
    if attn_mask is None and query.dtype in FLASH_DTYPES:
        width = query.shape[-1]
        if width % HEAD_ALIGNMENT:
            missing = HEAD_ALIGNMENT - width % HEAD_ALIGNMENT
            query, key, value = (F.pad(each, (0, missing)) for each in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, **options)[..., :width]
    if any(each.shape[-1] * each.element_size() % HEAD_ALIGNMENT_BYTES for each in (query, value)):
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(query, key, value, attn_mask, **options)
    bias = None if attn_mask is None else _bias(attn_mask, dtype=query.dtype)
    needs_grad = torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value))
    out: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query,
        key,
        value,
        None if bias is None else bias.expand(*query.shape[:3], key.shape[2]),
        needs_grad,
        options.get("dropout_p", 0.0),
        options.get("is_causal", False),
        scale=options.get("scale"),
    )[0]
    return out


def _bias(mask: Tensor, *, dtype: torch.dtype) -> Tensor:
    """The mask as the memory-efficient kernel takes it: numbers, in rows of a multiple of 8."""
    bias = mask
    if bias.dtype == torch.bool:
        bias = torch.where(bias, 0.0, torch.tensor(float("-inf"), dtype=dtype))
    if bias.stride(-1) != 1 or any(stride % BIAS_ALIGNMENT for stride in bias.stride()[:-1]):
        length = bias.shape[-1]
        bias = F.pad(bias, (0, BIAS_ALIGNMENT - length % BIAS_ALIGNMENT))[..., :length]
    return bias
