"""A counted step -> what one rank holds at its peak, by kind, under ZeRO, and on a GPU; and who holds it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lofi.memory.counting import KINDS, LiveTensorCount
from lofi.memory.gpu_terms import GpuBytes, GpuTerms, gpu_bytes
from lofi.memory.module_names import OUTSIDE
from lofi.memory.timeline import replay, storage_kinds
from lofi.memory.zero_states import Zero, partition_states

NUM_MODULES = 5
"""Modules that are named: those that hold most."""
NAME_PARTS = 3
"""A module's dotted name is cut to so many parts: `encoder.layer1.0` stands for all that is inside."""


@dataclass(frozen=True, kw_only=True)
class ModuleBytes:
    """What of the peak was made by one module: its activations, temporaries and gradients in flight."""

    name: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class StepPrediction:
    """One step at one fidelity, on one rank."""

    fidelity: str
    bytes: dict[str, int]
    """Kind -> bytes at the peak; they sum to it."""
    peak_bytes: int
    phase: str
    """forward, backward or optimizer: where the peak lies."""
    module: str
    """The module that ran there."""
    modules: tuple[ModuleBytes, ...]
    """The five that hold most at the peak, largest first."""
    phase_peak_bytes: dict[str, int]
    gpu: GpuBytes | None
    """None where the step is one on a CPU."""
    curve: dict[str, Any] | None = None
    """Live bytes over the step (`timeline.Curve`); None under ZeRO, where formulas took part."""

    @property
    def needed_bytes(self) -> int:
        """What must fit: all that the process takes on a GPU; on a CPU the live tensors."""
        return self.peak_bytes if self.gpu is None else self.gpu.device


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A recipe's step, at every fidelity of its schedule."""

    recipe: str
    method: str
    """Its place on the three axes, in words."""
    device: str
    """cpu or cuda."""
    precision: str
    world_size: int
    zero_stage: int
    batch_size: int
    """Windows of one rank."""
    steps: tuple[StepPrediction, ...]
    assumptions: tuple[str, ...] = ()
    """What the prediction had to assume, because the recipe or the disk did not say it."""
    deepspeed_estimate_bytes: int | None = None
    """DeepSpeed's own estimate of model states on the device, which assumes 16-bit weights; None below stage 1."""
    is_calibrated: bool = False
    """Whether the GPU's terms were fitted to measurements."""

    @property
    def worst(self) -> StepPrediction:
        """The step with the highest peak."""
        return max(self.steps, key=lambda step: step.peak_bytes)

    @property
    def peak_bytes(self) -> int:
        return self.worst.peak_bytes

    @property
    def needed_bytes(self) -> int:
        """What must fit, at the fidelity that needs most."""
        return max(step.needed_bytes for step in self.steps)


def predict_step(
    count: LiveTensorCount,
    *,
    fidelity: str,
    zero: Zero,
    trained_elements: int,
    gpu: GpuTerms | None,
) -> StepPrediction:
    """Read the peak off a counted step (ZeRO stage 0, one rank), as it would be under ZeRO.

    Args:
        count: of the step, over.
        fidelity: of the step.
        zero: stage, ranks, offload.
        trained_elements: weights that train.
        gpu: the terms of a GPU; None for a CPU.
    """
    phases = np.array([event.phase for event in count.events])
    live = _under_zero(_live(count, block_bytes=1), phases, zero=zero, trained_elements=trained_elements)
    total = live.sum(axis=0)
    peak = int(total.argmax())
    on_gpu = None
    if gpu is not None:
        rounded = _live(count, block_bytes=gpu.block_bytes)
        rounded = _under_zero(rounded, phases, zero=zero, trained_elements=trained_elements)
        on_gpu = gpu_bytes(int(rounded.sum(axis=0).max()), gpu)
    return StepPrediction(
        fidelity=fidelity,
        bytes={kind: int(live[place, peak]) for place, kind in enumerate(KINDS)},
        peak_bytes=int(total[peak]),
        phase=str(phases[peak]),
        module=_module_at(count, peak),
        modules=_largest_modules(count, peak),
        phase_peak_bytes={str(phase): int(total[phases == phase].max()) for phase in dict.fromkeys(phases)},
        gpu=on_gpu,
        curve=replay(count).to_plain()["curve"] if zero.stage == 0 else None,
    )


