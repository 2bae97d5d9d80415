"""launch/plan_memory.py as it is typed."""

import json

import pytest
from tiny_runs import recipe_file, tiny_overrides


@pytest.fixture
def arguments(benchmark, tmp_path):
    name = "chunked_tiny_actionformer"
    return (recipe_file(name), *tiny_overrides(name, benchmark, tmp_path / "run"))


def test_the_plan_is_printed_and_written(call, arguments, tmp_path):
    code, output, _ = call("plan_memory", *arguments, "--json", tmp_path / "plan.json")
    assert code == 0
    assert "chunked exact" in output
    assert "not calibrated yet" in output
    (row,) = json.loads((tmp_path / "plan.json").read_text())
    assert (row["kind"], row["device"], row["precision"]) == ("predicted", "cuda", "bf16")
    assert sum(row["bytes"].values()) == row["peak_bytes"]
    assert len(row["modules"]) == 5


def test_a_budget_is_answered_with_overrides(call, arguments):
    code, output, _ = call("plan_memory", *arguments, "--budget", "8GiB")
    assert code == 0
    assert "overrides to paste" in output
    assert "gradient.name=joint" in output


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--budget", "8"), "memory.budget is '8'; write a number and a unit"),
        (("--world-size", "3"), "train.batch_size is 2, which 3 ranks cannot share evenly"),
        (("--world-size", "0"), "world_size is 0; it must be at least 1"),
        (("gradient.nam=joint",), "gradient.nam"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(call, arguments, more, expected):
    code, _, error = call("plan_memory", *arguments, *more)
    assert (code, error.count("\n")) == (2, 1)
    assert expected in error


def test_a_recipe_that_cannot_be_planned_is_named_and_the_others_are_planned(call, arguments, tmp_path):
    joint = recipe_file("full_tiny_actionformer")
    odd = tmp_path / "odd_batch.yaml"
    odd.write_text(joint.read_text().replace("batch_size: 2", "batch_size: 3"))
    code, output, _ = call("plan_memory", odd, joint, "--world-size", "2", "--json", tmp_path / "plan.json")
    assert code == 1
    assert "not planned: odd_batch: train.batch_size is 3, which 2 ranks cannot share evenly" in output
    assert [row["recipe"] for row in json.loads((tmp_path / "plan.json").read_text())] == [
        "full_tiny_actionformer"
    ]


def test_a_bug_leaves_its_traceback_and_no_empty_plan_is_written(call, arguments, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyError("gone")

    monkeypatch.setattr("lofi.stages.plan.predict_peak", fail)
    joint = recipe_file("full_tiny_actionformer")
    code, output, _ = call("plan_memory", joint, arguments[0], "--json", tmp_path / "plan.json")
    assert code == 1
    assert 'raise KeyError("gone")' in output
    assert "not planned: full_tiny_actionformer: KeyError: 'gone'" in output
    assert not (tmp_path / "plan.json").exists()


def test_recipes_that_do_not_train_are_left_out_with_a_line(call, arguments, tmp_path):
    extraction = recipe_file("extract_tiny")
    code, output, _ = call("plan_memory", extraction, *arguments, "--json", tmp_path / "plan.json")
    assert code == 0
    assert "extract_tiny.yaml: left out, since it has no objective" in output
    assert len(json.loads((tmp_path / "plan.json").read_text())) == 1
    code, _, error = call("plan_memory", extraction)
    assert (code, error.count("\n")) == (2, 1)
    assert "nothing trains and there is no step to plan" in error
