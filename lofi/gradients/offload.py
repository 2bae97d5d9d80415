"""What a forward pass saves for the backward pass waits on the host, in page-locked memory.

Worth it where few large tensors are saved: the inputs of checkpointed blocks. Not for the chunked path, which saves nothing
on the device but features, and not for the joint one, which saves everything, much of it twice (a convolution's output is
saved again as the next one's input), so that it would cross the bus several times. The copies run on the stream that
computes, in its order: nothing can overtake them, and nothing hides them.
"""

import torch
from torch import Tensor, nn

LEAST_BYTES = 1 << 20
"""Smaller tensors stay on the device: their copies would cost more than their bytes."""


def saved_on_host(host: torch.device) -> torch.autograd.graph.saved_tensors_hooks:
    """Inside the `with`, large tensors that are saved move to `host` (where the frames wait) until they are needed."""

    def pack(tensor: Tensor) -> tuple[Tensor, torch.device]:
        device = tensor.device
        is_weight = isinstance(tensor, nn.Parameter)
        if device == host or is_weight or tensor.numel() * tensor.element_size() < LEAST_BYTES:
            return tensor, device
        if device.type != "cuda":
            return tensor.to(host), device
        waiting = torch.empty_like(tensor, device="cpu", pin_memory=True)
        waiting.copy_(tensor, non_blocking=True)
        return waiting, device

    def unpack(packed: tuple[Tensor, torch.device]) -> Tensor:
        waiting, device = packed
        return waiting.to(device, non_blocking=True)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