def prediction_row(prediction: Prediction, *, versions: dict[str, str]) -> dict[str, Any]:
    """A row of memory.json, of kind predicted."""
    worst = prediction.worst
    steps = [
        {key: value for key, value in asdict(step).items() if key != "curve"} for step in prediction.steps
    ]
    return {
        "kind": "predicted",
        "how": "one step on fake tensors, counted",
        "recipe": prediction.recipe,
        "method": prediction.method,
        "device": prediction.device,
        "world_size": prediction.world_size,
        "precision": prediction.precision,
        "zero_stage": prediction.zero_stage,
        "batch_size_per_rank": prediction.batch_size,
        "fidelity": worst.fidelity,
        "fidelities": [step.fidelity for step in prediction.steps],
        "bytes": worst.bytes,
        "peak_bytes": worst.peak_bytes,
        "peak_phase": worst.phase,
        "peak_module": worst.module,
        "phase_peak_bytes": worst.phase_peak_bytes,
        "modules": [asdict(module) for module in worst.modules],
        "rounded_bytes": None if worst.gpu is None else worst.gpu.rounded,
        "allocated_bytes": None if worst.gpu is None else worst.gpu.allocated,
        "reserved_bytes": None if worst.gpu is None else worst.gpu.reserved,
        "needed_bytes": prediction.needed_bytes,
        "calibrated": prediction.is_calibrated,
        "deepspeed_estimate_bytes": prediction.deepspeed_estimate_bytes,
        "assumptions": list(prediction.assumptions),
        "steps": steps,
        "curve": worst.curve,
        "versions": versions,
    }


def _live(count: LiveTensorCount, *, block_bytes: int) -> np.ndarray:
    """(kinds, events): live bytes of every kind after every event, each storage rounded up to whole blocks."""
    kinds = storage_kinds(count)
    storages = np.array([event.storage for event in count.events])
    signs = np.array([1 if event.is_made else -1 for event in count.events])
    sizes = np.array([made.num_bytes for made in count.made], dtype=np.int64)
    sizes = -(-sizes // block_bytes) * block_bytes
    places = np.array([KINDS.index(kind) for kind in kinds])[storages]
    changes = np.zeros((len(KINDS), len(storages)), dtype=np.int64)
    changes[places, np.arange(len(storages))] = sizes[storages] * signs
    return changes.cumsum(axis=1)


def _under_zero(live: np.ndarray, phases: np.ndarray, *, zero: Zero, trained_elements: int) -> np.ndarray:
    """The same for one rank under ZeRO: states shared, the update's temporaries too, and its buckets."""
    if zero.stage == 0:
        return live
    live = live.copy()
    parameters, gradients, optimizer, workspace = (
        KINDS.index(kind) for kind in ("parameters", "gradients", "optimizer", "workspace")
    )
    states = partition_states(
        zero,
        trained_elements=trained_elements,
        parameters=int(live[parameters].max()),
        gradients=0,
        optimizer=int(live[optimizer].max()),
    )
    live[parameters], live[optimizer] = states.parameters, states.optimizer
    if zero.stage >= 2:
        live[gradients] = -(-live[gradients] // zero.world_size)
    is_update = phases == "optimizer"
    share = 0 if zero.offloads_optimizer else 1
    live[workspace, is_update] = share * -(-live[workspace, is_update] // zero.world_size)
    live[workspace, (phases == "backward") | (zero.stage == 3)] += zero.bucket_bytes(trained_elements)
    return live


def _module_at(count: LiveTensorCount, event: int) -> str:
    """The module that ran: that of the storage made last."""
    for each in reversed(count.events[: event + 1]):
        if each.is_made:
            return _place(count.made[each.storage].module, phase=each.phase)
    return OUTSIDE


def _largest_modules(count: LiveTensorCount, event: int) -> tuple[ModuleBytes, ...]:
    alive: Counter[int] = Counter()
    for each in count.events[: event + 1]:
        alive[each.storage] += 1 if each.is_made else -1
    kinds = storage_kinds(count)
    held: Counter[str] = Counter()
    for storage, is_alive in alive.items():
        made = count.made[storage]
        if is_alive and kinds[storage] in ("activations", "workspace"):
            held[_place(made.module, phase=made.phase)] += made.num_bytes
    return tuple(ModuleBytes(name=name, num_bytes=size) for name, size in held.most_common(NUM_MODULES))


def _place(name: str, *, phase: str) -> str:
    parts: Sequence[str] = name.split(".")
    return "(optimizer)" if phase == "optimizer" else ".".join(parts[:NAME_PARTS])
