"""Fidelity: what the snippet encoder sees at one step, and how that changes during training.

LoFi (NeurIPS 2021, section 3.2) trains the encoder on mini-batches of a quarter of the full volume, reduced in space
(S), in time (T), in both (ST), or cycling through the three in that order (C). The batch size never changes and the
full fidelity is never used while the encoder trains.
"""

import math
from dataclasses import dataclass
from typing import Literal

Reduction = Literal["none", "space", "time", "space_time", "cyclic"]

LEAST_SNIPPETS: dict[Reduction, int] = {"none": 1, "space": 1, "time": 4, "space_time": 2, "cyclic": 4}
"""What a reduction divides the number of snippets by, at most; fewer could not be reduced."""


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """The size of one window of video as the encoder sees it."""

    num_snippets: int
    """L, snippets per window."""
    frames: int
    """T, decoded frames per snippet."""
    height: int
    """H, pixels."""
    width: int
    """W, pixels."""

    def __post_init__(self) -> None:
        for name in ("num_snippets", "frames", "height", "width"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"fidelity: {name} is {value}; it must be at least 1.")

    def __str__(self) -> str:
        return f"{self.num_snippets}x{self.frames}x{self.height}x{self.width}"

    @property
    def volume(self) -> int:
        """Input positions of one window: L x T x H x W."""
        return self.num_snippets * self.frames * self.height * self.width

    def reduced(self, *, time: float = 1.0, space: float = 1.0) -> "Fidelity":
        """Divide the number of snippets by `time` and both sides by `space`, rounding down (224 / sqrt 2 is 158)."""
        return Fidelity(
            num_snippets=max(1, math.floor(self.num_snippets / time + 1e-9)),
            frames=self.frames,
            height=max(1, math.floor(self.height / space + 1e-9)),
            width=max(1, math.floor(self.width / space + 1e-9)),
        )


@dataclass(frozen=True, kw_only=True)
class FidelitySchedule:
    """Which fidelity a step has: the fidelities in turn, switched every `every` epochs or batches."""

    fidelities: tuple[Fidelity, ...]
    switch: Literal["epoch", "batch"] = "epoch"
    every: int = 1

    def at(self, *, epoch: int, step: int) -> Fidelity:
        """The fidelity of the step. `epoch` and `step` count from 0; `step` over the whole run, as the papers' c_s does."""
        position = epoch if self.switch == "epoch" else step
        return self.fidelities[(position // self.every) % len(self.fidelities)]


@dataclass(frozen=True, kw_only=True)
class FidelityConfig:
    """The recipe's `fidelity:` block: the full fidelity, and how training reduces it."""

    num_snippets: int
    """L at full fidelity, snippets per window."""
    frames: int
    """T, frames per snippet; never reduced."""
    height: int
    """H at full fidelity, pixels."""
    width: int
    """W at full fidelity, pixels."""
    reduction: Reduction = "none"
    """LoFi's variants: space (S), time (T), space_time (ST), cyclic (C: S, T, ST in turn)."""
    cycle: Literal["long", "short"] = "long"
    """Only with reduction: cyclic. long switches at epochs (the paper's best), short at batches."""
    cycle_every: int | None = None
    """Only with reduction: cyclic. Epochs (long; the paper's c_l = 1) or batches (short; c_s = 16) per fidelity."""

    def __post_init__(self) -> None:
        if self.cycle_every is not None and self.cycle_every < 1:
            raise ValueError(f"fidelity.cycle_every is {self.cycle_every}; it must be at least 1.")
        if self.reduction != "cyclic" and (self.cycle != "long" or self.cycle_every is not None):
            raise ValueError(
                f"fidelity.cycle and fidelity.cycle_every have no effect with reduction: {self.reduction}; "
                "remove them or set fidelity.reduction: cyclic."
            )
        least = LEAST_SNIPPETS[self.reduction]
        if self.full.num_snippets < least:
            raise ValueError(
                f"fidelity.num_snippets is {self.num_snippets}; reduction: {self.reduction} divides it by {least}, so it "
                f"must be at least {least}."
            )

    @property
    def full(self) -> Fidelity:
        return Fidelity(
            num_snippets=self.num_snippets, frames=self.frames, height=self.height, width=self.width
        )


def build_schedule(config: FidelityConfig) -> FidelitySchedule:
    """LoFi's mini-batch configurations (section 3.2, I to IV), each a quarter of the full volume."""
    full = config.full
    space = full.reduced(space=2)
    time = full.reduced(time=4)
    space_time = full.reduced(time=2, space=math.sqrt(2))
    if config.reduction == "none":
        return FidelitySchedule(fidelities=(full,))
    if config.reduction == "space":
        return FidelitySchedule(fidelities=(space,))
    if config.reduction == "time":
        return FidelitySchedule(fidelities=(time,))
    if config.reduction == "space_time":
        return FidelitySchedule(fidelities=(space_time,))
    is_long = config.cycle == "long"
    return FidelitySchedule(
        fidelities=(space, time, space_time),
        switch="epoch" if is_long else "batch",
        every=config.cycle_every or (1 if is_long else 16),
    )
