"""Plan: recipe -> predicted peak bytes of a step, without data, without weights and without a GPU."""

import time
import traceback
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lofi.config.load import is_extraction_recipe
from lofi.config.recipe import Choice, Recipe
from lofi.engine import deepspeed_engine
from lofi.engine.ema import WeightAverage
from lofi.engine.optimizers import build_optimizer
from lofi.engine.precision import check_precision, device_has_bf16, resolve_precision
from lofi.engine.run_directory import package_versions
from lofi.fidelity import Fidelity
from lofi.files import write_json
from lofi.memory.counting import LiveTensorCount
from lofi.memory.cuda_rules import cuda_rules, step_all_weights_in_one_call
from lofi.memory.fake import fake_tensors
from lofi.memory.gpu_terms import read_gpu_terms
from lofi.memory.made_up_batch import made_up_batch
from lofi.memory.planned_step import count_step, make_optimizer_states
from lofi.memory.prediction import Prediction, StepPrediction, predict_step, prediction_row
from lofi.memory.repeated_chunks import num_chunks, stand_in_for_repeated_chunks
from lofi.memory.zero_states import Zero, read_zero, sent_bytes_of
from lofi.progress import say, track
from lofi.report.plan_tables import print_plan
from lofi.stages.build import build_objective
from lofi.stages.method_names import method_name
from lofi.stages.named_recipes import NamedRecipe
from lofi.stages.synthetic_input import (
    SEGMENTS_PER_WINDOW,
    Assumed,
    InputShape,
    decoded_size,
    drawn_changes,
    input_shape,
)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """For what to predict."""

    device: Literal["cuda", "cpu"] = "cuda"
    """Where the run will train."""
    has_bf16: bool = True
    """Whether that GPU computes in bf16 (Ampere and later), which decides what `train.precision: auto` is."""
    capability: tuple[int, int] = (0, 0)
    """Compute capability of that GPU, where it is known: it decides the size of a library's workspace."""
    world_size: int = 1
    """Ranks that share the recipe's batch."""
    assumed: Assumed = field(default_factory=Assumed)
    """Where annotations or features are not there to ask."""

    def __post_init__(self) -> None:
        if self.device not in ("cuda", "cpu"):
            raise ValueError(f"device is {self.device!r}; it must be cuda or cpu.")
        if self.world_size < 1:
            raise ValueError(f"world_size is {self.world_size}; it must be at least 1.")


def options_of_this_device(*, world_size: int = 1, assumed: Assumed | None = None) -> PlanOptions:
    """For this machine: its first GPU, in bf16 where that has it, else the CPU."""
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    return PlanOptions(
        device=device,
        has_bf16=device_has_bf16(torch.device(device)),
        capability=torch.cuda.get_device_capability() if device == "cuda" else (0, 0),
        world_size=world_size,
        assumed=assumed or Assumed(),
    )


