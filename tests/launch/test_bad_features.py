"""Features that do not fit, through the command: one line that names them, exit code 2, and no run directory."""

import json

import numpy as np
import pytest
from tiny_runs import recipe_file, tiny_overrides

from lofi.data.feature_store import FeatureManifest, create_feature_directory, write_feature

SOLA, HEAD = "sola_tiny", "frozen_tiny_actionformer"
ROWS, WIDTH = 30, 6
MANIFEST = FeatureManifest(
    fidelity={"num_snippets": ROWS, "frames": 4, "height": 20, "width": 20},
    grid={"mode": "rescale"},
    feature_width=WIDTH,
)
VIDEO = "video_training_0002"


@pytest.fixture
def features(benchmark, tmp_path):
    directory = create_feature_directory(tmp_path / "features", MANIFEST)
    generator = np.random.default_rng(0)
    for video in json.loads(benchmark.annotations.read_text())["database"]:
        write_feature(directory, video, generator.normal(size=(ROWS, WIDTH)))
    return directory.path


@pytest.fixture
def train(call, benchmark, features, tmp_path):
    """A function: recipe name -> (exit code, stdout, stderr) of a run on `features`."""

    def run(name, *, output="run", **changes):
        overrides = tiny_overrides(name, benchmark, tmp_path / output, data__features=features, **changes)
        return call("train", recipe_file(name), *overrides)

    return run


def change_manifest(features, **changes):
    file = features / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def hold_nan(features):
    array = np.load(features / f"{VIDEO}.npy")
    array[7, 2] = np.nan
    np.save(features / f"{VIDEO}.npy", array)


def be_of_another_width(features):
    for video in (VIDEO, "video_training_0003"):
        np.save(features / f"{video}.npy", np.zeros((ROWS, WIDTH + 1), np.float32))


def be_cut_off(features):
    file = features / f"{VIDEO}.npy"
    file.write_bytes(file.read_bytes()[:-9])


def have_another_manifest(features):
    change_manifest(features, feature_width=WIDTH + 2)


def have_a_manifest_that_contradicts_itself(features):
    change_manifest(features, grid={"mode": "sliding", "window_sec": 4.0}, snippet_stride_sec=0.5)


@pytest.mark.parametrize("name", [SOLA, HEAD])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (hold_nan, f"{VIDEO}.npy holds NaN or infinity (first in row 7); extract it again."),
        (be_of_another_width, "the shape is (30, 7); it must be (L, 6), L at least 1 and 6 the manifest's"),
        (be_of_another_width, "(1 further files are wrong.)"),
        (be_cut_off, f"{VIDEO}.npy is not a whole .npy file"),
        (have_another_manifest, "the shape is (30, 6); it must be (L, 8), L at least 1 and 8 the manifest's"),
        (
            have_a_manifest_that_contradicts_itself,
            "snippet_stride_sec is 0.5, but grid and fidelity give 0.133333",
        ),
    ],
)
def test_features_that_are_wrong_are_named_before_training(name, damage, message, train, features, tmp_path):
    damage(features)
    code, _, error = train(name)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_dense_features_of_another_duration_or_grid_are_named_before_training(train, features, tmp_path):
    change_manifest(
        features, grid={"mode": "sliding", "window_sec": 30.0}
    )  # a row each second; the videos have 4 s
    code, _, error = train(HEAD)
    assert code == 2
    assert "grid.mode is rescale, but the features in" in error
    code, _, error = train(HEAD, grid__mode="sliding", grid__window_sec=3.0)
    assert code == 2
    assert "has 30 rows, but a video of 4 s has 4 at one row every 1 s" in error
    assert "(4 further files are wrong.)" in error
    assert not (tmp_path / "run").exists()


def test_an_adapter_for_another_width_is_refused_before_training(call, train, benchmark, features, tmp_path):
    code, _, error = train(SOLA)
    assert code == 0, error
    other = create_feature_directory(
        tmp_path / "other", FeatureManifest(**{**vars(MANIFEST), "feature_width": 5})
    )
    for file in features.glob("*.npy"):
        write_feature(other, file.stem, np.zeros((ROWS, 5)))
    name = "sola_tiny_actionformer"
    changes = {"data__features": other.path, "adapter__weights": tmp_path / "run"}
    overrides = tiny_overrides(name, benchmark, tmp_path / "head", **changes)
    code, _, error = call("train", recipe_file(name), *overrides)
    assert code == 2
    assert "features of width 6" in error
    assert "the features here have width 5" in error
    assert not (tmp_path / "head").exists()


def test_features_are_read_through_once_and_strangers_are_told(train, features):
    np.save(features / "stranger.npy", np.zeros((ROWS, WIDTH), np.float32))
    code, printed, error = train(HEAD)
    assert code == 0, error
    assert "1 feature files in " in printed
    assert " lacks, and not used: stranger" in printed
    assert "features read through, features: 6/6" in printed
    assert len(json.loads((features / "checked.json").read_text())) == 11
    code, printed, _ = train(HEAD, output="second")
    assert code == 0
    assert "features read through" not in printed


def test_dense_features_keep_their_stride_in_windows_of_any_length(train, features):
    change_manifest(features, grid={"mode": "sliding", "window_sec": 4.0})  # 30 rows of 4 s
    code, printed, error = train(HEAD, grid__mode="sliding", grid__window_sec=2.0, train__epochs=1)
    assert code == 0, error
    steps = (features.parent / "run" / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["fidelity"] for line in steps} == {"15x4x20x20"}
