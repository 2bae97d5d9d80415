"""Real videos, annotated by hand, through every stage: end-to-end training, extraction, head training, evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import CHANNELS, read_steps, recipe_file

from lofi.config.load import load_extraction_recipe, load_recipe
from lofi.stages.evaluate import evaluate_run
from lofi.stages.extract import run_extraction
from lofi.stages.train import run_training

VIDEOS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "videos"
FILES = ("bbformer_highjump.mp4", "bbformer_tennis26.mp4", "mmaction2_demo.mp4")

pytestmark = pytest.mark.skipif(
    not all((VIDEOS / file).is_file() for file in FILES), reason=f"no real videos in {VIDEOS}"
)

DATABASE = {
    "highjump": {
        "subset": "training",
        "duration": 24.2,
        "file": FILES[0],
        "annotations": [
            {"segment": [3.0, 8.5], "label": "jump"},
            {"segment": [14.0, 19.5], "label": "jump"},
        ],
    },
    "tennis": {
        "subset": "training",
        "duration": 11.3,
        "file": FILES[1],
        "annotations": [{"segment": [4.0, 7.0], "label": "swing"}],
    },
    "demo": {
        "subset": "validation",
        "duration": 10.0,
        "file": FILES[2],
        "annotations": [{"segment": [1.0, 6.5], "label": "swing"}],
    },
}

SIZES = ["fidelity.num_snippets=8", "fidelity.frames=4", "fidelity.height=32", "fidelity.width=32"]
SIZES += [f"encoder.channels={list(CHANNELS)}"]
HEAD = ["head.embed_width=8", "head.levels=2", "head.window=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("real")
    (path / "annotations.json").write_text(json.dumps({"database": DATABASE}))
    return path


@pytest.fixture(scope="module", params=["rescale", "sliding"])
def stages(folder, request):
    """Both ways to cut a video into windows; the run directories of the three stages."""
    grid = ["grid.mode=sliding", "grid.window_sec=8.0"] if request.param == "sliding" else []
    data = [
        f"data.annotations={folder / 'annotations.json'}",
        "train.epochs=1",
        "train.batch_size=2",
        *grid,
        *HEAD,
    ]
    files = [f"data.videos={VIDEOS}", f"data.frame_cache={folder / 'frames'}", *SIZES]
    trained, features, headed = (
        folder / f"{request.param}_{stage}" for stage in ("lofi", "features", "head")
    )

    name = "lofi_s_tiny_actionformer"
    run_training(load_recipe(recipe_file(name), [*data, *files, f"output={trained}", "evaluation=null"]))
    overrides = [data[0], *grid, *files, f"encoder.weights={trained}", f"output={features}"]
    run_extraction(load_extraction_recipe(recipe_file("extract_tiny"), overrides))
    name = "frozen_tiny_actionformer"
    run_training(load_recipe(recipe_file(name), [*data, f"data.features={features}", f"output={headed}"]))
    return request.param, trained, features, headed


def test_real_videos_train_an_encoder_end_to_end(stages):
    _, trained, _, _ = stages
    steps = read_steps(trained)
    assert steps
    assert all(np.isfinite(step["loss"]) and step["gradient_norm"] > 0 for step in steps)
    assert {step["fidelity"] for step in steps} == {"8x4x16x16"}


def test_real_videos_become_features_of_their_own_length(stages):
    mode, _, features, _ = stages
    rows = {name: len(np.load(features / f"{name}.npy")) for name in DATABASE}
    if mode == "rescale":
        assert set(rows.values()) == {8}
    else:  # a row at 0.5, 1.5, ... s, each inside the video: 24.2 s have 24
        assert rows == {"highjump": 24, "tennis": 11, "demo": 10}
    assert all(np.isfinite(np.load(features / f"{name}.npy")).all() for name in DATABASE)


def test_real_videos_are_evaluated_the_same_now_and_later(stages):
    _, _, _, headed = stages
    results = json.loads((headed / "results.json").read_text())
    predictions = json.loads((headed / "predictions.json").read_text())["results"]
    assert list(predictions) == ["demo"]
    assert predictions["demo"]
    assert all(0 <= row["segment"][0] < row["segment"][1] <= 10.0 for row in predictions["demo"])
    assert {row["label"] for row in predictions["demo"]} <= {"jump", "swing"}
    assert evaluate_run(headed).results.average_mAP == results["average_mAP"]
