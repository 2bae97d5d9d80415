"""What was measured of one recipe -> its row of memory.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lofi.config.recipe import Recipe
from lofi.engine.run_directory import environment, package_versions
from lofi.fidelity import Fidelity
from lofi.memory.meter import resident_bytes
from lofi.memory.timeline import Timeline
from lofi.memory.timing import StepClock
from lofi.stages.build import Source
from lofi.stages.method_names import method_name

COUNTED = "live tensors counted in a step of their own"
ALLOCATED = "torch.cuda.max_memory_allocated; kinds counted in a step of their own"


@dataclass(frozen=True, kw_only=True)
class AllocatorPeaks:
    """What CUDA's caching allocator says of one step."""

    allocated_bytes: int
    reserved_bytes: int
    """The greatest so far, since blocks stay reserved."""
    outside_bytes: int
    """Taken on the device outside this allocator: the CUDA context, and whatever other processes hold."""
    phase_bytes: dict[str, int]
    """Phase -> peak of allocated bytes in it."""


@dataclass(kw_only=True)
class AtFidelity:
    """What was measured at one fidelity."""

    fidelity: Fidelity
    clock: StepClock
    timeline: Timeline
    allocator: AllocatorPeaks | None
    """None on a CPU."""
    transfer_sec: float | None = None
    """Of the batch's copy to the device, alone; None on a CPU."""

    @property
    def peak_bytes(self) -> int:
        return self.timeline.peak_bytes if self.allocator is None else self.allocator.allocated_bytes


def measured_row(
    recipe: Recipe,
    found: Sequence[AtFidelity],
    *,
    source: Source | None,
    precision: str,
    warm_up: int,
    assumptions: Sequence[str],
) -> dict[str, Any]:
    """A row of memory.json, of kind "measured".

    Args:
        recipe: that was measured.
        found: one entry per fidelity, each with as many steps.
        source: the data; None where the input was synthetic.
        precision: fp32, bf16 or fp16.
        warm_up: steps that were left out, per fidelity.
        assumptions: what had to be assumed.
    """
    greatest = max(found, key=lambda each: each.peak_bytes)
    reserved = [each.allocator.reserved_bytes for each in found if each.allocator is not None]
    outside = [each.allocator.outside_bytes for each in found if each.allocator is not None]
    steps = sum(each.clock.num_steps for each in found)
    seconds = sum(each.clock.seconds for each in found)
    windows = recipe.train.batch_size * steps
    snippets = sum(
        recipe.train.batch_size * each.fidelity.num_snippets * each.clock.num_steps for each in found
    )
    parts = _mean_parts(found)
    by_kind = dict(greatest.timeline.bytes_at_peak)
    # What the allocator holds beyond the tensors: libraries' workspaces, and the rounding of blocks.
    by_kind["workspace"] += max(0, greatest.peak_bytes - greatest.timeline.peak_bytes)
    return {
        "kind": "measured",
        "how": COUNTED if greatest.allocator is None else ALLOCATED,
        "method": method_name(recipe),
        "input": "synthetic" if source is None else "real",
        "assumptions": list(assumptions),
        "device": environment()["device"],
        "world_size": 1,
        "precision": precision,
        "batch_size": recipe.train.batch_size,
        "fidelity": str(greatest.fidelity),
        "fidelities": [str(each.fidelity) for each in found],
        "bytes": by_kind,
        "peak_bytes": sum(by_kind.values()),
        "peak_phase": greatest.timeline.peak_phase,
        "phase_peak_bytes": (
            greatest.timeline.phase_peak_bytes
            if greatest.allocator is None
            else greatest.allocator.phase_bytes
        ),
        "counted_peak_bytes": greatest.timeline.peak_bytes,
        "reserved_bytes": max(reserved, default=None),
        "outside_allocator_bytes": max(outside, default=None),
        "capability": list(torch.cuda.get_device_capability()) if outside else None,
        "resident_bytes": resident_bytes(),
        "snippets_per_sec": snippets / seconds,
        "windows_per_sec": windows / seconds,
        "videos_per_sec": _videos_per_sec(recipe, source, windows_per_sec=windows / seconds),
        "sec_per_step": seconds / steps,
        "seconds": parts,
        "transfer_sec": _mean([each.transfer_sec for each in found if each.transfer_sec is not None]),
        "data_share": None if source is None else parts["data"] / (seconds / steps),
        "steps": steps,
        "warm_up": warm_up,
        "curve": greatest.timeline.to_plain()["curve"],
        "versions": package_versions(),
        "environment": environment(),
    }


def _mean_parts(found: Sequence[AtFidelity]) -> dict[str, float]:
    """Mean seconds of each part over the steps of all fidelities; each had as many."""
    each_parts = [each.clock.seconds_per_step() for each in found]
    return {name: sum(parts[name] for parts in each_parts) / len(found) for name in each_parts[0]}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _videos_per_sec(recipe: Recipe, source: Source | None, *, windows_per_sec: float) -> float | None:
    """None for clips, and for sliding windows of videos that are not there."""
    if recipe.objective.name == "tac":
        return None
    if recipe.grid.mode == "rescale":
        return windows_per_sec
    if source is None:
        return None
    return windows_per_sec * len({window.video for window in source.training.windows}) / len(source.training)
