"""What a step does otherwise on CUDA than on the CPU that plays the device: autocast's norms, and optimizers in one call.

CUDA's autocast runs layer and group norms in float32, and hands on float32 ("CUDA ops that autocast to float32" of
PyTorch's autocast page); the CPU's leaves them in half precision. Of that list they are what our encoders and heads use
between half-precision operations; the losses are in float32 anyway.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lofi.engine.optimizers import use_fused_kernels

IN_FLOAT32 = (nn.LayerNorm, nn.GroupNorm)


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