def predict_peak(
    recipe: Recipe,
    *,
    options: PlanOptions | None = None,
    steps: MutableMapping[Fidelity, StepPrediction] | None = None,
) -> Prediction:
    """Run a step of the recipe at each of its fidelities on fake tensors, and say what it holds at its peak.

    Args:
        recipe: of a training; neither its data nor its weights need exist.
        options: device, ranks, and what to assume.
        steps: predicted already, of recipes that differ from this one in their fidelity alone; steps run now are added.

    Raises:
        ValueError: what the run itself would refuse: a fidelity that the encoder cannot take, a batch that the ranks cannot
            share, a precision that trains wrongly.
    """
    options = options or PlanOptions()
    steps = {} if steps is None else steps
    shape = input_shape(recipe, assumed=options.assumed)
    zero = read_zero(recipe.deepspeed, world_size=options.world_size)
    batch_size = _batch_size_of_rank(recipe, options.world_size)
    precision = resolve_precision(
        recipe.train.precision, device_type=options.device, has_bf16=options.has_bf16, zero_stage=zero.stage
    )
    terms = read_gpu_terms(options.capability) if options.device == "cuda" else None
    with torch.random.fork_rng(devices=[]), fake_tensors():
        module = build_objective(
            recipe, classes=shape.classes, feature_width=shape.feature_width, with_weights=False
        )
        module.train()
        encoder = getattr(module, "encoder", None)
        check_precision(
            precision,
            device_type=options.device,
            zero_stage=zero.stage,
            has_temporal_convolution=encoder is not None and encoder.has_temporal_convolution,
        )
        optimizer = build_optimizer(module, recipe.optimizer_config)
        if options.device == "cuda":
            step_all_weights_in_one_call(optimizer)
        weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        trained = sum(parameter.numel() for parameter in weights)
        zero = replace(zero, sent_bytes=sent_bytes_of(module, trained=weights, autocasts=precision != "fp32"))
        fidelities = tuple(dict.fromkeys(shape.schedule.fidelities))
        missing = [fidelity for fidelity in fidelities if fidelity not in steps]
        if missing:
            make_optimizer_states(optimizer)
        decay = recipe.train.ema_decay
        average = None if decay is None else WeightAverage(module, decay=decay)
        for fidelity in missing:
            count = _count(
                recipe, module, optimizer=optimizer, fidelity=fidelity, shape=shape, batch_size=batch_size,
                precision=precision, device=options.device, world_size=options.world_size, average=average,
            )  # fmt: skip
            steps[fidelity] = predict_step(
                count, fidelity=str(fidelity), zero=zero, trained_elements=trained, gpu=terms
            )
    return Prediction(
        recipe=Path(recipe.output).name,
        method=method_name(recipe),
        device=options.device,
        precision=precision,
        world_size=options.world_size,
        zero_stage=zero.stage,
        batch_size=batch_size,
        steps=tuple(steps[fidelity] for fidelity in fidelities),
        assumptions=shape.assumptions,
        deepspeed_estimate_bytes=_deepspeed_estimate(module, zero, trained=trained),
        is_calibrated=terms is not None and terms.calibrated,
    )


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What became of several recipes."""

    rows: list[dict[str, Any]]
    """As memory.json has them, of the recipes that could be planned."""
    failed: tuple[str, ...]
    """A line for each of the others: its name and why."""


def run_plan(
    recipes: Sequence[NamedRecipe], *, options: PlanOptions, output: str | Path | None = None
) -> Planned:
    """Predict every recipe, print the table, and write the rows to a memory.json where one is named.

    Of several recipes one that cannot be planned is a line at the end, with a traceback above where the error is no
    ValueError but a bug's. An only one raises: ValueError, with its name, or whatever else went wrong in it.
    """
    rows, failed = [], []
    begin = time.perf_counter()
    with track("planning", total=len(recipes)) as advance:
        for each in recipes:
            try:
                prediction = predict_peak(each.recipe, options=options)
                rows.append(
                    prediction_row(replace(prediction, recipe=each.name), versions=package_versions())
                )
            except Exception as error:
                if len(recipes) > 1:
                    failed.append(f"{each.name}: {_reason(error)}")
                    if not isinstance(error, ValueError):
                        say("".join(traceback.format_exception(error)).rstrip())
                elif isinstance(error, ValueError):
                    raise ValueError(f"{each.name}: {error}") from error
                else:
                    raise
            advance(note=each.name)
    seconds = time.perf_counter() - begin
    if rows:
        print_plan(rows)
    say(f"planned in {seconds:.1f} s")
    if output is not None and rows:
        write_json(output, rows)
        say(f"written: {output}")
    for line in failed:
        say(f"not planned: {line}")
    return Planned(rows=rows, failed=tuple(failed))


def _reason(error: Exception) -> str:
    """In one line."""
    if isinstance(error, ValueError):
        return " ".join(str(error).split())
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first} (its traceback is above)"


def training_files(files: Sequence[str]) -> list[str]:
    """The recipes that train; a line for each of the others. Raises ValueError where none does."""
    training = [file for file in files if not is_extraction_recipe(file)]
    for file in files:
        if file not in training:
            say(f"{file}: left out, since it has no objective: nothing trains, so there is no step to plan")
    if not training:
        raise ValueError(
            f"{', '.join(files)}: no objective, so nothing trains and there is no step to plan; name a training recipe."
        )
    return training


def _count(
    recipe: Recipe,
    module: nn.Module,
    *,
    optimizer: torch.optim.Optimizer,
    fidelity: Fidelity,
    shape: InputShape,
    batch_size: int,
    precision: str,
    device: str,
    average: WeightAverage | None,
    world_size: int,
) -> LiveTensorCount:
    """One counted step at one fidelity."""
    is_cuda = device == "cuda"
    batch = made_up_batch(
        fidelity,
        num_windows=batch_size,
        num_segments=SEGMENTS_PER_WINDOW if fidelity.num_snippets > 1 else 1,
        num_classes=len(shape.classes),
        feature_width=shape.feature_width,
        decoded=decoded_size(recipe, fidelity),
        drawn=drawn_changes(recipe),
        host=torch.device("meta") if is_cuda else None,
    )
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    if precision != "fp32":
        autocast = partial(torch.autocast, "cpu", dtype=DTYPES[precision])
    rules: AbstractContextManager[object] = cuda_rules(module) if is_cuda else nullcontext()
    standing_in: AbstractContextManager[None] = nullcontext()
    chunk_size = getattr(recipe.gradient.config, "chunk_size", None)
    if recipe.encoder is not None and chunk_size is not None:
        chunks = num_chunks(batch_size * fidelity.num_snippets, chunk_size=chunk_size)
        drawn = _num_drawn(recipe.gradient, chunks)
        standing_in = stand_in_for_repeated_chunks(
            module.get_submodule("encoder"),
            chunks=chunks,
            drawn=drawn,
            recomputed=_num_recomputed(recipe.gradient, drawn),
        )
    with rules, standing_in:
        return count_step(
            module,
            optimizer=optimizer,
            batch=batch,
            gradient_clipping=recipe.train.gradient_clipping,
            autocast=autocast,
            reduces_in_bucket=deepspeed_engine.reduces_in_buckets(recipe.deepspeed, world_size=world_size),
            accumulates=recipe.deepspeed.get("gradient_accumulation_steps", 1) > 1,
            average=average,
        )


def _num_drawn(gradient: Choice, chunks: int) -> int:
    """Chunks that carry gradient to the encoder."""
    if gradient.name == "sampled":
        return max(1, round(gradient.config.share * chunks))
    return chunks if gradient.name == "chunked" else 0


def _num_recomputed(gradient: Choice, drawn: int) -> int:
    """Of the chunks that carry gradient, those whose activations are not kept."""
    if gradient.name == "chunked":
        return drawn - 1
    return drawn if getattr(gradient.config, "recompute", False) else 0


def _batch_size_of_rank(recipe: Recipe, world_size: int) -> int:
    batch_size = recipe.train.batch_size
    if batch_size % world_size:
        raise ValueError(
            f"train.batch_size is {batch_size}, which {world_size} ranks cannot share evenly; take a multiple of "
            f"{world_size}."
        )
    return batch_size // world_size


def _deepspeed_estimate(module: nn.Module, zero: Zero, *, trained: int) -> int | None:
    """At the stages for which DeepSpeed has an estimator."""
    if zero.stage < 2:
        return None
    largest = max(
        sum(parameter.numel() for parameter in each.parameters(recurse=False)) for each in module.modules()
    )
    return deepspeed_engine.estimate_model_states(
        stage=zero.stage,
        num_weights=trained,
        largest_module_weights=largest,
        world_size=zero.world_size,
        offloads_optimizer=zero.offloads_optimizer,
    )
