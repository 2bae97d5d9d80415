"""Validation while training: what it leaves behind, what it must not change, and what a resumed run makes of it."""

import json
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import read_steps, recipe_file, tiny_overrides

from lofi.config.load import RecipeError, load_recipe
from lofi.encoders.weights import find_weights
from lofi.engine import loop
from lofi.engine.checkpoint import list_checkpoints
from lofi.engine.loop import Interrupted
from lofi.engine.run_directory import RunDirectory
from lofi.engine.validation import BEST_FILE, Validation, read_best, read_validations, run_weights
from lofi.stages import train as train_stage
from lofi.stages.evaluate import evaluate_run
from lofi.stages.train import run_training
from lofi.stages.validation import Validator

NAME = "full_tiny_actionformer"
CHANGES = {
    "train__epochs": 5,
    "train__keep_checkpoints": 1,
    "train__checkpoint_every_epochs": 3,
    "encoder__dropout": 0.3,
    "head__drop_path": 0.25,
    "optimizer__lr": 0.02,
}
STEPS_PER_EPOCH = 3
VALIDATED = {"evaluation__every_epochs": 2}


@pytest.fixture
def own_recipe(benchmark, tmp_path):
    """A function: the recipe of this file (with changes) in this test's folder."""

    def recipe(**changes):
        overrides = tiny_overrides(NAME, benchmark, tmp_path / "run", **{**CHANGES, **VALIDATED, **changes})
        return load_recipe(recipe_file(NAME), overrides)

    return recipe


@pytest.fixture(scope="module")
def validated(trained):
    """Validated after epochs 2, 4 and 5."""
    return RunDirectory(path=trained(NAME, **CHANGES, **VALIDATED))


def test_a_validation_is_said_with_all_of_few_details_and_three_of_many():
    def said(*names):
        details = {name: place / 100 for place, name in enumerate(names)}
        row = Validation(epoch=1, step=9, measure="score", score=0.5, details=details, seconds=2.0)
        return row.describe()

    types = "none 0.00 %, different_class 1.00 %, same_class 2.00 %, speed 3.00 %"
    assert (
        said("none", "different_class", "same_class", "speed") == f"epoch 1: score 50.00 % ({types}) in 2.0 s"
    )
    assert "(0.3 0.00 %, 0.5 2.00 %, 0.7 4.00 %)" in said("0.3", "0.4", "0.5", "0.6", "0.7")


def without_times(rows):
    return [(row.epoch, row.step, row.score, row.details) for row in rows]


def losses(run):
    return [(step["step"], step["loss"], step["gradient_norm"]) for step in read_steps(run.path)]


def test_it_runs_every_so_many_epochs_and_after_the_last(validated):
    rows = read_validations(validated.validation)
    assert [(row.epoch, row.step) for row in rows] == [(2, 6), (4, 12), (5, 15)]
    assert all(row.score == pytest.approx(sum(row.details.values()) / 10) for row in rows)
    assert all(row.seconds > 0 for row in rows)


def test_training_is_the_same_bit_for_bit_with_and_without_it(validated, trained):
    plain = RunDirectory(path=trained(NAME, **CHANGES))
    assert losses(validated) == losses(plain)
    weights, expected = (
        load_file(run_weights(run.checkpoints, choice="newest")) for run in (validated, plain)
    )
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert not plain.validation.exists()
    assert not (plain.checkpoints / BEST_FILE).exists()


def test_memory_and_throughput_leave_it_out(validated, trained):
    (row,), (plain,) = (
        json.loads((run / "memory.json").read_text()) for run in (validated.path, trained(NAME, **CHANGES))
    )
    assert row["bytes"] == plain["bytes"]
    assert row["steps"] == plain["steps"]
    timed = [step["seconds"] for step in read_steps(validated.path)]
    assert row["sec_per_step"] * row["steps"] <= sum(timed)
    summary = json.loads(validated.summary.read_text())
    assert summary["training_seconds"] == pytest.approx(sum(timed))
    assert summary["evaluation_seconds"] == pytest.approx(
        sum(each.seconds for each in read_validations(validated.validation))
    )


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_it_gives_what_the_checkpoint_of_its_step_gives(stage, own_recipe):
    changes = {} if stage == 0 else {"deepspeed__zero_optimization__stage": stage}
    recipe = own_recipe(train__epochs=2, train__keep_checkpoints=9, evaluation__every_epochs=1, **changes)
    run = run_training(recipe)
    first, last = read_validations(run.validation)
    assert evaluate_run(run.path).results.average_mAP == last.score
    for checkpoint in list_checkpoints(run.checkpoints)[1:]:
        checkpoint.rename(checkpoint.with_name(f"later_{checkpoint.name}"))
    assert {
        f"mAP_{tiou}": value for tiou, value in evaluate_run(run.path).results.mAP.items()
    } == first.details


def test_the_best_checkpoint_is_kept_and_stated(validated):
    best = max(read_validations(validated.validation), key=lambda row: row.score)
    content = json.loads((validated.checkpoints / BEST_FILE).read_text())
    for key in ("epoch", "step", "measure", "score", "details"):
        assert content[key] == getattr(best, key)
    assert content["subset"] == "validation"
    assert "optimistic" in content["note"]
    assert best.step != 15, "the recipe of this file must overfit, or this test says nothing"
    assert [path.name for path in list_checkpoints(validated.checkpoints)] == [
        f"step_{best.step:06d}",
        "step_000015",
    ]
    assert read_best(validated.checkpoints) == list_checkpoints(validated.checkpoints)[0]
    assert json.loads(validated.summary.read_text())["best"]["step"] == best.step


