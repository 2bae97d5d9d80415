"""Train: recipe -> run directory. Every objective, one or many ranks."""

import gc
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lofi.config.earlier import written_recipe_text
from lofi.config.load import recipe_to_yaml
from lofi.config.recipe import Recipe, recipe_to_plain
from lofi.data.sampler import BatchPlan, Loader
from lofi.engine import deepspeed_engine
from lofi.engine.checkpoint import WEIGHTS_FILE, Position, check_classes, load_checkpoint, newest_whole
from lofi.engine.ema import WeightAverage
from lofi.engine.loop import Outcome, train
from lofi.engine.metrics import read_metrics
from lofi.engine.optimizers import build_optimizer
from lofi.engine.precision import autocast_section, check_precision
from lofi.engine.run_directory import (
    RunDirectory,
    check_run_directory,
    environment,
    open_run_directory,
    package_versions,
)
from lofi.engine.schedules import step_factor
from lofi.engine.seeds import seed_model, seed_rank
from lofi.engine.validation import SELECTION_NOTE, Judge, Validation, best_validation
from lofi.files import write_json
from lofi.memory.meter import StepMeter, memory_row
from lofi.progress import say
from lofi.stages.build import Source, build_objective, open_source
from lofi.stages.evaluate import Evaluated, evaluate_run, recipe_precision, write_evaluated
from lofi.stages.validation import Validator, judge_of


def run_training(recipe: Recipe, *, resume: bool = False, restart: bool = False) -> RunDirectory:
    """Train a recipe to its end, evaluate it where it says so, and leave a finished run directory.

    Args:
        recipe: from `config.load.load_recipe`.
        resume: go on where an interrupted run of the same recipe stopped (or return a finished one as it is).
        restart: delete an earlier run in the same directory.

    Raises:
        ValueError: anything wrong with recipe, data, weights or run directory, before the first step.
    """
    recipe_text = recipe_to_yaml(recipe)
    run = RunDirectory(path=Path(recipe.output))
    if not restart:
        written_text = written_recipe_text(run.recipe, like=recipe)
        check_run_directory(run, recipe_text=recipe_text, written_text=written_text, resume=resume)
        if run.is_finished:
            say(f"{run.path} is finished already" + _earlier_note(run, written_text=written_text))
            return run
    ranks = deepspeed_engine.start_ranks()
    source = open_source(recipe)
    seed_model(recipe.seed)
    module = build_objective(recipe, classes=source.annotations.classes, feature_width=source.feature_width)
    plan = _plan(recipe, source, ranks)
    _check_steps(recipe, plan.steps_per_epoch)
    precision = _precision(recipe, module, ranks)
    deepspeed_engine.check_zero_section(recipe.deepspeed)
    judge = judge_of(recipe, source.annotations, ranks=ranks)

    deepspeed_engine.wait_for_ranks()
    if ranks.rank == 0:
        open_run_directory(run.path, recipe_text=recipe_text, restart=restart)
    deepspeed_engine.wait_for_ranks()

    trained = _train(
        recipe,
        run,
        module.to(ranks.device),
        source=source,
        plan=plan,
        ranks=ranks,
        precision=precision,
        judge=judge,
    )
    del module
    gc.collect()
    if ranks.device.type == "cuda":
        torch.cuda.empty_cache()
    _finish(recipe, run, trained, skipped=source.skipped_videos, judge=judge, ranks=ranks)
    return run


