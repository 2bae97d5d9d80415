"""A counted step, told again: the bytes of every kind at the peak, the peak of every phase, the curve over the step.

The kind of a storage is known only when the step is over (an activation is what the forward pass leaves behind), so a
history of storages is replayed here.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lofi.memory.counting import KINDS, Kind, LiveTensorCount

MAX_POINTS = 400


@dataclass(frozen=True, kw_only=True)
class PhaseMark:
    """Where a phase begins on the curve."""

    name: str
    start: int
    """In operations."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Live bytes over one step, thinned to at most `MAX_POINTS` points; the peak is always among them."""

    operations: tuple[int, ...]
    """Operations that had run at each point."""
    live_bytes: dict[str, tuple[int, ...]]
    """Kind -> live bytes at each point."""
    phases: tuple[PhaseMark, ...]
    num_operations: int


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """One counted step."""

    peak_bytes: int
    peak_phase: str
    """The phase in which the peak lies."""
    bytes_at_peak: dict[str, int]
    """Kind -> live bytes at the peak; they sum to it."""
    phase_peak_bytes: dict[str, int]
    """Phase -> the greatest sum of live bytes in it."""
    curve: Curve

    def to_plain(self) -> dict[str, Any]:
        """As it stands in JSON."""
        return asdict(self)


def replay(count: LiveTensorCount, *, most_points: int = MAX_POINTS) -> Timeline:
    """The timeline of a count that is over. Every moment after an event is a point; a step has at least one."""
    if not count.events:
        raise ValueError("no tensor was counted, so there is no timeline: nothing ran on the counted device.")
    kinds = storage_kinds(count)
    storages = np.array([event.storage for event in count.events])
    signs = np.array([1 if event.is_made else -1 for event in count.events])
    sizes = np.array([made.num_bytes for made in count.made], dtype=np.int64)[storages] * signs
    places = np.array([KINDS.index(kind) for kind in kinds])[storages]
    live = np.zeros((len(KINDS), len(sizes)), dtype=np.int64)
    for place in range(len(KINDS)):
        live[place] = np.cumsum(np.where(places == place, sizes, 0))
    total = live.sum(axis=0)
    phases = [event.phase for event in count.events]
    peak = int(total.argmax())
    return Timeline(
        peak_bytes=int(total[peak]),
        peak_phase=phases[peak],
        bytes_at_peak={kind: int(live[place, peak]) for place, kind in enumerate(KINDS)},
        phase_peak_bytes={
            phase: int(total[[place for place, each in enumerate(phases) if each == phase]].max())
            for phase in dict.fromkeys(phases)
        },
        curve=_curve(count, live=live, phases=phases, most=most_points),
    )


def storage_kinds(count: LiveTensorCount) -> list[Kind]:
    """The kind of each of `count.made`: as it was stated, else by when it was made and whether it outlived the forward
    pass."""
    freed_in_forward = {
        event.storage for event in count.events if not event.is_made and event.phase == "forward"
    }
    kinds: list[Kind] = []
    for index, made in enumerate(count.made):
        if index in count.kind_of:
            kinds.append(count.kind_of[index])
        elif made.comes_from_host and made.phase == "backward" and not made.is_recomputed:
            kinds.append("activations")  # saved on the host (`gradients.offload`), and back
        elif made.comes_from_host or made.was_there:
            kinds.append("inputs")
        elif made.is_recomputed or (made.phase == "forward" and index not in freed_in_forward):
            kinds.append("activations")
        else:
            kinds.append("workspace")
    return kinds


def _curve(count: LiveTensorCount, *, live: np.ndarray, phases: Sequence[str], most: int) -> Curve:
    """Of each stretch of events the one with the most bytes is kept. live: (kinds, events)."""
    num_events = live.shape[1]
    total = live.sum(axis=0)
    edges = np.linspace(0, num_events, min(most, num_events) + 1).astype(int)
    kept = [first + int(total[first:last].argmax()) for first, last in pairwise(edges)]
    starts: dict[str, int] = {}
    for event, phase in zip(count.events, phases, strict=True):
        starts.setdefault(phase, event.operation)
    return Curve(
        operations=tuple(count.events[place].operation for place in kept),
        live_bytes={kind: tuple(int(value) for value in live[row, kept]) for row, kind in enumerate(KINDS)},
        phases=tuple(PhaseMark(name=name, start=start) for name, start in starts.items()),
        num_operations=count.num_operations,
    )
