"""A head on dense features trains on random crops and predicts whole videos, as ActionFormer and TriDet are published."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import recipe_file, tiny_overrides

from lofi.config.load import load_extraction_recipe, load_recipe
from lofi.data.annotations import read_annotations
from lofi.data.sampler import PredictionPlan, build_loader
from lofi.engine.deepspeed_engine import Ranks
from lofi.engine.validation import run_weights
from lofi.inference import detect_windows, merge_videos
from lofi.stages.build import full_fidelity, open_prediction
from lofi.stages.evaluate import evaluate_run, load_module, predict_and_score
from lofi.stages.extract import run_extraction
from lofi.stages.predict import PredictOptions, run_prediction

CROPS = {
    "grid__mode": "sliding",
    "grid__training": "crops",
    "grid__prediction": "videos",
    "evaluation__every_epochs": 1,
    "postprocess__min_score": 0.0,
}


@pytest.fixture(scope="module")
def dense(benchmark, trained, tmp_path_factory):
    """Features every quarter of a second: 16 rows of each video."""
    output = tmp_path_factory.mktemp("features") / "dense"
    changes = {"grid__mode": "sliding", "grid__window_sec": 2.0, "encoder__weights": trained("tac_tiny")}
    overrides = tiny_overrides("extract_tiny", benchmark, output, **changes)
    return run_extraction(load_extraction_recipe(recipe_file("extract_tiny"), overrides)).path


def found_in(run):
    return json.loads((run / "predictions.json").read_text())["results"]


def as_written(rows):
    return [{"segment": [row.start_sec, row.end_sec], "label": row.label, "score": row.score} for row in rows]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for video, rows in expected.items():
        assert len(found[video]) == len(rows) > 0
        for mine, theirs in zip(found[video], rows, strict=True):
            assert mine["label"] == theirs["label"]
            assert [*mine["segment"], mine["score"]] == pytest.approx(
                [*theirs["segment"], theirs["score"]], abs=1e-4
            )


@pytest.mark.parametrize("head", ["actionformer", "tridet"])
def test_crops_train_and_whole_videos_are_predicted_as_launch_predict_does(
    head, trained, dense, benchmark, tmp_path
):
    run = trained(f"frozen_tiny_{head}", data__features=dense, grid__window_sec=3.0, **CROPS)
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {step["fidelity"].split("x")[0] for step in steps} == {"12"}
    assert len(steps) == 2 * 6 // 2  # one crop of each of 6 videos and epoch, in batches of 2
    expected = found_in(run)
    if head == "actionformer":
        video = sorted(expected)[0]
        options = PredictOptions(
            run=run,
            videos=[str(benchmark.videos)],
            annotations=benchmark.annotations,
            output=tmp_path / "predicted",
            pages=False,
        )
        predicted = run_prediction(options).predictions[video]
        assert_same({video: as_written(predicted)}, {video: expected[video]})


def test_a_whole_video_gives_what_a_window_gives_that_it_fits_into(trained, dense, tmp_path):
    run = trained("frozen_tiny_actionformer", data__features=dense, grid__window_sec=6.0, **CROPS)
    whole = found_in(run)
    copy = shutil.copytree(run, tmp_path / "copy")
    recipe = load_recipe(run / "recipe.yaml")
    windows = replace(recipe, grid=replace(recipe.grid, prediction="windows"))
    evaluate_run(copy, recipe=windows)
    assert_same(found_in(copy), whole)


def test_whole_videos_are_predicted_one_at_a_time_as_they_would_be_together(trained, dense, tmp_path):
    """Together, the shorter ones are padded."""
    run = trained("frozen_tiny_actionformer", data__features=dense, grid__window_sec=6.0, **CROPS)
    features = shutil.copytree(dense, tmp_path / "features")
    for number, file in enumerate(sorted(features.glob("*.npy"))):
        np.save(file, np.load(file)[: 16 - number % 3])
    recipe = load_recipe(run / "recipe.yaml", [f"data.features={features}"])
    annotations = read_annotations(recipe.data.annotations)
    dataset = open_prediction(recipe, annotations)
    weights = run_weights(run / "checkpoints", choice="newest")
    detector = load_module(recipe, annotations, weights=weights)
    detect, lengths = detector.detect, []

    def recorded(batch):
        lengths.append(batch.mask.shape)
        return detect(batch)

    detector.detect = recorded
    ranks = Ranks(rank=0, world_size=1, device=torch.device("cpu"))
    alone = predict_and_score(
        detector, dataset, recipe=recipe, annotations=annotations, ranks=ranks, title="alone"
    ).predictions
    assert len(set(lengths)) == 3
    assert {shape[0] for shape in lengths} == {1}
    plan = PredictionPlan(videos=list(alone), batch_size=len(alone), fidelity=full_fidelity(recipe))
    found, _ = detect_windows(
        detect, build_loader(dataset, plan.batches(), workers=0), num_windows=len(alone), title="together"
    )
    together = merge_videos(found, config=recipe.postprocess, classes=annotations.classes)
    assert_same(
        {video: as_written(rows) for video, rows in alone.items()},
        {video: as_written(rows) for video, rows in together.items()},
    )


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("frozen_tiny_gtad", {}, r"grid\.prediction: videos is refused with head\.name: gtad"),
        ("full_tiny_actionformer", {}, r"data\.frame_cache cannot serve grid\.training: crops"),
        (
            "full_tiny_actionformer",
            {"data__frame_cache": None},
            r"grid\.prediction: videos is only for data\.features",
        ),
        (
            "frozen_tiny_actionformer",
            {"grid__training": "windows", "grid__crop_share": 0.5},
            r"grid\.crop_share is 0\.5 but has no effect without training: crops",
        ),
        (
            "frozen_tiny_actionformer",
            {"grid__overlap": 0.25},
            r"grid\.overlap is 0\.25 but has no effect with training: crops and prediction: videos",
        ),
    ],
)
def test_what_crops_and_whole_videos_cannot_be_combined_with(name, changes, message, benchmark, tmp_path):
    overrides = tiny_overrides(
        name,
        benchmark,
        tmp_path,
        **{**CROPS, "grid__window_sec": 3.0, **changes, "evaluation__every_epochs": None},
    )
    with pytest.raises(ValueError, match=message):
        load_recipe(recipe_file(name), overrides)
