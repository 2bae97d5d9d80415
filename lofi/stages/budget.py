"""Budget: a recipe and a number of bytes -> the ways to train it that fit, each verified by a prediction of its own.

For every gradient path the largest fidelity is looked for that fits (the recipe's full fidelity first, then LoFi's
reductions), at it the largest batch up to the recipe's, and with that the largest chunk. Bytes grow with batch and with
chunk, so both are found by bisection. Ways are ordered by their predicted cost per window: operations of the encoder,
recomputation counted.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lofi.config.recipe import Choice, Recipe, check_recipe
from lofi.engine.run_directory import package_versions
from lofi.fidelity import LEAST_SNIPPETS, Reduction, build_schedule
from lofi.files import write_json
from lofi.gradients.choices import CheckpointedConfig, ChunkedConfig, JointConfig, SampledConfig
from lofi.memory.budget import parse_bytes
from lofi.memory.encoder_cost import passes_per_snippet, snippet_flops
from lofi.memory.fake import fake_tensors
from lofi.memory.prediction import Prediction, prediction_row
from lofi.progress import say, track
from lofi.report.plan_tables import print_budget
from lofi.report.units import bytes_text
from lofi.stages.build import open_encoder
from lofi.stages.plan import PlanOptions, predict_peak
from lofi.stages.profile import NamedRecipe

REDUCTIONS: tuple[Reduction, ...] = ("none", "cyclic", "space_time", "space", "time")
"""Full fidelity first; the reductions have a quarter of its volume each, cyclic sees all of them in turn."""

FIRST_CHUNK = {"chunked": 4, "sampled": 8}
"""Snippets of a chunk while the batch is looked for; where nothing fits, single snippets of one window per rank are tried."""

EXACT = ("joint", "checkpointed", "chunked")
"""Gradient paths whose gradient is the full one."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to train a recipe within a budget."""

    recipe: Recipe
    overrides: tuple[str, ...]
    """To paste behind the recipe's own file."""
    prediction: Prediction
    flops_per_window: float
    """Of the encoder in one step, per window, mean over the fidelities in turn."""

    @property
    def reduction(self) -> str:
        assert self.recipe.fidelity is not None
        return self.recipe.fidelity.reduction

    @property
    def name(self) -> str:
        """The method, and what of the encoder is recomputed besides."""
        config = self.recipe.gradient.config
        if getattr(config, "checkpoint_blocks", False):
            return f"{self.prediction.method}, blocks recomputed"
        if getattr(config, "recompute", False):
            return f"{self.prediction.method}, recomputed"
        return self.prediction.method


