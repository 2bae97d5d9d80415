"""What a training step holds at its peak, by kind, measured while a run goes on.

On CUDA the allocator's own peak is read after every step. On a CPU, where the allocator tells nothing, single steps
(one per fidelity, never the very first, so that optimizer states exist) run under `counting.LiveTensorCount`.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lofi.fidelity import Fidelity
from lofi.memory.counting import LiveTensorCount, storage_bytes


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """Bytes of one rank at the peak of a step. They sum to the peak."""

    parameters: int
    """Weights and buffers."""
    gradients: int
    """Of the weights, as they are after the backward pass."""
    optimizer: int
    """Optimizer states and ZeRO's own copies of the weights."""
    activations: int
    """All else that was alive at the peak: activations, inputs on the device, temporaries."""

    @property
    def peak_bytes(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations


class StepMeter:
    """Measures the steps of one engine."""

    def __init__(self, engine: Any, *, device: torch.device, zero_stage: int = 0) -> None:
        self._zero_stage = zero_stage
        self.peak: Breakdown | None = None
        self._engine = engine
        self._device = device
        self._counted: set[Fidelity] = set()

    def is_due(self, step_of_run: int, fidelity: Fidelity) -> bool:
        """True where the next step will be counted (and is slower for it)."""
        return self._device.type == "cpu" and step_of_run > 0 and fidelity not in self._counted

    @contextmanager
    def measure(self, step_of_run: int, fidelity: Fidelity) -> Iterator[None]:
        """Wrap one step, from forward to the optimizer's update."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            yield
            self._record(torch.cuda.max_memory_allocated(self._device))
        elif self.is_due(step_of_run, fidelity):
            self._counted.add(fidelity)
            known = [*self._weights(), *self._gradients(), *self._optimizer_states()]
            with LiveTensorCount(known, device_type="cpu") as count:
                yield
            self._record(count.peak_bytes)
        else:
            yield

    def _record(self, peak_bytes: int) -> None:
        if self.peak is not None and peak_bytes <= self.peak.peak_bytes:
            return
        weights = storage_bytes(self._weights())
        optimizer = storage_bytes([*self._weights(), *self._optimizer_states()]) - weights
        gradients = min(self._gradient_bytes(), peak_bytes - weights - optimizer)
        self.peak = Breakdown(
            parameters=weights,
            gradients=gradients,
            optimizer=optimizer,
            activations=peak_bytes - weights - gradients - optimizer,
        )

    def _weights(self) -> list[Tensor]:
        """Weights and buffers of this rank: at ZeRO stage 3 its partitions."""
        module = self._engine.module
        return [*(getattr(p, "ds_tensor", p) for p in module.parameters()), *module.buffers()]

    def _gradient_bytes(self) -> int:
        """Of all trained weights; from ZeRO stage 2 on, this rank's share of them."""
        trained = [parameter for parameter in self._engine.module.parameters() if parameter.requires_grad]
        whole = sum(int(getattr(p, "ds_numel", p.numel())) * p.element_size() for p in trained)
        return whole if self._zero_stage < 2 else whole // self._engine.world_size

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self._engine.module.parameters() if p.grad is not None]

    def _optimizer_states(self) -> list[Tensor]:
        """The optimizer's states and what it steps on (under ZeRO: the flat partitions)."""
        optimizer = self._engine.optimizer
        inner = getattr(optimizer, "optimizer", optimizer)
        states = [
            value for state in inner.state.values() for value in state.values() if isinstance(value, Tensor)
        ]
        stepped = [parameter for group in inner.param_groups for parameter in group["params"]]
        return [tensor for tensor in [*states, *stepped] if tensor.device.type == self._device.type]


def resident_bytes() -> int:
    """Greatest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_row(
    meter: StepMeter,
    *,
    recipe: str,
    device: str,
    world_size: int,
    versions: dict[str, str],
    **speed: float | None,
) -> dict[str, Any]:
    """One row of memory.json: measured, with its device, versions and throughput."""
    peak = meter.peak
    how = "torch.cuda.max_memory_allocated" if device != "cpu" else "live tensors counted in single steps"
    return {
        "kind": "measured",
        "how": how,
        "recipe": recipe,
        "device": device,
        "world_size": world_size,
        "bytes": None if peak is None else asdict(peak),
        "peak_bytes": None if peak is None else peak.peak_bytes,
        "resident_bytes": resident_bytes(),
        **speed,
        "versions": versions,
    }
