"""An interrupted run goes on bit for bit, and a run directory is never mistaken for another."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import ROOT, child_environment, read_steps, recipe_file, tiny_overrides

from lofi.config.load import load_recipe
from lofi.engine.checkpoint import list_checkpoints, newest_weights
from lofi.stages.train import run_training

NAME = "lofi_short_cyclic_tiny_actionformer"
CHANGES = {
    "train__epochs": 30,
    "train__checkpoint_every_steps": 2,
    "train__keep_checkpoints": 3,
    "encoder__dropout": 0.3,
    "head__dropout": 0.2,
    "head__drop_path": 0.25,
    "data__flip": True,
    "evaluation": None,
}
NUM_STEPS = 30 * 3
TIME_LIMIT_SEC = 180
POLL_SEC = 0.02


def start(output, benchmark, *flags):
    """launch/train.py on the recipe of this file, as a process of its own."""
    command = [sys.executable, "launch/train.py", str(recipe_file(NAME))]
    return subprocess.Popen(
        [*command, *tiny_overrides(NAME, benchmark, output, **CHANGES), *flags],
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_steps(process, run, count):
    """Until `count` steps are logged; raises where the process ends before."""
    deadline = time.monotonic() + TIME_LIMIT_SEC
    while len(read_steps(run)) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{count} steps not reached in {TIME_LIMIT_SEC} s"
        time.sleep(POLL_SEC)


@pytest.fixture(scope="module")
def interrupted(benchmark, tmp_path_factory):
    """A run that was killed, resumed, asked to stop, robbed of its newest checkpoint, and resumed to its end."""
    output = tmp_path_factory.mktemp("interrupted") / "run"
    process = start(output, benchmark)
    try:
        wait_for_steps(process, output, 11)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        steps_at_kill = len(read_steps(output))

        process = start(output, benchmark, "--resume")
        wait_for_steps(process, output, steps_at_kill + 12)
        process.send_signal(signal.SIGTERM)
        stopped, _ = process.communicate(timeout=TIME_LIMIT_SEC)
        stop_code, checkpoints_at_stop = process.returncode, list_checkpoints(output / "checkpoints")
        steps_at_stop = len(read_steps(output))

        newest = checkpoints_at_stop[-1]
        rank_file = newest / "rank_0.pt"
        os.truncate(rank_file, rank_file.stat().st_size // 2)
        process = start(output, benchmark, "--resume")
        finished, _ = process.communicate(timeout=TIME_LIMIT_SEC)
        finish_code = process.returncode
    finally:
        process.kill()
    return {
        "run": output,
        "steps_at_kill": steps_at_kill,
        "stop_code": stop_code,
        "stopped": stopped,
        "steps_at_stop": steps_at_stop,
        "newest_at_stop": newest,
        "older_at_stop": checkpoints_at_stop[-2],
        "finish_code": finish_code,
        "finished": finished,
    }


@pytest.fixture(scope="module")
def uninterrupted(benchmark, tmp_path_factory):
    """The same run in one go, in a process of its own too: what other tests load can change the last bit of a sum."""
    output = tmp_path_factory.mktemp("uninterrupted") / "run"
    process = start(output, benchmark)
    printed, _ = process.communicate(timeout=TIME_LIMIT_SEC)
    assert process.returncode == 0, printed
    return output


@pytest.mark.ranks
def test_a_killed_run_resumes_bit_for_bit(interrupted, uninterrupted):
    assert interrupted["finish_code"] == 0, interrupted["finished"]
    assert 11 <= interrupted["steps_at_kill"] < interrupted["steps_at_stop"] < NUM_STEPS
    keys = ("step", "epoch", "batch", "fidelity", "loss", "gradient_norm", "lr_head", "lr_encoder")
    steps, expected = (
        [tuple(step[key] for key in keys) for step in read_steps(run)]
        for run in (interrupted["run"], uninterrupted)
    )
    assert len(expected) == NUM_STEPS
    assert steps == expected
    weights, exact = (
        load_file(newest_weights(run / "checkpoints")) for run in (interrupted["run"], uninterrupted)
    )
    assert weights.keys() == exact.keys()
    assert all(torch.equal(weights[name], exact[name]) for name in exact)


@pytest.mark.ranks
def test_a_request_to_stop_saves_a_checkpoint_first(interrupted):
    assert interrupted["stop_code"] == 143, interrupted["stopped"]
    newest = interrupted["newest_at_stop"]
    assert newest.name == f"step_{interrupted['steps_at_stop']:06d}"
    assert "stopped by request" in interrupted["stopped"]
    assert f"stopped by request; {newest} is saved, --resume goes on from there." in interrupted["stopped"]
    assert "Traceback" not in interrupted["stopped"]


@pytest.mark.ranks
def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(interrupted):
    output = interrupted["finished"].replace("\n", "")
    newest, older = interrupted["newest_at_stop"], interrupted["older_at_stop"]
    assert f"not whole, passed over: {newest}: rank_0.pt is not what was written" in output
    assert f"going on from {older}" in output


@pytest.fixture
def own_run(benchmark, tmp_path):
    """A function: recipe (with changes) of a short run in this test's folder."""

    def recipe(**changes):
        overrides = tiny_overrides("tac_tiny", benchmark, tmp_path / "run", **changes)
        return load_recipe(recipe_file("tac_tiny"), overrides)

    return recipe