class BudgetSolver:
    """Finds ways to train one recipe; predictions are made once, whatever the number of budgets."""

    def __init__(self, recipe: Recipe, *, options: PlanOptions | None = None) -> None:
        """Raises ValueError for a recipe whose encoder does not train: nothing could be chosen."""
        if recipe.encoder is None or recipe.fidelity is None or recipe.gradient.name == "detached":
            raise ValueError(
                "memory.budget chooses how an encoder is trained; this recipe trains none (its features are read from disk "
                "or its gradient is detached). Remove memory.budget, or lower train.batch_size."
            )
        self._recipe = recipe
        self._options = options or PlanOptions()
        self._predictions: dict[tuple[str, ...], Prediction | None] = {}
        self._snippet_flops: dict[tuple[int, int, int], int] = {}

    def ways(self, budget_bytes: int, *, advance: Callable[[], None] = lambda: None) -> list[Way]:
        """Every gradient path's best way that fits, cheapest per window first; empty where none fits."""
        found = []
        for gradient in self._gradients():
            way = self._best_of(gradient, budget_bytes)
            if way is not None:
                found.append(way)
            advance()
        return sorted(found, key=lambda way: (way.flops_per_window, -way.recipe.train.batch_size))

    @property
    def num_paths(self) -> int:
        """How often `ways` calls `advance`."""
        return len(self._gradients())

    def least_bytes(self) -> int:
        """The smallest need that was predicted so far."""
        return min(each.needed_bytes for each in self._predictions.values() if each is not None)

    def _gradients(self) -> list[Choice]:
        norm = getattr(self._recipe.encoder.config, "norm", "frozen") if self._recipe.encoder else "frozen"
        joint = Choice(name="joint", config=JointConfig())
        if norm == "train":
            return [joint]
        return [
            joint,
            Choice(name="checkpointed", config=CheckpointedConfig()),
            Choice(name="chunked", config=ChunkedConfig()),
            Choice(name="chunked", config=ChunkedConfig(checkpoint_blocks=True)),
            Choice(name="sampled", config=SampledConfig()),
            Choice(name="sampled", config=SampledConfig(recompute=True)),
        ]

    def _best_of(self, gradient: Choice, budget_bytes: int) -> Way | None:
        """At the largest fidelity that fits, the largest batch, then the largest chunk."""
        assert self._recipe.fidelity is not None
        for reduction in REDUCTIONS:
            if self._recipe.fidelity.num_snippets < LEAST_SNIPPETS[reduction]:
                continue
            way = self._best_at(gradient, reduction, budget_bytes)
            if way is not None:
                return way
        return None

    def _best_at(self, gradient: Choice, reduction: Reduction, budget_bytes: int) -> Way | None:
        has_chunks = gradient.name in FIRST_CHUNK
        if has_chunks:
            gradient = _with_chunk(gradient, FIRST_CHUNK[gradient.name])
        start = self._changed(gradient, reduction=reduction)

        def with_batch(batch_size: int) -> Recipe:
            return replace(start, train=replace(start.train, batch_size=batch_size))

        found = self._largest(self._batch_sizes(), with_batch, budget_bytes)
        if found is None and has_chunks:
            one = with_batch(self._options.world_size)
            one = replace(one, gradient=_with_chunk(gradient, 1))
            found = one if self._fits(one, budget_bytes) else None
        if found is None:
            return None
        if has_chunks:
            base = found

            def with_chunk(chunk_size: int) -> Recipe:
                return replace(base, gradient=_with_chunk(gradient, chunk_size))

            found = self._largest(self._chunk_sizes(base), with_chunk, budget_bytes)
            assert found is not None
        return self._way(found)

    def _changed(self, gradient: Choice, *, reduction: Reduction) -> Recipe:
        assert self._recipe.fidelity is not None
        keeps_cycle = reduction == self._recipe.fidelity.reduction == "cyclic"
        cycle: dict[str, Any] = {} if keeps_cycle else {"cycle": "long", "cycle_every": None}
        fidelity = replace(self._recipe.fidelity, reduction=reduction, **cycle)
        return replace(self._recipe, gradient=gradient, fidelity=fidelity, memory=None)

    def _batch_sizes(self) -> list[int]:
        """The recipe's, its halves, and one window per rank; all that the ranks can share."""
        ranks, size = self._options.world_size, self._recipe.train.batch_size
        sizes = {ranks}
        while size >= ranks:
            sizes.add(size // ranks * ranks)
            size //= 2
        return sorted(sizes)

    def _chunk_sizes(self, recipe: Recipe) -> list[int]:
        """Powers of two from the recipe's chunk on, as long as they cut the largest fidelity's snippets at all."""
        assert recipe.fidelity is not None
        snippets = max(each.num_snippets for each in build_schedule(recipe.fidelity).fidelities)
        snippets *= recipe.train.batch_size // self._options.world_size
        first = recipe.gradient.config.chunk_size
        return [first, *(size for power in range(16) if first < (size := 2**power) < snippets)]

    def _largest(
        self, sizes: Sequence[int], change: Callable[[int], Recipe], budget_bytes: int
    ) -> Recipe | None:
        """The change by the largest size that fits; sizes ascend, and bytes with them."""
        if self._fits(change(sizes[-1]), budget_bytes):
            return change(sizes[-1])
        if not self._fits(change(sizes[0]), budget_bytes):
            return None
        low, high = 0, max(0, len(sizes) - 2)
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(change(sizes[middle]), budget_bytes):
                low = middle
            else:
                high = middle - 1
        return change(sizes[low])

    def _fits(self, recipe: Recipe, budget_bytes: int) -> bool:
        prediction = self._predict(recipe)
        return prediction is not None and prediction.needed_bytes <= budget_bytes

    def _predict(self, recipe: Recipe) -> Prediction | None:
        """None where the encoder cannot take the fidelity, or the recipe cannot be."""
        key = self._overrides(recipe)
        if key not in self._predictions:
            try:
                check_recipe(recipe)
                self._predictions[key] = predict_peak(recipe, options=self._options)
            except ValueError:
                self._predictions[key] = None
        return self._predictions[key]

    def _way(self, recipe: Recipe) -> Way:
        prediction = self._predict(recipe)
        assert prediction is not None
        return Way(
            recipe=recipe,
            overrides=self._overrides(recipe),
            prediction=prediction,
            flops_per_window=self._flops_per_window(recipe),
        )

    def _overrides(self, recipe: Recipe) -> tuple[str, ...]:
        """key=value for all that differs from the recipe that was given; null takes an option away."""
        fidelity, before = recipe.fidelity, self._recipe.fidelity
        assert fidelity is not None
        assert before is not None
        config, config_before = recipe.gradient.config, self._recipe.gradient.config
        changes = {"gradient.name": recipe.gradient.name}
        fields, fields_before = type(config).__dataclass_fields__, type(config_before).__dataclass_fields__
        for name in fields_before:
            if name not in fields:  # the file may set it, be it to its default
                changes[f"gradient.{name}"] = "null"
        for name in fields:
            before_value = getattr(config_before, name) if name in fields_before else fields[name].default
            if getattr(config, name) != before_value:
                changes[f"gradient.{name}"] = _written(getattr(config, name))
        for name in ("reduction", "cycle", "cycle_every"):
            if getattr(fidelity, name) != getattr(before, name):
                changes[f"fidelity.{name}"] = _written(getattr(fidelity, name))
        if recipe.train.batch_size != self._recipe.train.batch_size:
            changes["train.batch_size"] = str(recipe.train.batch_size)
        return tuple(f"{key}={value}" for key, value in changes.items())

    def _flops_per_window(self, recipe: Recipe) -> float:
        assert recipe.fidelity is not None
        passes = passes_per_snippet(recipe.gradient.name, recipe.gradient.config)
        fidelities = build_schedule(recipe.fidelity).fidelities
        costs = []
        for fidelity in fidelities:
            size = (fidelity.frames, fidelity.height, fidelity.width)
            if size not in self._snippet_flops:
                assert recipe.encoder is not None
                with fake_tensors():
                    encoder = open_encoder(recipe.encoder, with_weights=False)
                    self._snippet_flops[size] = snippet_flops(encoder, fidelity)
            costs.append(passes * fidelity.num_snippets * self._snippet_flops[size])
        return sum(costs) / len(costs)


def _with_chunk(gradient: Choice, chunk_size: int) -> Choice:
    return replace(gradient, config=replace(gradient.config, chunk_size=chunk_size))


def best_way(ways: Sequence[Way]) -> Way:
    """Full fidelity before reduced, the full gradient before a sampled one, then the cheapest, then the largest batch."""
    return min(
        ways,
        key=lambda way: (
            REDUCTIONS.index(way.recipe.fidelity.reduction) if way.recipe.fidelity else 0,
            way.recipe.gradient.name not in EXACT,
            way.flops_per_window,
            -way.recipe.train.batch_size,
        ),
    )


def solve_budget(recipe: Recipe, *, budget: str, options: PlanOptions | None = None) -> list[Way]:
    """Every way that fits, cheapest first. Raises ValueError where none does, with the least that is needed."""
    solver = BudgetSolver(recipe, options=options)
    with track(f"what fits {budget}", total=solver.num_paths) as advance:
        ways = solver.ways(parse_bytes(budget), advance=advance)
    if not ways:
        raise ValueError(
            f"memory.budget is {budget}, in which no gradient path fits, even with one window, one snippet at a time and "
            f"LoFi's reductions: the least is {bytes_text(solver.least_bytes())}. Take a smaller encoder, fewer or smaller "
            "frames, ZeRO with more ranks (deepspeed.zero_optimization), or offload."
        )
    return ways


def run_budget(
    recipes: Sequence[NamedRecipe],
    *,
    budget: str,
    options: PlanOptions,
    output: str | Path | None = None,
) -> None:
    """Print for every recipe the ways that fit, and write their rows to a memory.json where one is named."""
    rows = []
    for each in recipes:
        try:
            ways = solve_budget(each.recipe, budget=budget, options=options)
        except ValueError as error:
            raise ValueError(f"{each.name}: {error}") from error
        best = best_way(ways)
        own = [way_row(way, recipe=each.name, is_best=way is best) for way in ways]
        print_budget(own, recipe=each.name, budget=budget)
        rows += own
    if output is not None:
        write_json(output, rows)
        say(f"written: {output}")


def way_row(way: Way, *, recipe: str, is_best: bool) -> dict[str, Any]:
    """A row of memory.json, of kind predicted, with what must be changed and what it costs."""
    row = prediction_row(replace(way.prediction, recipe=recipe), versions=package_versions())
    cost = {"flops_per_window": way.flops_per_window, "overrides": list(way.overrides), "is_best": is_best}
    return {**row, "method": way.name, **cost}


def apply_budget(recipe: Recipe, *, options: PlanOptions | None = None) -> Recipe:
    """The recipe as its `memory.budget` changes it (as it is where it has none), and a line that says what was chosen."""
    if recipe.memory is None:
        return recipe
    if options is None:
        options = PlanOptions(
            device="cuda" if torch.cuda.is_available() else "cpu",
            world_size=int(os.environ.get("WORLD_SIZE", "1")),
        )
    ways = solve_budget(recipe, budget=recipe.memory.budget, options=options)
    best = best_way(ways)
    say(
        f"memory.budget {recipe.memory.budget}: {best.name}, predicted {bytes_text(best.prediction.needed_bytes)}; the same "
        f"without a budget: {' '.join(best.overrides)}"
    )
    return best.recipe


def _written(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
