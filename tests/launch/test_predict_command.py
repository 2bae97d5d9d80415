"""launch/predict.py: options, exit codes, patterns, names."""

import json
import shutil

import pytest
from tiny_runs import recipe_file, tiny_overrides


@pytest.fixture(scope="module")
def run(benchmark, tmp_path_factory):
    from lofi.config.load import load_recipe
    from lofi.stages.train import run_training

    output = tmp_path_factory.mktemp("predict") / "run"
    name = "lofi_s_tiny_actionformer"
    return run_training(
        load_recipe(recipe_file(name), tiny_overrides(name, benchmark, output, train__epochs=1))
    ).path


@pytest.fixture
def clips(benchmark, tmp_path):
    """Two videos of one name in two folders, another, and what is no video."""
    first, second, third = sorted(benchmark.videos.glob("*.mp4"))[:3]
    for source, place in ((first, "day1/door.mp4"), (second, "day2/door.mp4"), (third, "läuft #1.MP4")):
        target = tmp_path / "clips" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    (tmp_path / "clips" / "notes.txt").write_text("not a video")
    return tmp_path / "clips"


def test_a_folder_becomes_files_and_pages_beside_the_run(call, run, clips):
    code, output, _ = call("predict", run, clips, "--top-k", "5", "--device", "cpu")
    assert code == 0
    found = run / "predictions"
    results = json.loads((found / "predictions.json").read_text())["results"]
    assert set(results) == {"day1__door", "day2__door", "läuft #1"}
    assert all(len(rows) <= 5 for rows in results.values())
    assert (found / "pages" / "läuft #1.html").is_file()
    index = (found / "index.html").read_text()
    assert 'href="pages/l%C3%A4uft%20%231.html"' in index
    assert f"open {found / 'index.html'}" in output.replace("\n", "")


def test_a_pattern_and_a_broken_file_end_with_exit_code_1_and_the_reason(call, run, clips, tmp_path):
    (clips / "broken.mp4").write_bytes(b"")
    code, output, _ = call("predict", run, clips / "*.[mM][pP]4", "--output", tmp_path / "out", "--no-pages")
    assert code == 1
    assert "failed: broken: the file is empty" in output
    assert list(json.loads((tmp_path / "out" / "predictions.json").read_text())["results"]) == ["läuft #1"]
    assert not (tmp_path / "out" / "index.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.mp4",), "missing.mp4: there is no such video file or folder"),
        (("*.nothing",), "no file matches"),
        (("CLIPS", "--min-score", "2"), "--min-score is 2; it must lie between 0 and 1"),
        (("CLIPS", "--min-score", "0.0001"), "drops what scores below 0.001"),
        (("CLIPS", "--encoder-batch", "0"), "--encoder-batch is 0; it must be at least 1"),
        (("CLIPS", "--no-pages", "--copy-videos"), "--copy-videos has no effect with --no-pages"),
        (("CLIPS", "--device", "abacus"), "--device abacus cannot be used"),
        (("CLIPS", "--output", "CLIPS"), "is not empty and holds no settings.json"),
    ],
)
def test_a_mistake_is_refused_before_any_work(call, run, clips, arguments, message):
    values = [str(clips) if value == "CLIPS" else value for value in arguments]
    code, _, error = call("predict", run, *values)
    assert code == 2
    assert message in error


def test_two_files_of_one_annotated_video_are_refused(call, run, clips, tmp_path):
    annotations = tmp_path / "annotations.json"
    video = {"subset": "validation", "duration": 4.0, "annotations": []}
    annotations.write_text(json.dumps({"database": {"door": video}}))
    code, _, error = call("predict", run, clips, "--annotations", annotations, "--output", tmp_path / "out")
    assert code == 2
    assert 'several files are the video "door"' in error


def test_what_is_no_run_is_refused(call, clips):
    code, _, error = call("predict", clips, clips)
    assert code == 2
    assert "is no run directory (no recipe.yaml)" in error