def test_the_newest_weights_count_unless_the_recipe_says_best(validated, own_recipe, capsys):
    rows = read_validations(validated.validation)
    best = max(row.score for row in rows)
    assert json.loads(validated.results.read_text())["average_mAP"] == rows[-1].score < best
    assert find_weights(validated.path).parent.name == "step_000015"

    run = run_training(own_recipe(evaluation__weights="best"))
    assert json.loads(run.results.read_text())["average_mAP"] == best
    assert json.loads(run.summary.read_text())["average_mAP"] == best
    assert find_weights(run.path).parent == read_best(run.checkpoints)
    assert "so its score is optimistic" in capsys.readouterr().out
    assert evaluate_run(run.path, weights="newest").results.average_mAP == rows[-1].score


def test_tensorboard_holds_the_validations_at_the_last_steps_trained(validated):
    events = EventAccumulator(str(validated.tensorboard)).Reload()
    rows = read_validations(validated.validation)
    found = events.Scalars("validation/average_mAP")
    assert [event.step for event in found] == [row.step - 1 for row in rows]
    assert [event.value for event in found] == pytest.approx([row.score for row in rows])
    assert [event.value for event in events.Scalars("validation/mAP_0.50")] == pytest.approx(
        [row.details["mAP_0.50"] for row in rows]
    )


class _Killed(BaseException):
    """Stands for a kill: nothing in the program catches it."""


@pytest.mark.parametrize("moment", ["before", "after", "stopped"])
def test_a_resumed_run_neither_repeats_nor_loses_a_validation(
    moment, own_recipe, validated, monkeypatch, capsys
):
    """Killed right before or right after the validation of epoch 4, or asked to stop where it was due."""
    calls = []
    original = Validator.__call__

    def counted(self, position):
        calls.append(position.epoch)
        if position.epoch == 4 and moment == "before" and calls.count(4) == 1:
            raise _Killed
        found = original(self, position)
        if position.epoch == 4 and moment == "after":
            raise _Killed
        return found

    monkeypatch.setattr(Validator, "__call__", counted)
    if moment == "stopped":
        _stop_at(monkeypatch, step=12)
    with pytest.raises((_Killed, Interrupted)):
        run_training(own_recipe())
    monkeypatch.undo()
    run = run_training(own_recipe(), resume=True)
    assert calls == ([2] if moment == "stopped" else [2, 4])
    rows = read_validations(run.validation)
    assert without_times(rows) == without_times(read_validations(validated.validation))
    printed = capsys.readouterr().out
    assert printed.count("validation, epoch 2:") == 1
    assert printed.count("validation, epoch 4:") == 1
    assert losses(run) == losses(validated)
    assert read_best(run.checkpoints).name == read_best(validated.checkpoints).name
    events = EventAccumulator(str(run.tensorboard)).Reload()
    logged = {event.step for event in events.Scalars("validation/average_mAP")}
    assert logged >= ({5, 14} if moment == "after" else {5, 11, 14})


def _stop_at(monkeypatch, *, step):
    """The loop finds a request to stop once `step` steps are done."""

    @contextmanager
    def watch():
        asked = iter(range(1, 99))
        yield lambda: next(asked) >= step

    monkeypatch.setattr(loop, "watch_stop_request", watch)


def test_a_validation_whose_checkpoint_is_damaged_is_done_again(own_recipe, capsys):
    run = run_training(own_recipe())
    rows = read_validations(run.validation)
    run.summary.unlink()
    newest = list_checkpoints(run.checkpoints)[-1]
    (newest / "rank_0.pt").write_bytes(b"")
    run_training(own_recipe(), resume=True)
    assert without_times(read_validations(run.validation)) == without_times(rows)
    assert read_best(run.checkpoints).name == "step_000006"
    assert "validation, epoch 5:" in capsys.readouterr().out


def test_a_resumed_run_evaluates_anew_only_what_it_has_not_at_hand(own_recipe, monkeypatch):
    predicted = []
    original = train_stage.evaluate_run
    monkeypatch.setattr(
        train_stage, "evaluate_run", lambda *args, **keys: predicted.append(1) or original(*args, **keys)
    )
    run = run_training(own_recipe())
    results = run.results.read_bytes()
    assert predicted == []
    run.summary.unlink()
    run.results.unlink()
    run_training(own_recipe(), resume=True)
    assert predicted == [1]
    assert run.results.read_bytes() == results


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation__every_epochs": 0}, "evaluation.every_epochs is 0; it must be at least 1, or null"),
        (
            {"evaluation__every_epochs": None, "evaluation__weights": "best"},
            "evaluation.weights: best needs validation while training; set evaluation.every_epochs",
        ),
        ({"evaluation__weights": "last"}, "evaluation.weights"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, message, own_recipe):
    with pytest.raises(RecipeError, match=message):
        own_recipe(**changes)


def test_the_best_weights_of_a_run_without_validation_are_an_error(trained):
    with pytest.raises(ValueError, match=r"holds no best\.json: the run was not validated while training"):
        evaluate_run(trained(NAME, **CHANGES), weights="best")
