"""launch/evaluate.py on files: what it needs, writes and refuses, and a published method's mAP through it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import ROOT, child_environment

from lofi.evaluation.dataset_rules import DATASET_RULES

SHARED = ROOT / ".." / "shared" / "data"
OFFICIAL = SHARED / "annotations" / "thumos14" / "TH14_txt" / "annotations_test"
PUBLISHED = SHARED / "predictions"

ROW = '"segment": [1, 2], "label": "jump", "score": 0.5'
ANNOTATIONS = {
    "a": {"subset": "test", "duration": 20, "annotations": [{"segment": [1, 4], "label": "jump"}]},
    "b": {
        "subset": "test",
        "duration": 30,
        "annotations": [{"segment": [2, 9], "label": "run"}, {"segment": [12, 15], "label": "jump"}],
    },
    "c": {"subset": "training", "duration": 9, "annotations": [{"segment": [1, 2], "label": "swim"}]},
}


def found(**shift):
    """Predictions of both test videos; `a=0.5` moves those of video a by half a second."""
    rows = {
        "a": [(1, 4, "jump", 0.9)],
        "b": [(2, 9, "run", 0.8), (12, 15, "jump", 0.7), (20, 22, "run", 0.1)],
    }
    return {
        video: [
            {
                "segment": [start + shift.get(video, 0), end + shift.get(video, 0)],
                "label": label,
                "score": score,
            }
            for start, end, label, score in of_video
        ]
        for video, of_video in rows.items()
    }


@pytest.fixture
def files(tmp_path):
    """A function: predictions -> the two options that name both files."""

    def write(results=None, *, database=ANNOTATIONS):
        annotations, predictions = tmp_path / "annotations.json", tmp_path / "predictions.json"
        annotations.write_text(json.dumps({"database": database}))
        predictions.write_text(json.dumps({"results": found() if results is None else results}))
        return ("--annotations", annotations, "--predictions", predictions)

    return write


def test_results_hold_every_measure_by_class_and_threshold(call, files, tmp_path):
    output = tmp_path / "new folder" / "results.json"
    options = ("--subset", "test", "--tious", "0.5,0.75", "--errors", "--bootstrap", "7", "--output", output)
    code, text, error = call("evaluate", *files(found(a=1)), *options)
    assert (code, error) == (0, "")
    assert f"results: {output}" in text
    results = json.loads(output.read_text())
    assert results["AP"] == {"jump": {"0.50": 1.0, "0.75": 0.25}, "run": {"0.50": 1.0, "0.75": 1.0}}
    assert results["mAP"] == {"0.50": 1.0, "0.75": 0.625}
    assert results["average_mAP"] == 0.8125
    assert results["instances"] == {"jump": 2, "run": 1}
    assert results["recall_at_kx"]["1"] == {"0.50": 1.0, "0.75": 0.75}
    assert list(results["AR"]) == ["1", "5", "10", "100"]
    assert list(results["AR_at_tIoU"]["0.95"]) == ["1", "5", "10", "100"]
    assert (results["protocol"], results["bootstrap"]["samples"]) == ("default", 7)
    assert results["errors"]["false_positives"]["gains"]["localization"] > 0
    assert results["counts"] == {
        "predictions": 4,
        "unknown_labels": 0,
        "outside": 0,
        "instances": 3,
        "duplicate_instances": 0,
        "zero_length_instances": 0,
        "videos": 2,
        "classes": 2,
        "reversed": 0,
        "zero_length": 0,
        "missing_videos": 0,
        "reversed_instances": 0,
        "instances_outside_video": 0,
    }
    assert set(results["versions"]) == {"lofi-sola", "numpy"}


def test_plots_are_a_page_and_files_that_need_nothing_else(call, files, tmp_path):
    folder = tmp_path / "plots"
    code, text, _ = call("evaluate", *files(), "--subset", "test", "--plots", folder)
    assert (code, f"figures: {folder / 'evaluation.html'}" in text) == (0, True)
    names = {path.name for path in folder.iterdir()}
    figures = {"map_at_tiou.svg", "precision_recall.svg", "average_recall.svg", "class_ap.svg"}
    figures |= {"false_positives.svg", "gains.svg", "sensitivity.svg", "missed.svg"}  # --errors is implied
    assert names == {"evaluation.json", "evaluation.html"} | figures


@pytest.mark.parametrize(
    ("options", "tious", "subset"),
    [
        (("--dataset", "thumos14"), ["0.30", "0.40", "0.50", "0.60", "0.70"], "test"),
        (("--dataset", "thumos14", "--tious", "0.5", "--subset", "training"), ["0.50"], "training"),
    ],
)
def test_a_dataset_says_thresholds_and_subset_unless_they_are_given(
    options, tious, subset, call, files, tmp_path
):
    results = found() if subset == "test" else {"c": [{"segment": [1, 2], "label": "swim", "score": 1}]}
    code, _, error = call("evaluate", *files(results), *options, "--output", tmp_path / "results.json")
    assert (code, error) == (0, "")
    results = json.loads((tmp_path / "results.json").read_text())
    assert (list(results["mAP"]), results["source"]["subset"]) == (tious, subset)
    assert results["source"]["dataset"] == "thumos14"


def test_a_comparison_gives_the_difference_its_interval_and_a_sentence(call, files, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"results": found(a=1, b=2)}))
    options = ("--subset", "test", "--tious", "0.5,0.75", "--against", other, "--bootstrap", "50")
    code, text, _ = call("evaluate", *files(), *options, "--output", tmp_path / "results.json")
    assert code == 0
    results = json.loads((tmp_path / "results.json").read_text())
    against = results["against"]
    assert against["difference"] == pytest.approx(results["average_mAP"] - against["average_mAP"])
    assert against["interval"][0] <= against["difference"] <= against["interval"][1]
    assert against["samples"] == results["bootstrap"]["samples"] == 50
    assert f"{100 * against['difference']:.2f} points above other.json in average mAP" in " ".join(
        text.split()
    )
    other.write_text(json.dumps({"results": found()}))
    code, text, _ = call("evaluate", *files(), *options)
    assert (code, "No difference from other.json: the average mAP is the same." in text) == (0, True)


def test_excluded_videos_are_neither_right_nor_wrong(call, files, tmp_path):
    listed = tmp_path / "excluded.txt"
    listed.write_text("b\n")
    options = ("--subset", "test", "--exclude", listed, "--output", tmp_path / "results.json")
    assert call("evaluate", *files(), *options)[0] == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["instances"] == {"jump": 1}
    assert (results["counts"]["predictions"], results["average_mAP"]) == (1, 1.0)


def test_verbs_are_scored_from_pairs_at_thresholds_that_begin_at_a_tenth(call, files, tmp_path):
    def paired(rows):
        return [{**row, "label": {"jump": "3,1", "run": "3,2"}[row["label"]]} for row in rows]

    database = {
        name: {**video, "annotations": paired(video["annotations"])}
        for name, video in ANNOTATIONS.items()
        if name != "c"
    }
    results = {video: paired(rows) for video, rows in found().items()}
    options = ("--dataset", "epic_kitchens100_verb", "--subset", "test", "--errors")
    code, _, error = call(
        "evaluate", *files(results, database=database), *options, "--output", tmp_path / "r.json"
    )
    assert (code, error) == (0, "")
    written = json.loads((tmp_path / "r.json").read_text())
    assert (list(written["AP"]), next(iter(written["mAP"]))) == (["3"], "0.10")
    assert written["errors"]["low_tiou"] == 0.1


BROKEN = {
    "an empty file": ("", "the file is empty"),
    "a file that breaks off": ('{"results": {"a": [{' + ROW, "not JSON"),
    "no results": ('{"version": 1}', 'needs the key "results"'),
    "a score of NaN": (ROW.replace("0.5", "NaN"), "results['a'][0].score is nan"),
    "an infinite score": (ROW.replace("0.5", "1e999"), "results['a'][0].score is inf"),
    "a time of NaN": (ROW.replace("[1, 2]", "[1, NaN]"), "results['a'][0].segment is [1, nan]"),
    "three times": (ROW.replace("[1, 2]", "[1, 2, 3]"), "results['a'][0].segment is [1, 2, 3]"),
    "a label that is a number": (ROW.replace('"jump"', "4"), "results['a'][0].label is 4"),
    "another video": ('{"results": {"v_a": [{' + ROW + "}]}}", "none of the 1 predicted videos (v_a)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_predictions_end_in_one_line_with_file_and_key(name, call, files):
    content, expected = BROKEN[name]
    options = files()
    whole = content if not content or content.startswith("{") else '{"results": {"a": [{' + content + "}]}}"
    options[-1].write_text(whole)
    code, output, error = call("evaluate", *options, "--subset", "test")
    assert (code, error.count("\n"), output) == (2, 1, "")
    assert error.startswith(f"error: {options[-1]}: ")
    assert expected in error


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "the file is empty"),
        ('{"database": {"a": {', "not JSON"),
        ('{"version": 1}', 'no "database" object'),
        (
            json.dumps(
                {"database": {"a": {"subset": "test", "annotations": [{"segment": [1, 2, 3], "label": "x"}]}}}
            ),
            'video "a": annotations[0]: "segment" is [1, 2, 3]',
        ),
        (
            json.dumps(
                {"database": {"a": {"subset": "test", "annotations": [{"segment": [1, 2], "label": 3}]}}}
            ),
            'video "a": annotations[0]: "label" is 3',
        ),
        (json.dumps({"database": {"a": {"subset": "test", "annotations": []}}}), "no instance in 1 videos"),
    ],
)
def test_broken_annotations_end_in_one_line_with_file_and_key(content, expected, call, files):
    options = files()
    options[1].write_text(content)
    code, output, error = call("evaluate", *options, "--subset", "test")
    assert (code, error.count("\n"), output) == (2, 1, "")
    assert error.startswith(f"error: {options[1]}: ")
    assert expected in error


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--subset", "tset"), 'no video has subset "tset"; did you mean "test"?'),
        (("--dataset", "hacs"), "no subset of the annotations is called validation or val, as hacs has it"),
        (("--dataset", "thumos"), "dataset 'thumos' is not known; there are activitynet12, activitynet13"),
        (("--subset", "test", "--protocol", "anet"), "protocol 'anet' does not exist; there are default"),
        (("--subset", "test", "--tious", "half"), "tIoUs 'half': write first:last:step"),
        (("--subset", "test", "--tious", ""), "tIoUs '': write first:last:step"),
        (
            ("--subset", "test", "--tious", "0.505"),
            "holds 0.505; results are written under thresholds of two",
        ),
        (("--subset", "test", "--bootstrap", "5", "--seed", "-1"), "error: seed is -1"),
        (("--subset", "test", "--bootstrap", "-1"), "bootstrap is -1"),
        (("--subset", "test", "--against", "nowhere.json"), "nowhere.json: cannot be read"),
        (("--subset", "test", "--exclude", "nowhere.txt"), "nowhere.txt: cannot be read"),
        (("--subset", "test", "--ambiguous", "x.txt"), "no effect under the protocol default"),
        (("--subset", "training"), "none of the 2 predicted videos (a, b)"),
        (
            ("--dataset", "epic_kitchens100_verb", "--subset", "test"),
            "annotations.json: the label 'jump' is no pair",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options, expected, call, files):
    code, output, error = call("evaluate", *files(), *options)
    assert (code, error.count("\n"), output) == (2, 1, "")
    assert expected in error


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--seed", "3"), "--seed goes with --bootstrap or --against"),
        (("--output", "."), "--output . is a folder"),
        (("--plots", "README.md"), "--plots README.md is a file"),
    ],
)
def test_options_without_effect_and_odd_paths_are_refused(options, expected, call, files, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, output, error = call("evaluate", *files(), "--subset", "test", *options)
    assert (code, output) == (2, "")
    assert expected in error


def test_a_list_of_stretches_for_other_videos_is_refused_and_none_is_noted(call, files, tmp_path):
    options = (*files(), "--subset", "test", "--protocol", "thumos14")
    listed = tmp_path / "ambiguous.txt"
    listed.write_text("video_a 1 2\n")
    code, output, error = call("evaluate", *options, "--ambiguous", listed)
    assert (code, output) == (2, "")
    assert "none of the 1 videos with ambiguous stretches (video_a) is one of the 2 of the subset" in error
    assert "no ambiguous stretch is known" in call("evaluate", *options)[1]
    listed.write_text("a 1 2\n")
    assert "no ambiguous stretch is known" not in call("evaluate", *options, "--ambiguous", listed)[1]


def test_a_label_that_may_be_no_class_is_noted(call, files):
    doubtful = {"segment": [5, 6], "label": "Ambiguous"}
    database = {
        **ANNOTATIONS,
        "a": {**ANNOTATIONS["a"], "annotations": [doubtful, *ANNOTATIONS["a"]["annotations"]]},
    }
    options = (*files(database=database), "--subset", "test")
    assert "Ambiguous is scored as a class" in call("evaluate", *options)[1]
    for others in (("--protocol", "thumos14"), ("--dataset", "thumos14")):
        text = call("evaluate", *options, *others)[1]
        assert "instances of 2 classes" in text
        assert "Ambiguous is scored" not in text


def test_videos_to_exclude_that_are_not_there_are_counted(call, files, tmp_path):
    listed = tmp_path / "excluded.txt"
    listed.write_text("b\nelsewhere\n")
    text = call("evaluate", *files(), "--subset", "test", "--exclude", listed)[1]
    assert "1 of the 2 videos to exclude are in the subset" in text


def test_results_are_there_although_the_pipe_closes(files, tmp_path):
    output = tmp_path / "results.json"
    command = ["launch/evaluate.py", *map(str, files()), "--subset", "test", "--output", str(output)]
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.close()
    process.wait(timeout=120)
    assert json.loads(output.read_text())["average_mAP"] > 0


def test_every_dataset_is_named_by_the_help(call):
    text = call("evaluate", "--help")[1].split("--dataset NAME", 1)[1]
    assert all(name in text for name in DATASET_RULES)


def test_a_label_that_the_protocol_refuses_is_named_with_its_file(call, files, tmp_path):
    results = found()
    results["a"][0]["label"] = "fly"
    options = files(results)
    assert call("evaluate", *options, "--subset", "test")[0] == 0
    code, output, error = call("evaluate", *options, "--subset", "test", "--protocol", "activitynet")
    assert (code, error.count("\n"), output) == (2, 1, "")
    assert error.startswith(f"error: {options[-1]}: predictions have 1 labels without an instance")
    other = tmp_path / "other.json"
    options[-1].rename(other)
    code, _, error = call(
        "evaluate", *files(), "--subset", "test", "--protocol", "activitynet", "--against", other
    )
    assert (code, error.startswith(f"error: {other}: predictions have 1 labels")) == (2, True)


def test_no_prediction_at_all_scores_zero_everywhere(call, files, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"results": found()}))
    options = ("--subset", "test", "--errors", "--bootstrap", "5", "--against", other)
    paths = ("--output", tmp_path / "results.json", "--plots", tmp_path / "plots")
    code, text, error = call("evaluate", *files({}), *options, *paths)
    assert (code, error) == (0, "")
    assert "2 of 2 videos have no prediction" in text
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["average_mAP"], results["AUC"], results["against"]["difference"]) == (0, 0, -1)


def test_unknown_keys_are_fine(call, files):
    results = {video: [{**row, "feature": [1, 2]} for row in rows] for video, rows in found().items()}
    database = {
        name: {**video, "url": "x", "annotations": video["annotations"]}
        for name, video in ANNOTATIONS.items()
    }
    assert call("evaluate", *files(results, database=database), "--subset", "test")[0] == 0


def test_scoring_files_imports_neither_torch_nor_matplotlib(files):
    program = (
        "import runpy, sys\n"
        "try:\n"
        "    runpy.run_path('launch/evaluate.py', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    heavy = {'torch', 'deepspeed', 'decord', 'omegaconf', 'matplotlib'} & set(sys.modules)\n"
        "    sys.exit(f'imported: {heavy}' if heavy or stop.code else 0)\n"
    )
    finished = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            *map(str, files()),
            "--subset",
            "test",
            "--errors",
            "--bootstrap",
            "3",
        ],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    assert "\x1b" not in finished.stdout


def official_database(*, with_ambiguous):
    """The challenge's text files in ActivityNet's form."""
    database = {}
    for path in sorted(OFFICIAL.glob("*_test.txt")):
        label = path.name.removesuffix("_test.txt")
        for line in path.read_text().splitlines():
            if line.strip():
                video, start, end = line.split()
                entry = database.setdefault(video, {"subset": "test", "annotations": []})
                if label != "Ambiguous" or with_ambiguous:
                    entry["annotations"].append({"segment": [float(start), float(end)], "label": label})
    return database


@pytest.mark.skipif(
    not (OFFICIAL.exists() and PUBLISHED.exists()), reason="the published detections are not here"
)
@pytest.mark.parametrize("with_ambiguous", [True, False], ids=["as a label", "in a file"])
@pytest.mark.parametrize(
    "dataset", [("--dataset", "thumos14"), ("--subset", "test")], ids=["named", "custom"]
)
@pytest.mark.parametrize(("model", "percent"), [("c3d", 18.97008), ("res3d", 22.48662)])
def test_a_published_map_comes_out_of_the_command(model, percent, with_ambiguous, dataset, call, tmp_path):
    annotations, output = tmp_path / "annotations.json", tmp_path / "results.json"
    annotations.write_text(json.dumps({"database": official_database(with_ambiguous=with_ambiguous)}))
    predictions = PUBLISHED / f"scnn_{model}_thumos14_nms0.4.json"
    options = [*dataset, "--protocol", "thumos14", "--tious", "0.5", "--output", output]
    if not with_ambiguous:
        options += ["--ambiguous", OFFICIAL / "Ambiguous_test.txt"]
    code, text, error = call("evaluate", "--annotations", annotations, "--predictions", predictions, *options)
    assert (code, error) == (0, "")
    assert f"average mAP {percent:.2f} %" in text
    stored = json.loads((PUBLISHED / "scnn_thumos_official_map.json").read_text())[f"{model}@0.5"]
    average = json.loads(Path(output).read_text())["average_mAP"]
    assert average == pytest.approx(stored["published_mat"], abs=1e-12)
    assert round(100 * average, 5) == percent
