"""The commands of launch/: help with examples, exit codes, one line for a user's mistake."""

import re
import shutil
import subprocess
import sys

import pytest
from tiny_runs import ROOT, child_environment, recipe_file, tiny_overrides

SCRIPTS = sorted((ROOT / "launch").glob("*.py"))


def run_script(name, *arguments, program=""):
    """The script in a process of its own; `program` runs before it."""
    start = [sys.executable, "-c", program] if program else [sys.executable, f"launch/{name}.py"]
    return subprocess.run(
        [*start, *map(str, arguments)],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_help_ends_well_and_shows_commands_to_copy(path, call):
    code, output, _ = call(path.stem, "--help")
    assert code == 0
    assert re.search(rf"(python|deepspeed) launch/{path.stem}\.py \S", output)


@pytest.mark.parametrize("name", ["train", "extract", "evaluate", "compare"])
def test_help_imports_nothing_heavy(name):
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['launch/{name}.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path('launch/{name}.py', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    heavy = {'torch', 'deepspeed', 'decord', 'numpy', 'omegaconf'} & set(sys.modules)\n"
        "    sys.exit(f'imported: {heavy}' if heavy or stop.code else 0)\n"
    )
    finished = run_script(name, program=program)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("name", ["train", "extract", "compare"])
def test_a_mistake_ends_in_one_line_and_exit_code_2(name, call, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("sead: 0\ndata: {}\nobjective: tal\n" if name == "train" else "sead: 0\n")
    code, output, error = call(name, path)
    assert code == 2
    assert error.startswith(f"error: {path}: ")
    assert "sead" in error
    assert error.count("\n") == 1
    assert output == ""


def test_train_says_which_recipe_where_the_message_does_not(call, benchmark, tmp_path):
    file = recipe_file("full_tiny_actionformer")
    overrides = tiny_overrides("full_tiny_actionformer", benchmark, tmp_path / "run", encoder__weights="gone")
    code, _, error = call("train", file, *overrides)
    assert code == 2
    assert error.startswith(f"error: {file}: encoder.weights: gone does not exist")


def test_train_stops_with_exit_code_1_in_mid_work(call, benchmark, tmp_path):
    folder = tmp_path / "videos"
    shutil.copytree(benchmark.videos, folder)
    (folder / "video_training_0004.mp4").write_bytes(b"")
    file = recipe_file("lofi_s_tiny_actionformer")
    overrides = tiny_overrides(file.stem, benchmark, tmp_path / "run", data__videos=folder)
    code, _, error = call("train", file, *overrides)
    assert code == 1
    assert error.startswith("stopped: video_training_0004 cannot be decoded: the file is empty. (")
    assert error.count("\n") == 1


def test_train_takes_flags_between_and_after_overrides(call, benchmark, tmp_path):
    file = recipe_file("tac_tiny")
    overrides = tiny_overrides("tac_tiny", benchmark, tmp_path / "run", train__epochs=1)
    assert call("train", "--local_rank=0", file, *overrides)[0] == 0
    code, output, _ = call("train", file, *overrides, "--resume")
    assert (code, "is finished already" in output) == (0, True)
    code, output, _ = call("train", file, "--restart", *overrides)
    assert (code, f"run directory: {tmp_path / 'run'}" in output) == (0, True)
    code, _, error = call("train", file, "--restart", "--resume", *overrides)
    assert (code, "--resume and --restart exclude each other" in error) == (2, True)
    code, _, error = call("train", file, *overrides)
    assert (code, "is finished; --resume goes on, --restart begins again" in error) == (2, True)


def test_extract_lists_what_it_was_told_to_skip_and_its_exit_code_says_so(call, benchmark, tmp_path):
    folder = tmp_path / "videos"
    shutil.copytree(benchmark.videos, folder)
    (folder / "video_training_0001.mp4").write_bytes(b"")
    changes = {"data__videos": folder, "data__on_decode_error": "skip"}
    arguments = (
        recipe_file("extract_tiny"),
        *tiny_overrides("extract_tiny", benchmark, tmp_path / "f", **changes),
    )
    code, output, _ = call("extract", *arguments)
    assert code == 1
    assert "skipped: video_training_0001: the file is empty" in output
    assert f"feature directory: {tmp_path / 'f'}, 10 videos" in output
    shutil.copy(folder / "video_training_0000.mp4", folder / "video_training_0001.mp4")
    code, output, _ = call("extract", *arguments)
    assert code == 0
    assert "skipped" not in output
    assert f"feature directory: {tmp_path / 'f'}, 11 videos" in output


def test_extract_stops_at_a_broken_video_where_the_recipe_says_so(call, benchmark, tmp_path):
    folder = tmp_path / "videos"
    shutil.copytree(benchmark.videos, folder)
    (folder / "video_training_0001.mp4").write_bytes(b"")
    overrides = tiny_overrides("extract_tiny", benchmark, tmp_path / "f", data__videos=folder)
    code, _, error = call("extract", recipe_file("extract_tiny"), *overrides)
    assert code == 1
    assert "stopped: video_training_0001 cannot be decoded" in error
