"""launch/evaluate.py: files and runs, what it prints and writes, and what it refuses."""

import json
import re
import shutil

import pytest
from tiny_runs import recipe_file, tiny_overrides


@pytest.fixture(scope="module")
def run(benchmark, tmp_path_factory):
    """A finished run, and its two files for evaluation."""
    from lofi.config.load import load_recipe
    from lofi.stages.train import run_training

    name = "lofi_t_tiny_actionformer"
    output = tmp_path_factory.mktemp("evaluated") / "run"
    return run_training(load_recipe(recipe_file(name), tiny_overrides(name, benchmark, output))).path


def test_evaluate_a_run_predicts_anew_and_gives_the_same(run, call):
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").unlink()
    (run / "predictions.json").unlink()
    code, output, _ = call("evaluate", run)
    assert code == 0
    assert f"average mAP {100 * results['average_mAP']:.2f} %" in output
    assert json.loads((run / "results.json").read_text()) == results


def test_evaluate_files_gives_what_the_run_got(run, benchmark, call, tmp_path):
    files = ("--annotations", benchmark.annotations, "--predictions", run / "predictions.json")
    output = tmp_path / "results.json"
    code, _, _ = call("evaluate", *files, "--subset", "validation", "--output", output)
    assert code == 0
    results = json.loads(output.read_text())
    assert results.pop("source") == {
        "annotations": str(benchmark.annotations),
        "predictions": str(run / "predictions.json"),
        "subset": "validation",
    }
    assert results == json.loads((run / "results.json").read_text())
    code, text, _ = call("evaluate", *files, "--subset", "validation", "--tious", "0.1:0.3:0.1")
    assert code == 0
    assert re.search(r"tIoU +0\.10 +0\.20 +0\.30 *\n", text)


def test_evaluate_scores_the_predictions_of_a_run_without_making_them(run, call, tmp_path):
    before = (run / "predictions.json").stat().st_mtime_ns, (run / "results.json").stat().st_mtime_ns
    output = tmp_path / "results.json"
    assert (
        call("evaluate", run, "--against", tmp_path / "nowhere.json")[0] == 2
    )  # before anything is predicted
    assert call("evaluate", run, "--ambiguous", tmp_path / "nowhere.txt")[0] == 2
    code, _, _ = call("evaluate", run, "--no-predict", "--tious", "0.3,0.5", "--output", output)
    assert code == 0
    assert list(json.loads(output.read_text())["mAP"]) == ["0.30", "0.50"]
    assert (
        (run / "predictions.json").stat().st_mtime_ns,
        (run / "results.json").stat().st_mtime_ns,
    ) == before


def test_a_run_and_its_files_agree_on_segments_that_reach_beyond_their_video(run, benchmark, call, tmp_path):
    content = json.loads(benchmark.annotations.read_text())
    for video in content["database"].values():
        if video["subset"] == "validation":
            video["annotations"][0]["segment"][1] = video["duration"] + 0.4
    annotations, copy = tmp_path / "annotations.json", tmp_path / "run"
    annotations.write_text(json.dumps(content))
    shutil.copytree(run, copy)
    recipe = copy / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(benchmark.annotations), str(annotations)))
    assert call("evaluate", copy)[0] == 0
    output = tmp_path / "results.json"
    assert call("evaluate", copy, "--no-predict", "--output", output)[0] == 0
    results = json.loads(output.read_text())
    assert results.pop("source")["annotations"] == str(annotations)
    assert results == json.loads((copy / "results.json").read_text())
    assert results["AR"] != json.loads((run / "results.json").read_text())["AR"]


def test_a_run_has_figures_and_is_compared_with_another(run, call, tmp_path):
    options = (
        "--plots",
        tmp_path / "plots",
        "--errors",
        "--against",
        run / "predictions.json",
        "--bootstrap",
        "9",
    )
    code, text, _ = call("evaluate", run, "--no-predict", *options)
    assert code == 0
    assert "No difference from predictions.json" in text
    assert (tmp_path / "plots" / "false_positives.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "name a run directory, or --annotations, --predictions and --subset"),
        (("run", "--subset", "x"), "a run directory says its own"),
        (("nowhere",), "nowhere is no run directory"),
        (("nowhere", "--no-predict"), "nowhere is no run directory"),
        (
            ("run", "--no-predict", "--weights", "best"),
            "--weights goes with a run directory that is predicted anew",
        ),
        (("--annotations", "a.json", "--no-predict"), "or --annotations, --predictions and --subset"),
        (("--annotations", "a.json", "--predictions", "p.json", "--subset", "x"), "a.json: there is no such"),
    ],
)
def test_evaluate_refuses_what_it_cannot_use(arguments, expected, call):
    code, _, error = call("evaluate", *arguments)
    assert code == 2
    assert expected in error


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--subset", "validation", "--tious", "half"), "tIoUs 'half': write first:last:step"),
        (("--subset", "validation", "--tious", "0.5,1.5"), "thresholds must be above 0 and at most 1"),
        (("--subset", "test"), 'no video has subset "test"'),
    ],
)
def test_evaluate_refuses_flags_that_do_not_fit(flags, expected, run, benchmark, call):
    files = ("--annotations", benchmark.annotations, "--predictions", run / "predictions.json")
    code, _, error = call("evaluate", *files, *flags)
    assert (code, error.count("\n")) == (2, 1)
    assert expected in error


def test_evaluate_refuses_a_classification_run(call, benchmark, tmp_path):
    overrides = tiny_overrides("tac_tiny", benchmark, tmp_path / "run", train__epochs=1)
    assert call("train", recipe_file("tac_tiny"), *overrides)[0] == 0
    code, _, error = call("evaluate", tmp_path / "run")
    assert code == 2
    assert "objective tac has no detections to evaluate" in error
