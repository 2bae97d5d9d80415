"""The training loop: one for every objective, gradient path and fidelity.

Draw the step's batch at its fidelity; the gradient path runs forward and backward; the engine steps; the step is logged
with its losses, bytes and throughput; a checkpoint is saved when one is due; the run is validated when it says so.
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from lofi.batches import WindowBatch
from lofi.engine import deepspeed_engine
from lofi.engine.checkpoint import Position, list_checkpoints, save_checkpoint
from lofi.engine.ema import WeightAverage
from lofi.engine.metrics import MetricsLog
from lofi.engine.precision import Precision
from lofi.engine.run_directory import RunDirectory
from lofi.engine.stop_request import watch_stop_request
from lofi.engine.validation import Validate, read_best
from lofi.fidelity import Fidelity, FidelitySchedule
from lofi.progress import track

WARMUP_STEPS = 2
"""First steps of a process that throughput leaves out."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The recipe's `train:` block."""

    epochs: int
    """Passes over the training windows."""
    batch_size: int = 16
    """Windows per step, over all ranks together."""
    precision: Precision = "auto"
    """auto is fp32 on a CPU and bf16 (or fp16) on a GPU; weights and optimizer states are always fp32."""
    ema_decay: float | None = None
    """Evaluate, save and hand on a running mean of the weights, of which so much stays at each step (0.999 is common); null: the
    weights themselves."""
    gradient_clipping: float = 1.0
    """Greatest gradient norm; 0 for none."""
    checkpoint_every_epochs: int = 1
    """Epochs between two checkpoints; the last epoch always has one."""
    checkpoint_every_steps: int | None = None
    """Also within an epoch, every so many steps; null for never."""
    keep_checkpoints: int = 2
    """The newest so many stay."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "checkpoint_every_epochs", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.checkpoint_every_steps is not None and self.checkpoint_every_steps < 1:
            raise ValueError(
                f"train.checkpoint_every_steps is {self.checkpoint_every_steps}; it must be at least 1, or null."
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"train.ema_decay is {self.ema_decay}; it must lie between 0 and 1, or be null.")
        if self.gradient_clipping < 0:
            raise ValueError(f"train.gradient_clipping is {self.gradient_clipping}; it must not be negative.")


class NonFiniteError(RuntimeError):
    """A loss or gradient that is not finite."""


class Interrupted(RuntimeError):
    """The run was asked to stop (SIGTERM) and did, after saving a checkpoint."""


class Meter(Protocol):
    """Measures the bytes of single steps (`memory.meter.StepMeter`)."""

    def is_due(self, step_of_run: int, fidelity: Fidelity) -> bool: ...

    def measure(self, step_of_run: int, fidelity: Fidelity) -> AbstractContextManager[None]: ...


class EpochBatches(Protocol):
    """This rank's batches of an epoch, from `first_batch` on, each at the fidelity of its step."""

    def __call__(self, *, epoch: int, first_batch: int) -> Iterator[WindowBatch]: ...


@dataclass(kw_only=True)
class Throughput:
    """Steps of this process after warm-up, counted ones left out."""

    steps: int = 0
    seconds: float = 0.0
    snippets: int = 0

    def add(self, *, seconds: float, snippets: int) -> None:
        self.steps += 1
        self.seconds += seconds
        self.snippets += snippets

    @property
    def snippets_per_sec(self) -> float | None:
        """Snippets over all ranks, decoding included; None where no step was measured."""
        return self.snippets / self.seconds if self.steps else None

    @property
    def sec_per_step(self) -> float | None:
        """None where no step was measured."""
        return self.seconds / self.steps if self.steps else None


@dataclass(kw_only=True)
class Outcome:
    """What a finished loop tells: where it stands, how fast it was, what it could not read."""

    position: Position
    throughput: Throughput = field(default_factory=Throughput)
    failures: dict[str, str] = field(default_factory=dict)
    """Video -> reason, of this rank's windows that were skipped."""