def _earlier_note(run: RunDirectory, *, written_text: str) -> str:
    """What to say of a finished run whose recipe.yaml lacks options that this version has; "" where it does not."""
    if run.recipe.read_text() == written_text:
        return ""
    packages: dict[str, str] = {}
    if run.environment.is_file():
        packages = json.loads(run.environment.read_text()).get("packages", {})
    made_by = ", ".join(f"{name} {version}" for name, version in packages.items())
    return (
        f", by an older version of this package ({made_by or 'which one, it does not say'}): options that its "
        f"{run.recipe.name} does not have count as their defaults"
    )


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What is left of a training when its engine is gone."""

    outcome: Outcome
    memory: dict[str, Any]
    """The row of memory.json."""
    num_parameters: int
    """Weights that trained."""
    validations: tuple[Validation, ...] = ()
    """Those while training, oldest first."""
    final: Evaluated | None = None
    """The validation of the last epoch, where this process made it: its predictions need not be made again."""


def _train(
    recipe: Recipe,
    run: RunDirectory,
    module: nn.Module,
    *,
    source: Source,
    plan: BatchPlan,
    ranks: deepspeed_engine.Ranks,
    precision: str,
    judge: Judge | None,
) -> Trained:
    """The life of the engine: built, restored, trained, measured, closed. Collective."""
    num_parameters = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    engine = _engine(recipe, module, plan=plan, ranks=ranks, precision=precision)
    decay = recipe.train.ema_decay
    average = None if decay is None else WeightAverage(module, decay=decay)
    seed_rank(recipe.seed, ranks.rank)
    try:
        start = _restore(engine, run, classes=source.annotations.classes, ranks=ranks, average=average)
        meter = StepMeter(
            engine,
            device=ranks.device,
            zero_stage=deepspeed_engine.zero_stage(recipe.deepspeed),
            averages=() if average is None else average.tensors,
        )
        validator = None
        if judge is not None:
            validator = Validator(
                engine,
                judge=judge,
                recipe=recipe,
                run=run,
                annotations=source.annotations,
                ranks=ranks,
                start=start,
                average=average,
            )
        loader = Loader(source.training, workers=recipe.data.workers)
        outcome = train(
            engine,
            batches=lambda *, epoch, first_batch: loader.batches(
                plan.batches(epoch=epoch, first_batch=first_batch)
            ),
            batches_per_epoch=plan.steps_per_epoch,
            schedule=source.schedule,
            config=recipe.train,
            run=run,
            ranks=ranks,
            meter=meter,
            start=start,
            weights_metadata=weights_metadata(recipe, source.annotations.classes),
            validate=validator,
            average=average,
        )
        row = memory_row(
            meter,
            recipe=run.path.name,
            device=environment()["device"],
            world_size=ranks.world_size,
            versions=package_versions(),
            snippets_per_sec=outcome.throughput.snippets_per_sec,
            sec_per_step=outcome.throughput.sec_per_step,
            steps=outcome.throughput.steps,
        )
    finally:
        deepspeed_engine.close_engine(engine)
    return Trained(
        outcome=outcome,
        memory=row,
        num_parameters=num_parameters,
        validations=() if validator is None else tuple(validator.validations),
        final=None if validator is None else validator.final,
    )


def weights_metadata(recipe: Recipe, classes: tuple[str, ...]) -> dict[str, str]:
    """What the header of weights.safetensors says: enough to rebuild the modules without the run directory."""
    plain = recipe_to_plain(recipe)
    kept = {
        key: plain[key]
        for key in ("encoder", "adapter", "head", "fidelity", "grid", "objective")
        if key in plain
    }
    return {"recipe": json.dumps(kept), "classes": json.dumps(list(classes))}


def _plan(recipe: Recipe, source: Source, ranks: deepspeed_engine.Ranks) -> BatchPlan:
    try:
        return BatchPlan(
            num_windows=len(source.training),
            batch_size=recipe.train.batch_size,
            schedule=source.schedule,
            seed=recipe.seed,
            rank=ranks.rank,
            world_size=ranks.world_size,
        )
    except ValueError as error:
        raise ValueError(f"train.batch_size: {error}") from error


def _check_steps(recipe: Recipe, steps_per_epoch: int) -> None:
    """Checkpoints must not fall between two steps of the optimizer."""
    accumulated = recipe.deepspeed.get("gradient_accumulation_steps", 1)
    for what, steps in (
        ("the steps of an epoch", steps_per_epoch),
        ("train.checkpoint_every_steps", recipe.train.checkpoint_every_steps or accumulated),
    ):
        if steps % accumulated:
            raise ValueError(
                f"deepspeed.gradient_accumulation_steps is {accumulated} but {what} are {steps}; they must be a "
                "multiple of it, so that no gradient is lost at a checkpoint."
            )


def _precision(recipe: Recipe, module: nn.Module, ranks: deepspeed_engine.Ranks) -> str:
    precision = recipe_precision(recipe, ranks.device)
    encoder = getattr(module, "encoder", None)
    check_precision(
        precision,
        device_type=ranks.device.type,
        zero_stage=deepspeed_engine.zero_stage(recipe.deepspeed),
        has_temporal_convolution=encoder is not None and encoder.has_temporal_convolution,
    )
    return precision


def _engine(
    recipe: Recipe, module: nn.Module, *, plan: BatchPlan, ranks: deepspeed_engine.Ranks, precision: str
) -> Any:
    optimizer = build_optimizer(module, recipe.optimizer_config)
    accumulated = recipe.deepspeed.get("gradient_accumulation_steps", 1)
    factor = step_factor(
        recipe.schedule_config,
        num_epochs=recipe.train.epochs,
        steps_per_epoch=plan.steps_per_epoch / accumulated,
    )
    return deepspeed_engine.build_engine(
        module,
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
        micro_batch_size=recipe.train.batch_size // ranks.world_size,
        gradient_clipping=recipe.train.gradient_clipping,
        autocast_section=autocast_section(precision),
        block=recipe.deepspeed,
    )


def _restore(
    engine: Any,
    run: RunDirectory,
    *,
    classes: tuple[str, ...],
    ranks: deepspeed_engine.Ranks,
    average: WeightAverage | None,
) -> Position:
    checkpoint, passed_over = newest_whole(run.checkpoints, world_size=ranks.world_size, device=ranks.device)
    for line in passed_over:
        say(f"not whole, passed over: {line}")
    if checkpoint is None:
        return Position()
    check_classes(checkpoint / WEIGHTS_FILE, classes)
    say(f"going on from {checkpoint}")
    return load_checkpoint(engine, checkpoint, average=average)


def _finish(
    recipe: Recipe,
    run: RunDirectory,
    trained: Trained,
    *,
    skipped: dict[str, str],
    judge: Judge | None,
    ranks: deepspeed_engine.Ranks,
) -> None:
    """Write memory.json, evaluate, and write summary.json last. Collective.

    Args:
        recipe: of the run.
        run: its directory.
        trained: what the engine left.
        skipped: video -> reason, of those that training left out from the start.
        judge: of the run while it trained, where there was one.
        ranks: all of them.
    """
    failures = dict(skipped)
    for each in deepspeed_engine.gather_from_ranks(trained.outcome.failures):
        failures.update(each)
    if ranks.rank == 0:
        write_json(run.memory, [trained.memory])
    average_mean_ap = None
    evaluation_sec = sum(row.seconds for row in trained.validations)
    best = best_validation(run.checkpoints, trained.validations)
    if recipe.evaluation is not None:
        evaluated = _evaluate(recipe, run, trained, best=best, ranks=ranks)
        average_mean_ap = evaluated.results.average_mAP
        evaluation_sec += evaluated.seconds
        failures.update(evaluated.failures)
    if judge is not None:
        weights: str | None = judge.weights
    else:
        weights = None if recipe.evaluation is None else recipe.evaluation.weights
    if ranks.rank == 0:
        training_sec = sum(step["seconds"] for step in read_metrics(run.metrics))
        write_json(
            run.summary,
            {
                **asdict(trained.outcome.position),
                "objective": recipe.objective.name,
                "gradient": recipe.gradient.name,
                "training_seconds": training_sec,
                "evaluation_seconds": evaluation_sec,
                "peak_bytes": trained.memory["peak_bytes"],
                "bytes": trained.memory["bytes"],
                "snippets_per_sec": trained.memory["snippets_per_sec"],
                "trained_parameters": trained.num_parameters,
                "average_mAP": average_mean_ap,
                "weights": weights,
                "best": None if best is None else asdict(best),
                "skipped_videos": failures,
            },
        )
    deepspeed_engine.wait_for_ranks()
    if failures:
        what = "have no features" if recipe.reads_features else "could not be decoded"
        say(f"{len(failures)} videos {what} and were skipped; see {run.summary}")


def _evaluate(
    recipe: Recipe,
    run: RunDirectory,
    trained: Trained,
    *,
    best: Validation | None,
    ranks: deepspeed_engine.Ranks,
) -> Evaluated:
    """The result of the weights that count: the last validation's where it was of those, else predicted anew. Collective."""
    assert recipe.evaluation is not None
    takes_best = recipe.evaluation.weights == "best"
    if trained.final is None or (takes_best and trained.validations[-1] != best):
        return evaluate_run(run.path, recipe=recipe, ranks=ranks)
    if takes_best:
        say(f"the newest checkpoint is the best: {SELECTION_NOTE}")
    if ranks.rank == 0:
        write_evaluated(run, trained.final)
    return replace(trained.final, seconds=0.0)  # its seconds are counted among the validations'
