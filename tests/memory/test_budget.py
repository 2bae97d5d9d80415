"""What fits a budget: every proposal is predicted anew from the overrides that it says."""

from pathlib import Path

import pytest
from tiny_runs import recipe_file, tiny_overrides

from lofi.config.load import load_recipe, recipe_to_yaml
from lofi.engine.run_directory import open_run_directory
from lofi.memory.budget import parse_bytes
from lofi.stages.budget import apply_budget, best_way, choice_of_run, solve_budget
from lofi.stages.budget_ways import BudgetSolver
from lofi.stages.plan import PlanOptions, predict_peak

GIB = 2**30


@pytest.fixture
def tiny(benchmark, tmp_path):
    """A function: overrides more -> the tiny chunked recipe."""

    def load(*more, name="chunked_tiny_actionformer"):
        return load_recipe(
            recipe_file(name),
            [*tiny_overrides(name, benchmark, tmp_path), "fidelity.num_snippets=4", "head.levels=1", *more],
        )

    return load


@pytest.fixture(scope="module")
def large():
    """A recipe that does not fit a small card: the tiny encoder at 5 x 16 x 900 x 900, batch 2, no data on the disk.

    Large sides and few snippets, since a prediction takes time per operation, not per byte. One solver for all budgets,
    so that no prediction is made twice.
    """
    overrides = [
        "data.annotations=none.json", "data.videos=none", "data.frame_cache=null", "train.precision=bf16",
        "fidelity.num_snippets=5", "fidelity.frames=16", "fidelity.height=900", "fidelity.width=900", "train.batch_size=2", "head.levels=1",
    ]  # fmt: skip
    recipe = load_recipe(recipe_file("sampled_tiny_actionformer"), overrides)
    return overrides, BudgetSolver(recipe), {}


@pytest.mark.parametrize("gib", [2, 4, 8, 11, 16, 24, 80])
def test_every_proposal_fits_by_a_prediction_of_its_own(gib, large):
    overrides, solver, verified = large
    ways = list(solver.ways(gib * GIB))
    assert ways
    for way in ways:
        pasted = load_recipe(recipe_file("sampled_tiny_actionformer"), [*overrides, *way.overrides])
        assert pasted == way.recipe
        if way.overrides not in verified:
            verified[way.overrides] = predict_peak(pasted).needed_bytes
        assert verified[way.overrides] == way.prediction.needed_bytes <= gib * GIB


def test_more_memory_never_leads_to_less_fidelity_or_a_smaller_batch(large):
    _, solver, _ = large
    best = [best_way(list(solver.ways(gib * GIB))) for gib in (2, 8, 80)]
    batches = [way.recipe.train.batch_size for way in best]
    assert batches == sorted(batches)
    assert best[-1].reduction == "none"


def test_what_fits_whole_is_trained_jointly_and_ways_are_ordered_by_cost(tiny):
    ways = solve_budget(tiny(), budget="80GiB")
    assert best_way(ways).recipe.gradient.name == "joint"
    assert [way.flops_per_window for way in ways] == sorted(way.flops_per_window for way in ways)
    assert len(ways) == 6


def test_a_budget_in_which_nothing_fits_says_what_is_needed(tiny, monkeypatch):
    monkeypatch.setattr("lofi.stages.budget_ways.REDUCTIONS", ("time",))
    with pytest.raises(
        ValueError, match=r"memory.budget is 1 MiB, in which no gradient path fits.*the least is \d"
    ):
        solve_budget(tiny(), budget="1 MiB")


def test_the_search_for_the_best_alone_ends_with_it(tiny, monkeypatch):
    """The tiny recipe fits whole, by the first path that is tried."""
    steps = []
    monkeypatch.setattr(
        "lofi.stages.budget_ways.predict_peak",
        lambda recipe, **options: steps.append(recipe.gradient.name) or predict_peak(recipe, **options),
    )
    (way,) = solve_budget(tiny(), budget="80GiB", until_best=True)
    assert way.recipe.train.batch_size == 2
    assert set(steps) == {"joint"}


def test_train_takes_the_best_way_and_says_it(tiny, capsys):
    chosen = apply_budget(tiny("memory.budget=80GiB"), options=PlanOptions())
    assert chosen.memory is None
    assert chosen.gradient.name == "joint"
    assert "memory.budget 80GiB: full end-to-end, predicted" in capsys.readouterr().out
    assert apply_budget(chosen) == chosen


def test_a_resumed_run_keeps_the_choice_that_it_began_with(tiny, monkeypatch, capsys):
    with_budget = tiny("memory.budget=80GiB")
    began = tiny("gradient.chunk_size=3", "fidelity.reduction=time", "train.batch_size=1")
    open_run_directory(Path(began.output), recipe_text=recipe_to_yaml(began), restart=False)
    monkeypatch.setattr(
        "lofi.stages.budget.solve_budget", lambda *args, **options: pytest.fail("solved anew")
    )
    assert choice_of_run(with_budget) == began
    assert "memory.budget 80GiB: as the run in" in capsys.readouterr().out
    # what no budget chooses is not taken over
    assert choice_of_run(tiny("memory.budget=80GiB", "train.epochs=7")).train.epochs == 7


def test_a_run_that_never_began_is_solved_for_on_resume_too(tiny):
    assert choice_of_run(tiny("memory.budget=80GiB")).gradient.name == "joint"


def test_a_recipe_without_a_training_encoder_is_refused(tiny):
    with pytest.raises(ValueError, match="this recipe trains none"):
        solve_budget(tiny("gradient.name=detached", "optimizer.encoder_lr=null"), budget="8GiB")


@pytest.mark.parametrize(
    ("text", "expected"), [("11GiB", 11 * 2**30), ("7.5 GB", 7.5e9), ("900mib", 900 * 2**20)]
)
def test_a_budget_is_a_number_and_a_unit(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["11", "GiB", "-3GiB", "0GiB", "11 cards"])
def test_anything_else_is_refused(text, tiny):
    with pytest.raises(ValueError, match=r"memory\.budget is .*write a number and a unit, such as 11GiB"):
        tiny(f"memory.budget={text}")
