"""Fake tensors: shapes, types and devices without numbers and without memory, for a step that is counted and not computed.

The device is played by fake CPU tensors (autograd on fake CUDA tensors needs a GPU). Where the step is one on a GPU, the
host's batch lies on the `meta` device, so that a copy to the device is a copy and is counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DRAWN = ("aten::randint", "aten::randperm")
"""Whole numbers that a step draws and then reads on the host. A permutation is always the one that changes nothing: then
the sampled path draws the first chunks, and those without gradient come on top of all that is kept: its highest peak."""


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Inside, every new tensor is fake, except the whole numbers that the host draws and works out from one another."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    mode.allow_meta = True
    with mode, _HostNumbers():
        yield


class _HostNumbers(TorchDispatchMode):
    """Keeps real what is computed from real tensors alone, such as the draw of the sampled gradient path.

    A number that the host reads from a fake tensor is 1: the optimizers read their count of steps, and nothing that
    decides about memory may depend on data. A truth is false: PyTorch draws normal numbers until none lies outside.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(tensors[0], FakeTensor):
            if tensors[0].dtype is torch.bool:
                return False
            return 1.0 if tensors[0].is_floating_point() else 1
        is_real = all(not isinstance(tensor, FakeTensor) for tensor in tensors)
        if is_real and (tensors or func._schema.name in DRAWN):
            with unset_fake_temporarily():
                result = func(*args, **kwargs)
                return torch.arange(len(result)) if func._schema.name == "aten::randperm" else result
        return func(*args, **kwargs)
