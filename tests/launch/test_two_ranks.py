"""The real launcher, two ranks on a CPU at ZeRO stage 3: the run of one rank; and an error on one rank ends both."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import ROOT, child_environment, read_steps, recipe_file, tiny_overrides

NAME = "full_tiny_actionformer"
CHANGES = {"head__drop_path": 0.0, "train__epochs": 3, "data__flip": True}
"""Without dropout, whose draws differ between ranks."""
TIME_LIMIT_SEC = 240
DEEPSPEED = Path(sys.executable).with_name("deepspeed")

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.skipif(not DEEPSPEED.is_file(), reason="the deepspeed launcher is not beside this python"),
]


def launch(home, script, *arguments):
    """deepspeed --num_gpus 2 launch/SCRIPT.py ...; the finished process with its output."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        str(DEEPSPEED),
        "--num_gpus",
        "2",
        "--master_port",
        str(port),
        f"launch/{script}.py",
    ]
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=child_environment(HOME=str(home)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIME_LIMIT_SEC,
    )


@pytest.fixture(scope="module")
def two_ranks(benchmark, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    output = tmp_path_factory.mktemp("two_ranks") / "run"
    overrides = tiny_overrides(NAME, benchmark, output, **CHANGES, deepspeed__zero_optimization__stage=3)
    finished = launch(home, "train", str(recipe_file(NAME)), *overrides)
    assert finished.returncode == 0, finished.stdout[-4000:]
    return output


@pytest.fixture(scope="module")
def one_rank(benchmark, tmp_path_factory):
    from lofi.config.load import load_recipe
    from lofi.stages.train import run_training

    output = tmp_path_factory.mktemp("one_rank") / "run"
    return run_training(
        load_recipe(recipe_file(NAME), tiny_overrides(NAME, benchmark, output, **CHANGES))
    ).path


def test_two_ranks_train_as_one_does(two_ranks, one_rank):
    for key in ("step", "epoch", "fidelity", "lr_head"):
        assert [step[key] for step in read_steps(two_ranks)] == [step[key] for step in read_steps(one_rank)]
    for key in ("loss", "classification", "regression", "gradient_norm"):
        expected = [step[key] for step in read_steps(one_rank)]
        assert [step[key] for step in read_steps(two_ranks)] == pytest.approx(expected, rel=1e-3)


def test_two_ranks_predict_every_validation_video_once_and_score_as_one(two_ranks, one_rank, benchmark):
    database = json.loads(benchmark.annotations.read_text())["database"]
    validation = [name for name, video in database.items() if video["subset"] == "validation"]
    assert len(validation) % 2 == 1
    predictions, expected = (
        json.loads((run / "predictions.json").read_text())["results"] for run in (two_ranks, one_rank)
    )
    assert sorted(predictions) == sorted(validation)
    assert [len(predictions[name]) for name in validation] == pytest.approx(
        [len(expected[name]) for name in validation], abs=2
    )
    results, of_one = (json.loads((run / "results.json").read_text()) for run in (two_ranks, one_rank))
    assert results["average_mAP"] == pytest.approx(of_one["average_mAP"], abs=0.02)


def test_two_ranks_leave_one_run_directory(two_ranks):
    (row,) = json.loads((two_ranks / "memory.json").read_text())
    assert row["world_size"] == 2
    checkpoint = sorted((two_ranks / "checkpoints").iterdir())[-1]
    assert {"rank_0.pt", "rank_1.pt", "weights.safetensors"} <= {path.name for path in checkpoint.iterdir()}
    assert json.loads((checkpoint / "manifest.json").read_text())["world_size"] == 2
    assert json.loads((two_ranks / "summary.json").read_text())["step"] == 9


def test_a_video_that_one_rank_cannot_decode_ends_both(benchmark, tmp_path):
    folder = tmp_path / "videos"
    shutil.copytree(benchmark.videos, folder)
    (folder / "video_training_0002.mp4").write_bytes(b"no video" * 99)
    changes = {**CHANGES, "data__videos": folder, "data__frame_cache": None}
    overrides = tiny_overrides(NAME, benchmark, tmp_path / "run", **changes)
    finished = launch(tmp_path, "train", str(recipe_file(NAME)), *overrides)
    assert finished.returncode != 0
    assert "stopped: video_training_0002 cannot be decoded: " in finished.stdout
    assert not (tmp_path / "run" / "summary.json").exists()


def test_two_ranks_extract_what_one_does(benchmark, extracted_by_one, tmp_path):
    overrides = tiny_overrides("extract_tiny", benchmark, tmp_path / "features")
    finished = launch(tmp_path, "extract", str(recipe_file("extract_tiny")), *overrides)
    assert finished.returncode == 0, finished.stdout[-4000:]
    names = sorted(path.name for path in extracted_by_one.glob("*.npy"))
    assert len(names) == 11
    assert sorted(path.name for path in (tmp_path / "features").glob("*.npy")) == names
    for name in names:
        found, expected = (np.load(folder / name) for folder in (tmp_path / "features", extracted_by_one))
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.fixture
def extracted_by_one(benchmark, tmp_path):
    from lofi.config.load import load_extraction_recipe
    from lofi.stages.extract import run_extraction

    overrides = tiny_overrides("extract_tiny", benchmark, tmp_path / "of_one")
    return run_extraction(load_extraction_recipe(recipe_file("extract_tiny"), overrides)).path
