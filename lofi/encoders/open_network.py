"""Open a library's network where tensors are fake as well: without its weights, but with its true layout.

Some networks work their widths and depths out with tensors (RegNet's, in torchvision and in timm), whose numbers a fake
tensor does not have. So under `memory.fake` a network is built outside it, its weights on the `meta` device, and becomes
fake as a whole.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.overrides import TorchFunctionMode


def open_network(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` makes; where new tensors are fake, its parameters and buffers are, and no large weight is ever allocated."""
    if not isinstance(torch.empty(0), FakeTensor):
        return build()
    with unset_fake_temporarily(), _WeightsOnMeta():
        network = build()
    _make_fake(network)
    return network


def _make_fake(network: nn.Module) -> None:
    """Parameters that several modules share stay shared."""
    made: dict[int, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) not in made:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                made[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
            setattr(module, name, made[id(parameter)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


class _WeightsOnMeta(TorchFunctionMode):
    """Layers make their weights by `torch.empty`, and nothing that a layout is worked out with."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)
