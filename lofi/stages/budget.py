"""Budget: a recipe and a number of bytes -> the ways to train it that fit, in a table, or the best of them applied.

Ways are ordered by their predicted cost per window: operations of the encoder, recomputation counted. The search itself is
in `budget_ways`.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lofi.config.load import load_recipe
from lofi.config.objective_kinds import Parts
from lofi.config.objectives import OWN_PARTS
from lofi.config.recipe import Recipe
from lofi.engine.run_directory import RunDirectory, package_versions
from lofi.files import write_json
from lofi.memory.budget import parse_bytes
from lofi.memory.prediction import prediction_row
from lofi.progress import say, track
from lofi.report.plan_tables import print_budget
from lofi.report.units import bytes_text
from lofi.stages.budget_ways import REDUCTIONS, WITHOUT_CYCLE, BudgetSolver, Way
from lofi.stages.method_names import method_name
from lofi.stages.named_recipes import NamedRecipe
from lofi.stages.plan import PlanOptions, options_of_this_device

EXACT = ("joint", "checkpointed", "chunked")
"""Gradient paths whose gradient is the full one."""


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


def solve_budget(
    recipe: Recipe, *, budget: str, options: PlanOptions | None = None, until_best: bool = False
) -> list[Way]:
    """Every way that fits, cheapest first. Raises ValueError where none does, with the least that is needed.

    With `until_best` the search ends where nothing better can come: paths are tried from the cheapest on, so that is the
    first that takes the full gradient at full fidelity.
    """
    solver = BudgetSolver(recipe, options=options)
    ways = []
    with track(f"what fits {budget}", total=solver.num_paths) as advance:
        for way in solver.ways(parse_bytes(budget), advance=advance):
            ways.append(way)
            if until_best and way.reduction == REDUCTIONS[0] and way.recipe.gradient.name in EXACT:
                break
    if not ways:
        raise ValueError(
            f"memory.budget is {budget}, in which no gradient path fits, even with one window, one snippet at a time and "
            f"LoFi's reductions: the least is {bytes_text(solver.least_bytes())}. Take a smaller encoder, fewer or smaller "
            "frames, ZeRO with more ranks (deepspeed.zero_optimization), or offload."
        )
    return sorted(ways, key=lambda way: (way.flops_per_window, -way.recipe.train.batch_size))


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
        options = options_of_this_device(world_size=int(os.environ.get("WORLD_SIZE", "1")))
    ways = solve_budget(recipe, budget=recipe.memory.budget, options=options, until_best=True)
    best = best_way(ways)
    say(
        f"memory.budget {recipe.memory.budget}: {best.name}, predicted {bytes_text(best.prediction.needed_bytes)}; the same "
        f"without a budget: {' '.join(best.overrides)}"
    )
    return best.recipe


def choice_of_run(recipe: Recipe, *, parts: Parts = OWN_PARTS) -> Recipe:
    """The recipe as its `memory.budget` changed it when the run in its output began; solved anew where none did.

    To resume: what fits may be predicted otherwise on another machine, and the run goes on as it is. Of the run's own
    recipe only what a budget chooses is taken, so that any other difference is still found.
    """
    file = RunDirectory(path=Path(recipe.output)).recipe
    if recipe.memory is None or not file.is_file():
        return apply_budget(recipe)
    of_run = load_recipe(file, parts=parts)
    say(f"memory.budget {recipe.memory.budget}: as the run in {recipe.output} chose, {method_name(of_run)}")
    if recipe.fidelity is None or of_run.fidelity is None:
        return replace(recipe, memory=None)
    chosen = {name: getattr(of_run.fidelity, name) for name in ("reduction", *WITHOUT_CYCLE)}
    return replace(
        recipe,
        memory=None,
        gradient=of_run.gradient,
        fidelity=replace(recipe.fidelity, **chosen),
        train=replace(recipe.train, batch_size=of_run.train.batch_size),
    )
