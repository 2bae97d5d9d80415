"""The ways to train one recipe that fit a number of bytes, each verified by a prediction of its own.

For every gradient path the largest fidelity is looked for that fits (the recipe's full fidelity first, then LoFi's
reductions), at it the largest batch up to the recipe's, and with that the largest chunk (`memory.largest`). A prediction
is one step at one fidelity; it is made once, whatever the number of budgets, and a cycle shares those of its fidelities.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lofi.config.recipe import Choice, Recipe, check_recipe
from lofi.fidelity import LEAST_SNIPPETS, Fidelity, Reduction, build_schedule
from lofi.gradients.choices import CheckpointedConfig, ChunkedConfig, JointConfig, SampledConfig
from lofi.memory.encoder_cost import passes_per_snippet, snippet_flops
from lofi.memory.fake import fake_tensors
from lofi.memory.largest import largest_that_fits
from lofi.memory.prediction import Prediction, StepPrediction
from lofi.stages.build import open_encoder
from lofi.stages.plan import PlanOptions, predict_peak

REDUCTIONS: tuple[Reduction, ...] = ("none", "cyclic", "space_time", "space", "time")
"""Full fidelity first; the reductions have a quarter of its volume each, cyclic sees all of them in turn."""

FIRST_CHUNK = {"chunked": 4, "sampled": 8}
"""Snippets of a chunk while the batch is looked for; where nothing fits, single snippets of one window per rank are tried."""

MOST_CHUNKS = 32
"""The sampled path that recomputes nothing is looked at with longer chunks where there would be more of them."""

WITHOUT_CYCLE: dict[str, Any] = {"cycle": "long", "cycle_every": None}


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
        self._steps: dict[tuple[Choice, int], dict[Fidelity, StepPrediction]] = {}
        """Gradient path and batch -> the steps that were predicted with them."""
        self._refusals: dict[tuple[Choice, int, Fidelity], ValueError] = {}
        """Of what no run would take."""
        self._snippet_flops: dict[tuple[int, int, int], int] = {}

    def ways(self, budget_bytes: int, *, advance: Callable[[], None] = lambda: None) -> Iterator[Way]:
        """Every gradient path's best way that fits, path by path, the cheapest path first."""
        for gradient in self._gradients():
            way = self._best_of(gradient, budget_bytes)
            advance()
            if way is not None:
                yield way

    @property
    def num_paths(self) -> int:
        """How often `ways` calls `advance`."""
        return len(self._gradients())

    def least_bytes(self) -> int:
        """The smallest need that was predicted so far. Raises ValueError where no run would take what was tried."""
        if not any(self._steps.values()):
            raise next(iter(self._refusals.values()))
        return min(step.needed_bytes for steps in self._steps.values() for step in steps.values())

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
        start = self._changed(gradient, reduction=reduction)
        has_chunks = gradient.name in FIRST_CHUNK
        recomputes = gradient.name == "chunked" or getattr(gradient.config, "recompute", False)

        def with_batch(batch_size: int) -> Recipe:
            changed = replace(start, train=replace(start.train, batch_size=batch_size))
            return self._with_first_chunk(changed) if has_chunks else changed

        # What recomputes its chunks holds one of them, whatever the batch.
        found = self._largest(self._batch_sizes(), with_batch, budget_bytes, starts_large=recomputes)
        if found is None and has_chunks:
            one = _with_chunk(with_batch(self._options.world_size), 1)
            found = one if self._fits(one, budget_bytes) else None
        if found is not None and has_chunks:
            found = self._largest(self._chunk_sizes(found), partial(_with_chunk, found), budget_bytes)
            assert found is not None
        return None if found is None else self._way(found)

    def _with_first_chunk(self, recipe: Recipe) -> Recipe:
        first = FIRST_CHUNK[recipe.gradient.name]
        if recipe.gradient.name == "sampled" and not recipe.gradient.config.recompute:
            # Its bytes hardly depend on the chunk, its prediction's time on how many there are.
            while first * MOST_CHUNKS < self._num_snippets(recipe):
                first *= 2
        return _with_chunk(recipe, first)

    def _changed(self, gradient: Choice, *, reduction: Reduction) -> Recipe:
        assert self._recipe.fidelity is not None
        keeps_cycle = reduction == self._recipe.fidelity.reduction == "cyclic"
        cycle = {} if keeps_cycle else WITHOUT_CYCLE
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
        snippets, first = self._num_snippets(recipe), recipe.gradient.config.chunk_size
        return [first, *(size for power in range(16) if first < (size := 2**power) < snippets)]

    def _num_snippets(self, recipe: Recipe) -> int:
        """Of one rank's batch, at the fidelity that has most."""
        most = max(each.num_snippets for each in _fidelities(recipe))
        return most * recipe.train.batch_size // self._options.world_size

    def _largest(
        self,
        sizes: Sequence[int],
        change: Callable[[int], Recipe],
        budget_bytes: int,
        *,
        starts_large: bool = False,
    ) -> Recipe | None:
        """The change by the largest size that fits."""
        size = largest_that_fits(
            sizes,
            bytes_of=lambda size: self._needed_bytes(change(size), budget_bytes),
            budget_bytes=budget_bytes,
            bytes_of_none=lambda: self._optimizer_bytes(change(sizes[0])),
            starts_large=starts_large,
        )
        return None if size is None else change(size)

    def _optimizer_bytes(self, recipe: Recipe) -> int:
        """The peak of the optimizer's step, which does not grow with the batch."""
        steps = [self._step(recipe, fidelity) for fidelity in _fidelities(recipe)]
        return max(step.phase_peak_bytes.get("optimizer", 0) for step in steps if step is not None)

    def _fits(self, recipe: Recipe, budget_bytes: int) -> bool:
        needed = self._needed_bytes(recipe, budget_bytes)
        return needed is not None and needed <= budget_bytes

    def _needed_bytes(self, recipe: Recipe, budget_bytes: int) -> int | None:
        """At the fidelity that needs most, or at the first that needs more than the budget; None where no run would take
        the recipe."""
        steps = []
        for fidelity in sorted(
            _fidelities(recipe), key=partial(self._known_need, recipe.gradient.name), reverse=True
        ):
            step = self._step(recipe, fidelity)
            if step is None or step.needed_bytes > budget_bytes:
                return None if step is None else step.needed_bytes
            steps.append(step)
        return max(step.needed_bytes for step in steps)

    def _known_need(self, gradient: str, fidelity: Fidelity) -> int:
        """The most that a fidelity was seen to need, with any batch and chunk."""
        return max(
            (
                steps[fidelity].needed_bytes
                for (choice, _), steps in self._steps.items()
                if choice.name == gradient and fidelity in steps
            ),
            default=0,
        )

    def _step(self, recipe: Recipe, fidelity: Fidelity) -> StepPrediction | None:
        """Predicted once, whatever schedule the fidelity is part of. None where no run would take it."""
        key = (recipe.gradient, recipe.train.batch_size)
        steps = self._steps.setdefault(key, {})
        if (*key, fidelity) in self._refusals:
            return None
        if fidelity not in steps:
            assert recipe.fidelity is not None
            size = {name: getattr(fidelity, name) for name in ("num_snippets", "frames", "height", "width")}
            whole = replace(recipe.fidelity, reduction="none", **WITHOUT_CYCLE, **size)
            try:
                check_recipe(recipe)
                predict_peak(replace(recipe, fidelity=whole), options=self._options, steps=steps)
            except ValueError as error:
                self._refusals[*key, fidelity] = error
                return None
        return steps[fidelity]

    def _way(self, recipe: Recipe) -> Way:
        steps = self._steps[recipe.gradient, recipe.train.batch_size]
        return Way(
            recipe=recipe,
            overrides=self._overrides(recipe),
            prediction=predict_peak(recipe, options=self._options, steps=steps),
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
        windows = recipe.train.batch_size // self._options.world_size
        costs = []
        for fidelity in _fidelities(recipe):
            size = (fidelity.frames, fidelity.height, fidelity.width)
            if size not in self._snippet_flops:
                assert recipe.encoder is not None
                with fake_tensors():
                    encoder = open_encoder(recipe.encoder, with_weights=False)
                    self._snippet_flops[size] = snippet_flops(encoder, fidelity)
            passes = passes_per_snippet(
                recipe.gradient.name, recipe.gradient.config, num_snippets=windows * fidelity.num_snippets
            )
            costs.append(passes * fidelity.num_snippets * self._snippet_flops[size])
        return sum(costs) / len(costs)


def _with_chunk(recipe: Recipe, chunk_size: int) -> Recipe:
    config = replace(recipe.gradient.config, chunk_size=chunk_size)
    return replace(recipe, gradient=replace(recipe.gradient, config=config))


def _fidelities(recipe: Recipe) -> tuple[Fidelity, ...]:
    """Of the steps in turn."""
    assert recipe.fidelity is not None
    return build_schedule(recipe.fidelity).fidelities


def _written(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