def train(
    engine: Any,
    *,
    batches: EpochBatches,
    batches_per_epoch: int,
    schedule: FidelitySchedule,
    config: TrainConfig,
    run: RunDirectory,
    ranks: deepspeed_engine.Ranks,
    meter: Meter,
    start: Position,
    weights_metadata: dict[str, str],
    validate: Validate | None = None,
    average: WeightAverage | None = None,
) -> Outcome:
    """Train from `start` to the last epoch, saving (and validating, where `validate` is given) as it goes; with a running mean
    of the weights where `average` is given.

    Raises:
        NonFiniteError: names the step, the batch's videos and the last good checkpoint.
        Interrupted: after SIGTERM, once a checkpoint is saved.
    """
    outcome = Outcome(position=start)
    total_steps = config.epochs * batches_per_epoch
    first_step = start.step

    def save(position: Position) -> Path:
        return save_checkpoint(
            engine,
            run.checkpoints,
            position=position,
            keep=config.keep_checkpoints,
            metadata=weights_metadata,
            spared=read_best(run.checkpoints),
            average=average,
        )

    engine.train()
    with (
        MetricsLog(run.metrics, tensorboard=run.tensorboard, first_step=start.step) as log,
        track(f"training {run.path.name}", total=total_steps, done=start.step) as advance,
        watch_stop_request() as stop_requested,
    ):
        # Before the first step, or stopped between this checkpoint and its validation.
        if validate is not None and validate.is_due(start):
            _validate(validate, start, log=log)
        while outcome.position.epoch < config.epochs:
            begin = outcome.position
            epoch_batches = batches(epoch=begin.epoch, first_batch=begin.batch)
            clock = time.perf_counter()
            for batch in epoch_batches:
                position = outcome.position
                step_of_run = position.step - first_step
                fidelity = schedule.at(epoch=position.epoch, step=position.step)
                data_sec = time.perf_counter() - clock
                is_counted = meter.is_due(step_of_run, fidelity)
                rates = {f"lr_{group['name']}": group["lr"] for group in engine.optimizer.param_groups}

                def check(
                    fault: str | None, batch: WindowBatch = batch, position: Position = position
                ) -> None:
                    _stop_on_fault(fault, batch=batch, position=position, run=run, ranks=ranks)

                with meter.measure(step_of_run, fidelity):
                    losses = engine(batch)
                    engine.backward(losses.total)
                    check(_fault_of("loss", float(losses.total.detach())))
                    norm = deepspeed_engine.gradient_norm_before_step(engine)
                    check(_fault_of("gradient norm", norm))
                    is_skipped = deepspeed_engine.step(
                        engine, norm=norm, gradient_clipping=config.gradient_clipping
                    )
                    if (
                        average is not None
                        and (position.step + 1) % engine.gradient_accumulation_steps() == 0
                    ):
                        average.update()
                    norm = deepspeed_engine.gradient_norm_after_step(engine) if norm is None else norm
                    check("the gradients are not finite, so the step was not taken" if is_skipped else None)

                seconds = time.perf_counter() - clock
                snippets = batch.num_snippets * ranks.world_size
                if step_of_run >= WARMUP_STEPS and not is_counted:
                    outcome.throughput.add(seconds=seconds, snippets=snippets)
                outcome.failures.update(batch.failures)
                names = ["loss", *losses.parts]
                values = [float(losses.total.detach()), *(float(part) for part in losses.parts.values())]
                values = deepspeed_engine.mean_over_ranks(values, ranks.device)
                log.write(
                    position.step,
                    {
                        "epoch": position.epoch,
                        "batch": position.batch,
                        "fidelity": str(fidelity),
                        **dict(zip(names, values, strict=True)),
                        **rates,
                        "gradient_norm": norm,
                        "seconds": seconds,
                        "data_seconds": data_sec,
                        "snippets_per_sec": snippets / seconds,
                        **_bytes_now(ranks.device),
                    },
                )
                advance(note=_note(values[0], snippets / seconds, _bytes_now(ranks.device)))

                outcome.position = _next_position(position, batches_per_epoch=batches_per_epoch)
                may_stop = outcome.position.step % engine.gradient_accumulation_steps() == 0
                stopping = may_stop and not deepspeed_engine.all_ranks_agree(
                    not stop_requested(), ranks.device
                )
                due = validate if validate is not None and validate.is_due(outcome.position) else None
                if stopping or due is not None or _is_checkpoint_due(outcome.position, config=config):
                    saved = save(outcome.position)
                    if stopping:
                        raise Interrupted(
                            f"stopped by request; {saved} is saved, --resume goes on from there."
                        )
                if due is not None:
                    _validate(due, outcome.position, log=log)
                clock = time.perf_counter()
    return outcome


def _fault_of(name: str, value: float | None) -> str | None:
    return None if value is None or math.isfinite(value) else f"the {name} is {value}"


def _stop_on_fault(
    fault: str | None,
    *,
    batch: WindowBatch,
    position: Position,
    run: RunDirectory,
    ranks: deepspeed_engine.Ranks,
) -> None:
    """Raise on every rank where one of them found a loss or gradient that is not finite. Collective."""
    if deepspeed_engine.all_ranks_agree(fault is None, ranks.device):
        return
    checkpoints = list_checkpoints(run.checkpoints)
    videos = ", ".join(sorted({window.video for window in batch.windows}))
    raise NonFiniteError(
        f"step {position.step} (epoch {position.epoch}): {fault or 'another rank has the fault'}. "
        f"Videos of the batch: {videos}. Last good checkpoint: {checkpoints[-1] if checkpoints else 'none yet'}. "
        "Lower optimizer.lr, set train.gradient_clipping, or look at those videos' annotations."
    )


def _next_position(position: Position, *, batches_per_epoch: int) -> Position:
    after = replace(position, batch=position.batch + 1, step=position.step + 1)
    if after.batch == batches_per_epoch:
        return replace(after, epoch=after.epoch + 1, batch=0)
    return after


def _is_checkpoint_due(position: Position, *, config: TrainConfig) -> bool:
    if position.batch == 0:
        return position.epoch % config.checkpoint_every_epochs == 0 or position.epoch == config.epochs
    every = config.checkpoint_every_steps
    return every is not None and position.step % every == 0


def _validate(validate: Validate, position: Position, *, log: MetricsLog) -> None:
    """Validate, and log it at the last step that was trained: a resumed run purges the log from position.step on."""
    found = validate(position)
    details = {f"validation/{name}": value for name, value in found.details.items()}
    log.write_scalars(position.step - 1, {f"validation/{found.measure}": found.score, **details})


def _bytes_now(device: torch.device) -> dict[str, int]:
    """On CUDA the allocator's peak in this step; on a CPU the resident memory of the process, which is more."""
    if device.type == "cuda":
        return {"peak_bytes": torch.cuda.max_memory_allocated(device)}
    with open("/proc/self/statm") as file:
        return {"resident_bytes": int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")}


def _note(loss: float, snippets_per_sec: float, memory: dict[str, int]) -> str:
    ((name, num_bytes),) = memory.items()
    kind = name.removesuffix("_bytes")
    return f"loss {loss:.4f}  {snippets_per_sec:.0f} snippets/s  {kind} {num_bytes / 2**30:.2f} GiB"
