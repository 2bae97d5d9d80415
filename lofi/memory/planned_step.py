"""One training step as the loop and DeepSpeed's engine run it at ZeRO stage 0, counted: on fake tensors or on real ones.

The engine's own temporaries are part of it: after the backward pass it copies all gradients into a flat bucket, on more
than one rank (`allreduce_bucket` of deepspeed 0.19.8). They are clipped in place, and dropped after the update.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from lofi.batches import WindowBatch
from lofi.engine.ema import WeightAverage
from lofi.memory.counting import LiveTensorCount
from lofi.memory.module_names import ModuleNames

REDUCE_BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's bucket at stage 0: a bucket is closed once it holds more."""


def make_optimizer_states(optimizer: torch.optim.Optimizer) -> None:
    """Let the optimizer make its states, as they are from the second step of a run on."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def count_step(
    module: nn.Module,
    *,
    optimizer: torch.optim.Optimizer,
    batch: WindowBatch,
    gradient_clipping: float,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    reduces_in_bucket: bool = True,
    accumulates: bool = False,
    average: WeightAverage | None = None,
) -> LiveTensorCount:
    """Run one step and count its live tensors on the module's device.

    Args:
        module: the objective, its weights made, in training mode.
        optimizer: with its states made.
        batch: of the step; what of it lies on the module's device counts.
        gradient_clipping: greatest gradient norm, 0 for none.
        autocast: the context of the forward pass.
        reduces_in_bucket: with the flat copy of all gradients that DeepSpeed makes at ZeRO stage 0 (on several ranks).
        average: the running mean of the weights, where the run keeps one; its means count as parameters.
        accumulates: gradients of earlier batches are there already (`gradient_accumulation_steps`).

    Returns:
        The count, over.
    """
    weights = [*module.parameters(), *module.buffers(), *([] if average is None else average.tensors)]
    states = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    ]
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if accumulates:
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
    inputs = [tensor for tensor in (batch.frames, batch.features, batch.mask) if tensor is not None]

    def gradients() -> list[Tensor]:
        return [parameter.grad for parameter in trained if parameter.grad is not None]

    with ModuleNames(module) as names:
        count = LiveTensorCount(
            device_type=weights[0].device.type,
            kinds={
                "parameters": weights,
                "optimizer": states,
                "gradients": gradients(),
                "inputs": inputs,
            },
            gradients=gradients,
            module_now=names.now,
        )
        with count:
            with autocast():
                losses = module(batch)
            loss = losses.total / 1  # the engine divides by the steps that it accumulates
            loss.backward()
            if reduces_in_bucket:
                _reduce_in_buckets(gradients())
            norm = torch.nn.utils.get_total_norm(gradients())
            if gradient_clipping > 0:  # whether a step's norm is above it is not known ahead
                torch.nn.utils.clip_grads_with_norm_(trained, gradient_clipping, norm)
            del norm
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update()
    return count


def _reduce_in_buckets(gradients: list[Tensor]) -> None:
    """What an all-reduce in flat buckets holds: a copy of each bucket's gradients, written back."""
    bucket: list[Tensor] = []
    for place, gradient in enumerate(gradients):
        bucket.append(gradient)
        is_full = sum(each.numel() for each in bucket) > REDUCE_BUCKET_ELEMENTS
        if is_full or place == len(gradients) - 1:
            flat = torch._C._nn.flatten_dense_tensors(bucket)
            flat.mul_(1.0)
            for each, reduced in zip(bucket, torch._C._nn.unflatten_dense_tensors(flat, bucket), strict=True):
                each.copy_(reduced)
            bucket = []
