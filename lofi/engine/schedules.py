"""Learning-rate schedules: pure arithmetic, a factor on each group's base rate as a function of the epoch.

`epoch` is a float: 1.5 is the middle of the second epoch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise


@dataclass(frozen=True, kw_only=True)
class ConstantConfig:
    """The base rate throughout, after the warm-up."""

    warmup_epochs: float = 0.0
    """Linear from 0 over so many epochs."""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_epochs)


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """Multiplied by `factor` every `every_epochs`, or at `milestones`; LoFi's is 0.5 every 5 (section 4.2)."""

    every_epochs: int | None = None
    """Epochs between two multiplications; 5 where neither this nor milestones is given."""
    milestones: tuple[int, ...] = ()
    """In place of every_epochs: multiplied when so many epochs are finished, ascending; [4, 6] is TSP's."""
    factor: float = 0.5
    """What the rate is multiplied by."""
    warmup_epochs: float = 0.0
    """Linear from 0 over so many epochs."""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_epochs)
        if self.milestones and self.every_epochs is not None:
            raise ValueError(
                f"schedule.milestones and schedule.every_epochs ({self.every_epochs}) both say when the rate falls; set "
                "schedule.milestones: [], or schedule.every_epochs: null."
            )
        if self.milestones and not all(earlier < later for earlier, later in pairwise((0, *self.milestones))):
            raise ValueError(
                f"schedule.milestones is {list(self.milestones)}; it must be numbers of epochs, ascending, each at least 1."
            )
        if not self.milestones and self.every_epochs is None:
            object.__setattr__(self, "every_epochs", 5)
        if self.every_epochs is not None and self.every_epochs < 1:
            raise ValueError(f"schedule.every_epochs is {self.every_epochs}; it must be at least 1.")
        if not 0 < self.factor <= 1:
            raise ValueError(f"schedule.factor is {self.factor}; it must lie in (0, 1].")


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """Half a cosine from the base rate to `final_factor` of it at the last epoch, after the warm-up."""

    warmup_epochs: float = 0.0
    """Linear from 0 over so many epochs."""
    final_factor: float = 0.0
    """Share of the base rate at the end, in [0, 1]."""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup_epochs)
        if not 0 <= self.final_factor <= 1:
            raise ValueError(f"schedule.final_factor is {self.final_factor}; it must lie in [0, 1].")


ScheduleConfig = ConstantConfig | StepConfig | CosineConfig

SCHEDULES = {"constant": ConstantConfig, "step": StepConfig, "cosine": CosineConfig}


def rate_factor(epoch: float, config: ScheduleConfig, *, num_epochs: int) -> float:
    """The factor on the base learning rate at this moment."""
    if epoch < config.warmup_epochs:
        return epoch / config.warmup_epochs
    if isinstance(config, StepConfig):
        return config.factor ** _num_falls(int(epoch + 1e-9), config)
    if isinstance(config, CosineConfig):
        share = (epoch - config.warmup_epochs) / max(1e-9, num_epochs - config.warmup_epochs)
        wave = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        return config.final_factor + (1 - config.final_factor) * wave
    return 1.0


def step_factor(config: ScheduleConfig, *, num_epochs: int, steps_per_epoch: float) -> Callable[[int], float]:
    """The same as a function of the optimizer step, as PyTorch's LambdaLR takes it.

    A warm-up reaches the first step with one step's worth of rate, not with none.
    """
    return partial(_factor_at_step, config=config, num_epochs=num_epochs, steps_per_epoch=steps_per_epoch)


def _factor_at_step(step: int, *, config: ScheduleConfig, num_epochs: int, steps_per_epoch: float) -> float:
    epoch = step / steps_per_epoch
    if epoch < config.warmup_epochs:
        epoch = min(config.warmup_epochs, (step + 1) / steps_per_epoch)
    return rate_factor(epoch, config, num_epochs=num_epochs)


def _num_falls(finished_epochs: int, config: StepConfig) -> int:
    if config.every_epochs is None:
        return sum(milestone <= finished_epochs for milestone in config.milestones)
    return finished_epochs // config.every_epochs


def _check_warmup(warmup_epochs: float) -> None:
    if warmup_epochs < 0:
        raise ValueError(f"schedule.warmup_epochs is {warmup_epochs}; it must not be negative.")
