"""Extraction killed in mid-work and started again; dense features; what stands in the manifest and on the screen."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from tiny_runs import ROOT, child_environment, recipe_file, tiny_overrides

from lofi.config.load import load_extraction_recipe
from lofi.data.feature_store import open_feature_directory
from lofi.data.grid import ONLY_FOR_HEADS
from lofi.stages.extract import run_extraction

NAME = "extract_tiny"
NUM_VIDEOS = 11
NUM_BEFORE_DEATH = 4


def extract(benchmark, output, **changes):
    overrides = tiny_overrides(NAME, benchmark, output, **changes)
    return run_extraction(load_extraction_recipe(recipe_file(NAME), overrides))


DIES_WHILE_WRITING = f"""
import os, signal, sys
import numpy as np
import lofi.data.feature_store as store
whole = []
def save(file, array):
    with file.open("wb") as stream:
        np.save(stream, array)
        if len(whole) == {NUM_BEFORE_DEATH}:
            stream.truncate(stream.tell() // 2)
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    whole.append(file)
store._save_array = save
from lofi.config.load import load_extraction_recipe
from lofi.stages.extract import run_extraction
run_extraction(load_extraction_recipe(sys.argv[1], sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def of_one_run(benchmark, tmp_path_factory):
    return extract(benchmark, tmp_path_factory.mktemp("whole") / "features", extraction__chunk_size=7).path


def test_killed_while_it_writes_and_started_again_it_redoes_nothing_and_leaves_nothing_half_written(
    benchmark, of_one_run, tmp_path, capsys
):
    output = tmp_path / "features"
    changes = {"extraction__chunk_size": 7, "data__workers": 1}
    overrides = tiny_overrides(NAME, benchmark, output, **changes)
    killed = (
        subprocess.run(  # ends when nothing holds its output open any more: the worker must not outlive it
            [sys.executable, "-c", DIES_WHILE_WRITING, str(recipe_file(NAME)), *overrides],
            cwd=ROOT,
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    whole = sorted(output.glob("*.npy"))
    assert len(whole) == NUM_BEFORE_DEATH
    for file in whole:
        np.testing.assert_allclose(np.load(file), np.load(of_one_run / file.name), atol=1e-5)
    assert len(list(output.glob(".*.partial"))) == 1
    times = {file.name: file.stat().st_mtime_ns for file in whole}

    done = extract(benchmark, output, extraction__chunk_size=7)
    assert done.num_videos == NUM_VIDEOS
    assert f"{NUM_BEFORE_DEATH} videos were whole already" in capsys.readouterr().out
    assert {name: (output / name).stat().st_mtime_ns for name in times} == times
    assert not list(output.glob(".*"))
    for file in sorted(of_one_run.glob("*.npy")):
        np.testing.assert_allclose(np.load(output / file.name), np.load(file), atol=1e-5)


def test_an_extraction_that_an_older_version_began_goes_on(benchmark, of_one_run, tmp_path, capsys):
    output = shutil.copytree(of_one_run, tmp_path / "features")
    file = output / "manifest.json"
    manifest = json.loads(file.read_text())
    assert not set(ONLY_FOR_HEADS) & manifest["grid"].keys()
    manifest["grid"]["overlap"] = 0.25  # was kept, without effect
    del manifest["grid"]["spread_frames"], manifest["encoder"]["frozen_stages"]
    file.write_text(json.dumps(manifest))
    extract(benchmark, output, extraction__chunk_size=7)
    assert f"{NUM_VIDEOS} videos were whole already" in capsys.readouterr().out


def test_a_snippet_of_four_frames_every_two_frames(benchmark, tmp_path, capsys):
    changes = {
        "grid__frame_rate": 8.0,
        "extraction__stride_frames": 2,
    }  # the benchmark has 8 frames per second, 4 s
    output = tmp_path / "dense"
    extract(benchmark, output, **changes, fidelity__num_snippets=5)
    directory = open_feature_directory(output)
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["snippet_stride_sec"] == directory.manifest.snippet_stride_sec == 0.25
    assert manifest["grid"]["frame_rate"] == 8.0
    assert manifest["fidelity"]["frames"] == 4
    features = {video: np.load(directory.file(video)) for video in directory.existing_videos()}
    assert {array.shape for array in features.values()} == {(16, 7)}
    printed = capsys.readouterr().out
    assert f"{NUM_VIDEOS * 16 * 4}/{NUM_VIDEOS * 16 * 4} in " in printed
    assert f"{NUM_VIDEOS * 16} snippets in " in printed
    assert " frames/s" in printed

    of_longer_windows = extract(benchmark, tmp_path / "again", **changes, fidelity__num_snippets=16).path
    for video, array in features.items():
        np.testing.assert_allclose(np.load(of_longer_windows / f"{video}.npy"), array, atol=1e-5)

    with pytest.raises(ValueError, match=r"made otherwise: .*grid \("):
        extract(
            benchmark, output, grid__frame_rate=8.0, extraction__stride_frames=3, fidelity__num_snippets=5
        )


def test_a_stride_without_a_frame_rate_is_refused_before_there_is_a_directory(benchmark, tmp_path):
    with pytest.raises(ValueError, match=r"extraction\.stride_frames is 8, but grid\.frame_rate is null"):
        extract(benchmark, tmp_path / "features", extraction__stride_frames=8)
    assert not (tmp_path / "features").exists()
