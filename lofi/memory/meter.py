"""What a training step holds at its peak, by kind, measured while a run goes on.

On CUDA the allocator's own peak is read after every step. On a CPU, where the allocator tells nothing, single steps
(one per fidelity, never the very first, so that optimizer states exist) run under `counting.LiveTensorCount`.
"""

import resource
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lofi.fidelity import Fidelity
from lofi.memory.counting import LiveTensorCount, storage_bytes
from lofi.memory.timeline import Curve, Timeline, replay


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """Bytes of one rank at the peak of a step. They sum to the peak."""

    parameters: int
    """Weights and buffers."""
    gradients: int
    """Of the weights; none where the peak comes before the backward pass has made them."""
    optimizer: int
    """Optimizer states and ZeRO's own copies of the weights."""
    activations: int
    """What the backward pass needs; on CUDA, where only the allocator's peak is known, all else."""
    inputs: int | None = None
    """The batch on the device; None on CUDA."""
    workspace: int | None = None
    """Temporaries and the gradients of activations; None on CUDA."""

    @property
    def peak_bytes(self) -> int:
        return sum(self.to_plain().values())

    def to_plain(self) -> dict[str, int]:
        """Kind -> bytes, of the kinds that are known."""
        return {kind: num_bytes for kind, num_bytes in asdict(self).items() if num_bytes is not None}


class StepMeter:
    """Measures the steps of one engine."""

    def __init__(
        self,
        engine: Any,
        *,
        device: torch.device,
        zero_stage: int = 0,
        averages: Sequence[Tensor] = (),
    ) -> None:
        """`averages`: the running means of the weights, which count as parameters."""
        self._averages = averages
        self._zero_stage = zero_stage
        self.peak: Breakdown | None = None
        self.curve: Curve | None = None
        """Of the counted step with the greatest peak; None on CUDA."""
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
            self._record_allocated(torch.cuda.max_memory_allocated(self._device))
        elif self.is_due(step_of_run, fidelity):
            self._counted.add(fidelity)
            with count_engine(self._engine, device_type="cpu", averages=self._averages) as count:
                yield
            self._record_counted(replay(count))
        else:
            yield

    def _record_counted(self, timeline: Timeline) -> None:
        if self.peak is None or timeline.peak_bytes > self.peak.peak_bytes:
            self.peak, self.curve = Breakdown(**timeline.bytes_at_peak), timeline.curve

    def _record_allocated(self, peak_bytes: int) -> None:
        if self.peak is not None and peak_bytes <= self.peak.peak_bytes:
            return
        held = [*weights(self._engine), *self._averages]
        states = [s for s in optimizer_states(self._engine) if s.device.type == self._device.type]
        parameter_bytes = storage_bytes(held)
        optimizer_bytes = storage_bytes([*held, *states]) - parameter_bytes
        gradient_bytes = min(self._gradient_bytes(), peak_bytes - parameter_bytes - optimizer_bytes)
        self.peak = Breakdown(
            parameters=parameter_bytes,
            gradients=gradient_bytes,
            optimizer=optimizer_bytes,
            activations=peak_bytes - parameter_bytes - gradient_bytes - optimizer_bytes,
        )

    def _gradient_bytes(self) -> int:
        """Of all trained weights; from ZeRO stage 2 on, this rank's share of them."""
        trained = [parameter for parameter in self._engine.module.parameters() if parameter.requires_grad]
        whole = sum(int(getattr(p, "ds_numel", p.numel())) * p.element_size() for p in trained)
        return whole if self._zero_stage < 2 else whole // self._engine.world_size


def count_engine(
    engine: Any, *, device_type: str, inputs: Iterable[Tensor] = (), averages: Sequence[Tensor] = ()
) -> LiveTensorCount:
    """A count that knows what an engine holds already, by kind, and which tensors are the weights' gradients.

    Args:
        engine: of DeepSpeed.
        device_type: tensors on other devices are not counted.
        inputs: the step's batch.
        averages: running means of the weights.
    """
    return LiveTensorCount(
        device_type=device_type,
        kinds={
            "parameters": [*weights(engine), *averages],
            "optimizer": optimizer_states(engine),
            "gradients": gradients(engine),
            "inputs": inputs,
        },
        gradients=lambda: gradients(engine),
    )


def weights(engine: Any) -> list[Tensor]:
    """Weights and buffers of this rank: at ZeRO stage 3 its partitions."""
    module = engine.module
    return [*(getattr(p, "ds_tensor", p) for p in module.parameters()), *module.buffers()]


def gradients(engine: Any) -> list[Tensor]:
    """The weights' gradients as they are now; under ZeRO also the averaged ones of this rank's partition.

    Those that are views of DeepSpeed's bucket are left out: the buffer behind them has the bucket's size (2 GB unless
    `reduce_bucket_size` says otherwise), however small the gradients.
    """
    averaged = getattr(engine.optimizer, "averaged_gradients", None)
    found = [
        *(parameter.grad for parameter in engine.module.parameters()),
        *(tree_leaves(averaged) if isinstance(averaged, dict) else []),
    ]
    return [
        each for each in found if isinstance(each, Tensor) and each.untyped_storage().nbytes() == each.nbytes
    ]


def optimizer_states(engine: Any) -> list[Tensor]:
    """The optimizer's states and what it steps on (under ZeRO: the flat partitions), on any device."""
    optimizer = engine.optimizer
    inner = getattr(optimizer, "optimizer", optimizer)
    states = [
        value for state in inner.state.values() for value in state.values() if isinstance(value, Tensor)
    ]
    return [*states, *(parameter for group in inner.param_groups for parameter in group["params"])]


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
        "bytes": None if peak is None else peak.to_plain(),
        "peak_bytes": None if peak is None else peak.peak_bytes,
        "resident_bytes": resident_bytes(),
        **speed,
        "curve": None if meter.curve is None else asdict(meter.curve),
        "versions": versions,
    }