def interrupt(run):
    """Make a finished run look as if it was interrupted after its last checkpoint."""
    run.summary.unlink()


def test_a_finished_run_is_left_as_it_is_by_resume(own_run, capsys):
    run = run_training(own_run())
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    run_training(own_run(), resume=True)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    printed = capsys.readouterr().out
    assert "is finished already" in printed
    assert "older version" not in printed


def test_a_finished_run_of_an_older_version_is_taken_with_a_word_about_it(own_run, capsys):
    run = run_training(own_run(train__epochs=1))
    lines = run.recipe.read_text().splitlines(keepends=True)
    run.recipe.write_text("".join(line for line in lines if "ema_decay" not in line))
    capsys.readouterr()
    run_training(own_run(train__epochs=1), resume=True)
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "is finished already, by an older version of this package (lofi-sola" in printed
    assert "options that its recipe.yaml does not have count as their defaults" in printed


def test_a_run_directory_in_use_asks_for_resume_or_restart(own_run):
    run = run_training(own_run())
    with pytest.raises(
        ValueError, match=r"of this recipe that is finished; --resume goes on, --restart begins"
    ):
        run_training(own_run())
    interrupt(run)
    with pytest.raises(ValueError, match=r"of this recipe that was interrupted; --resume goes on, --restart"):
        run_training(own_run())


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_directory_of_another_recipe_is_refused_with_what_differs(resume, own_run):
    run_training(own_run())
    with pytest.raises(ValueError, match=r"belongs to another recipe \(it says \['lr: 0\.002'\]") as caught:
        run_training(own_run(optimizer__lr=0.5), resume=resume)
    assert "this one says ['lr: 0.5']" in str(caught.value)
    assert "--restart to delete that run" in str(caught.value)


def test_restart_begins_again_whatever_recipe_was_there(own_run):
    run = run_training(own_run(optimizer__lr=0.5))
    first = read_steps(run.path)
    run_training(own_run(), restart=True)
    assert "lr: 0.002" in run.recipe.read_text()
    assert [step["lr_encoder"] for step in read_steps(run.path)] != [step["lr_encoder"] for step in first]
    assert run.is_finished


def test_a_folder_that_is_no_run_directory_is_never_deleted(own_run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"is not empty and holds no recipe\.yaml; choose another output"):
        run_training(own_run())
    with pytest.raises(ValueError, match=r"is no run directory \(no recipe\.yaml\); not deleted"):
        run_training(own_run(), restart=True)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_a_checkpoint_of_another_number_of_ranks_is_refused(own_run):
    run = run_training(own_run())
    interrupt(run)
    for checkpoint in list_checkpoints(run.checkpoints):
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "world_size": 3}))
    with pytest.raises(ValueError, match=r"was written by 3 ranks and cannot be resumed by 1; start 3 ranks"):
        run_training(own_run(), resume=True)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "manifest.json cannot be read"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors is missing"),
        (
            lambda folder: flip_last_byte(folder / "weights.safetensors"),
            "weights.safetensors is not what was written",
        ),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(damage, reason, own_run, capsys):
    run = run_training(own_run())
    losses = [step["loss"] for step in read_steps(run.path)]
    interrupt(run)
    older, newest = list_checkpoints(run.checkpoints)
    damage(newest)
    run_training(own_run(), resume=True)
    output = capsys.readouterr().out
    assert re.search(rf"not whole, passed over: {newest}: {reason}", output)
    assert f"going on from {older}" in output
    assert [step["loss"] for step in read_steps(run.path)] == losses
    assert list_checkpoints(run.checkpoints) == [older, newest]


def test_a_later_checkpoint_that_was_passed_over_goes_at_the_next_save(own_run):
    run = run_training(own_run(train__keep_checkpoints=1))
    weights = newest_weights(run.checkpoints)
    interrupt(run)
    shutil.copytree(weights.parent, run.checkpoints / "step_000009")
    flip_last_byte(run.checkpoints / "step_000009" / "weights.safetensors")
    flip_last_byte(weights)
    run_training(own_run(train__keep_checkpoints=1), resume=True)
    assert newest_weights(run.checkpoints) == weights


def test_checkpoints_are_ordered_by_step_and_not_by_letter(tmp_path):
    for step in (1000000, 999999, 20):
        (tmp_path / f"step_{step:06d}").mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "step_000020",
        "step_999999",
        "step_1000000",
    ]


def test_without_any_whole_checkpoint_a_run_begins_at_its_first_step(own_run, capsys):
    run = run_training(own_run())
    losses = [step["loss"] for step in read_steps(run.path)]
    interrupt(run)
    shutil.rmtree(run.checkpoints)
    run_training(own_run(), resume=True)
    assert [step["loss"] for step in read_steps(run.path)] == losses
    assert "going on from" not in capsys.readouterr().out


def test_a_last_line_that_a_crash_cut_off_is_written_again(own_run):
    run = run_training(own_run())
    steps = read_steps(run.path)
    interrupt(run)
    with run.metrics.open("a") as file:
        file.write('{"step": 4, "loss": 0.1')
    run_training(own_run(), resume=True)
    assert read_steps(run.path) == steps


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
