"""Where the seconds of a step go: waiting for data, forward, backward, optimizer.

The device is synchronised at both ends of every phase, so a phase's seconds are its own; a step measured so is a little
slower than one of a training run, whose phases may overlap. What lies between the phases (reading the loss, loop and
log) is `other`, so the parts always sum to the step.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

PARTS = ("data", "forward", "backward", "optimizer", "other")
"""data is the wait for the next batch: decoding, where no worker decodes ahead."""


@dataclass(kw_only=True)
class StepClock:
    """Sums the seconds of each part over steps.

    with clock.step():
        with clock.part("data"):
            batch = next(batches)
        ...
    """

    device: torch.device
    now: Callable[[], float] = time.perf_counter
    num_steps: int = 0
    seconds: float = 0.0
    """Of whole steps."""
    part_seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time one step."""
        begin = self._time()
        yield
        self.seconds += self._time() - begin
        self.num_steps += 1

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time one part of a step."""
        begin = self._time()
        yield
        self.part_seconds[name] = self.part_seconds.get(name, 0.0) + self._time() - begin

    def seconds_per_step(self) -> dict[str, float]:
        """Part -> mean seconds; they sum to the mean step."""
        known = {name: self.part_seconds.get(name, 0.0) for name in PARTS if name != "other"}
        parts = {**known, "other": self.seconds - sum(known.values())}
        return {name: seconds / max(1, self.num_steps) for name, seconds in parts.items()}

    def _time(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.now()


def transfer_seconds(tensors: Iterable[Tensor], *, device: torch.device, repeats: int = 3) -> float | None:
    """Seconds to copy tensors of the host to the device, alone: the least of some tries. None where there is no copy.

    Within a step the same copies are part of the forward pass (and of a recomputation), and a path that copies ahead
    hides them behind computation.
    """
    if device.type == "cpu":
        return None
    sources = list(tensors)
    totals = []
    for _ in range(repeats):
        torch.cuda.synchronize(device)
        begin = time.perf_counter()
        for source in sources:
            for window in source.split(1):  # a window at a time: a chunked path may have no room for all
                window.to(device, non_blocking=True)
        torch.cuda.synchronize(device)
        totals.append(time.perf_counter() - begin)
    return min(totals)
