"""One recipe's training steps, measured: bytes by kind and phase, seconds by part. Runs in a process of its own.

At every fidelity of the recipe's schedule: warm-up steps; timed steps; on CUDA one step whose phases' peaks the allocator
tells; one counted step, which gives the bytes by kind and the curve. The batches' copies to the device are timed last,
so that the allocator tells of training steps alone. Speeds are over the timed steps of all fidelities,
bytes those of the fidelity with the greatest peak.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lofi.batches import WindowBatch
from lofi.config.recipe import Recipe
from lofi.data.sampler import BatchPlan, build_loader
from lofi.engine import deepspeed_engine
from lofi.engine.ema import WeightAverage
from lofi.engine.optimizers import build_optimizer
from lofi.engine.precision import autocast_section, check_precision
from lofi.engine.seeds import seed_model, seed_rank
from lofi.fidelity import Fidelity, FidelitySchedule
from lofi.memory.gpu_terms import read_gpu_terms
from lofi.memory.limits import limit_device
from lofi.memory.meter import count_engine
from lofi.memory.timeline import replay
from lofi.memory.timing import StepClock, transfer_seconds
from lofi.stages.build import Source, build_objective, open_source, training_schedule
from lofi.stages.evaluate import recipe_precision
from lofi.stages.profile_rows import AllocatorPeaks, AtFidelity, measured_row
from lofi.stages.synthetic_input import Assumed, InputShape, input_shape, synthetic_batches

MADE_AHEAD_PER_WORKER = 2
"""Batches that each of the loader's workers makes ahead (PyTorch's prefetch_factor)."""


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """How to measure."""

    steps: int = 10
    """Timed steps per fidelity."""
    warm_up: int = 2
    """Steps before them, per fidelity; the first makes the optimizer's states."""
    synthetic_input: bool = False
    """Random batches in place of the recipe's data, which then need not exist."""
    snapshot: str | None = None
    """Folder for PyTorch's own memory snapshot and profiler trace; None for neither."""
    limit_bytes: int | None = None
    """Refuse memory as a card of so many bytes would; on CUDA alone."""
    assumed: Assumed = field(default_factory=Assumed)
    """With synthetic input, where annotations or features do not exist."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; at least 1 must be timed.")
        if self.warm_up < 1:
            raise ValueError(
                f"warm_up is {self.warm_up}; it must be at least 1, since the first step makes the optimizer's states."
            )


def measure_recipe(
    recipe: Recipe, *, options: ProfileOptions, advance: Callable[[str], None] = lambda note: None
) -> dict[str, Any]:
    """One row of memory.json, of kind "measured".

    Args:
        recipe: a training recipe; its weights are not loaded.
        options: how to measure.
        advance: called after every step, with what is being done.

    Raises:
        ValueError: wrong data or recipe.
        torch.OutOfMemoryError, MemoryError, RuntimeError: as PyTorch raises where memory is short.
    """
    ranks = deepspeed_engine.start_ranks()
    if options.limit_bytes is not None:
        limit_device(options.limit_bytes, outside_bytes=read_gpu_terms().cuda_context_bytes)
    source = None if options.synthetic_input else open_source(replace(recipe, evaluation=None))
    shape = _shape_of(source) if source else input_shape(recipe, assumed=options.assumed)
    seed_model(recipe.seed)
    module = build_objective(
        recipe, classes=shape.classes, feature_width=shape.feature_width, with_weights=False
    ).to(ranks.device)
    encoder = getattr(module, "encoder", None)
    precision = recipe_precision(recipe, ranks.device)
    check_precision(
        precision,
        device_type=ranks.device.type,
        zero_stage=deepspeed_engine.zero_stage(recipe.deepspeed),
        has_temporal_convolution=encoder is not None and encoder.has_temporal_convolution,
    )
    optimizer = build_optimizer(module, recipe.optimizer_config)
    engine = deepspeed_engine.build_engine(
        module,
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        micro_batch_size=recipe.train.batch_size,
        gradient_clipping=recipe.train.gradient_clipping,
        autocast_section=autocast_section(precision),
        block=recipe.deepspeed,
    )
    decay = recipe.train.ema_decay
    average = None if decay is None else WeightAverage(module, decay=decay)
    take_step = partial(_step, engine, average=average, gradient_clipping=recipe.train.gradient_clipping)
    seed_rank(recipe.seed, ranks.rank)
    engine.train()
    measured: list[AtFidelity] = []
    copied: list[list[Tensor]] = []
    for fidelity in dict.fromkeys(shape.schedule.fidelities):
        batches = (
            synthetic_batches(recipe, shape, fidelity=fidelity)
            if source is None
            else _real_batches(recipe, source, fidelity=fidelity)
        )
        at_fidelity, batch = _measure_fidelity(
            engine,
            batches,
            fidelity=fidelity,
            options=options,
            device=ranks.device,
            advance=advance,
            take_step=take_step,
            means=[] if average is None else average.tensors,
            made_ahead=0 if source is None else MADE_AHEAD_PER_WORKER * recipe.data.workers,
        )
        measured.append(at_fidelity)
        copied.append(batch_tensors(batch))
    found = [
        replace(each, transfer_sec=transfer_seconds(tensors, device=ranks.device))
        for each, tensors in zip(measured, copied, strict=True)
    ]
    if options.snapshot is not None:
        _write_snapshot(take_step, batches, folder=Path(options.snapshot), device=ranks.device)
    return measured_row(
        recipe,
        found,
        source=source,
        precision=precision,
        warm_up=options.warm_up,
        assumptions=shape.assumptions,
    )


def num_steps(recipe: Recipe, options: ProfileOptions) -> int:
    """How often `measure_recipe` calls `advance`."""
    count = 1 if recipe.fidelity is None else len(dict.fromkeys(training_schedule(recipe).fidelities))
    return count * (options.warm_up + options.steps + 2)


def _shape_of(source: Source) -> InputShape:
    return InputShape(
        classes=source.annotations.classes,
        feature_width=source.feature_width,
        schedule=source.schedule,
        assumptions=(),
    )


def _real_batches(recipe: Recipe, source: Source, *, fidelity: Fidelity) -> Iterator[WindowBatch]:
    """Training batches at one fidelity, epoch after epoch."""
    plan = BatchPlan(
        num_windows=len(source.training),
        batch_size=recipe.train.batch_size,
        schedule=FidelitySchedule(fidelities=(fidelity,)),
        seed=recipe.seed,
    )
    epoch = 0
    while True:
        yield from build_loader(source.training, plan.batches(epoch=epoch), workers=recipe.data.workers)
        epoch += 1


def _measure_fidelity(
    engine: Any,
    batches: Iterator[WindowBatch],
    *,
    fidelity: Fidelity,
    options: ProfileOptions,
    device: torch.device,
    advance: Callable[[str], None],
    take_step: Callable[..., None],
    means: list[Tensor],
    made_ahead: int,
) -> tuple[AtFidelity, WindowBatch]:
    """All but the copies alone, and the batch of the last step.

    What the loader's workers made ahead while the model was built is drawn and dropped before: it would be served at once,
    and the wait for data would seem shorter than it is in a long run.
    """
    for _ in range(made_ahead):
        next(batches)
    for _ in range(options.warm_up):
        take_step(next(batches), clock=StepClock(device=device))
        advance(f"{fidelity}, warming up")
    clock = StepClock(device=device)
    for _ in range(options.steps):
        with clock.step():
            with clock.part("data"):
                batch = next(batches)
            take_step(batch, clock=clock)
        advance(f"{fidelity}, timing")
    allocator = _allocator_peaks(take_step, batch, device=device)
    advance(f"{fidelity}, reading the allocator")
    inputs = batch_tensors(batch) if device.type == "cpu" else []
    with count_engine(engine, device_type=device.type, inputs=inputs, averages=means) as count:
        take_step(batch, clock=StepClock(device=device))
    advance(f"{fidelity}, counting")
    at_fidelity = AtFidelity(fidelity=fidelity, clock=clock, timeline=replay(count), allocator=allocator)
    return at_fidelity, batch


def batch_tensors(batch: WindowBatch) -> list[Tensor]:
    """What of a batch a step computes with: frames or features, and the mask."""
    return [tensor for tensor in (batch.frames, batch.features, batch.mask) if tensor is not None]


def _step(
    engine: Any,
    batch: WindowBatch,
    *,
    clock: StepClock,
    average: WeightAverage | None,
    gradient_clipping: float,
    after_phase: Callable[[str], None] = lambda phase: None,
) -> None:
    """One training step as the loop takes it."""
    with clock.part("forward"):
        losses = engine(batch)
    after_phase("forward")
    with clock.part("backward"):
        engine.backward(losses.total)
    after_phase("backward")
    with clock.part("optimizer"):
        norm = deepspeed_engine.gradient_norm_before_step(engine)
        deepspeed_engine.step(engine, norm=norm, gradient_clipping=gradient_clipping)
        if average is not None:
            average.update()
    after_phase("optimizer")


def _allocator_peaks(
    take_step: Callable[..., None], batch: WindowBatch, *, device: torch.device
) -> AllocatorPeaks | None:
    """Take one step and read the allocator after each phase; None on a CPU, without a step."""
    if device.type == "cpu":
        return None
    reserved = torch.cuda.max_memory_reserved(device)
    peaks: dict[str, int] = {}

    def read(phase: str) -> None:
        torch.cuda.synchronize(device)
        peaks[phase] = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)

    torch.cuda.reset_peak_memory_stats(device)
    take_step(batch, clock=StepClock(device=device), after_phase=read)
    free, total = torch.cuda.mem_get_info(device)
    return AllocatorPeaks(
        allocated_bytes=max(peaks.values()),
        reserved_bytes=reserved,
        outside_bytes=total - free - torch.cuda.memory_reserved(device),
        phase_bytes=peaks,
    )


def _write_snapshot(
    take_step: Callable[..., None], batches: Iterator[WindowBatch], *, folder: Path, device: torch.device
) -> None:
    """PyTorch's own memory snapshot (CUDA: memory_snapshot.pickle) and profiler trace (trace.json) of one more step."""
    folder.mkdir(parents=True, exist_ok=True)
    batch = next(batches)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        torch.cuda.memory._record_memory_history(max_entries=200_000)
    with torch.profiler.profile(activities=activities, profile_memory=True, record_shapes=True) as profiler:
        take_step(batch, clock=StepClock(device=device))
    profiler.export_chrome_trace(str(folder / "trace.json"))
    if device.type == "cuda":
        torch.cuda.memory._dump_snapshot(str(folder / "memory_snapshot.pickle"))
        torch.cuda.memory._record_memory_history(enabled=None)
