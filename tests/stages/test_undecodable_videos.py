"""Classification, extraction, head: a video that cannot be decoded is met in the second stage and known in the third."""

import json
import shutil

import pytest
from tiny_runs import read_steps, recipe_file, tiny_overrides

from lofi.config.load import load_extraction_recipe, load_recipe
from lofi.stages.extract import run_extraction
from lofi.stages.train import run_training

TRAINING, VALIDATION = "video_training_0002", "video_validation_0001"
HEAD = "frozen_tiny_actionformer"


@pytest.fixture(scope="module")
def extract(benchmark, trained, tmp_path_factory):
    """A function: extract from these videos into the one feature directory of this module."""
    output = tmp_path_factory.mktemp("broken") / "features"

    def run(videos):
        changes = {
            "data__videos": videos,
            "data__on_decode_error": "skip",
            "encoder__weights": trained("tac_tiny"),
        }
        overrides = tiny_overrides("extract_tiny", benchmark, output, **changes)
        return run_extraction(load_extraction_recipe(recipe_file("extract_tiny"), overrides))

    return run


@pytest.fixture(scope="module")
def features(benchmark, extract, tmp_path_factory):
    """Features of all videos but two, which are damaged."""
    folder = tmp_path_factory.mktemp("broken_videos") / "videos"
    shutil.copytree(benchmark.videos, folder)
    (folder / f"{TRAINING}.mp4").write_bytes(b"no video at all" * 99)
    (folder / f"{VALIDATION}.mp4").write_bytes(b"")
    extracted = extract(folder)
    assert sorted(extracted.failures) == [TRAINING, VALIDATION]
    return extracted.path


def head_recipe(benchmark, output, features, **changes):
    overrides = tiny_overrides(HEAD, benchmark, output, data__features=features, **changes)
    return load_recipe(recipe_file(HEAD), overrides)


def test_extraction_lists_what_failed_beside_the_features(features):
    failures = json.loads((features / "failures.json").read_text())
    assert sorted(failures) == [TRAINING, VALIDATION]
    assert failures[VALIDATION] == "the file is empty."


def test_a_head_stops_with_video_and_reason(features, benchmark, tmp_path):
    match = rf"failures\.json: {VALIDATION} has no features, .*: the file is empty\. .*data\.on_decode_error: skip"
    with pytest.raises(ValueError, match=match):
        run_training(head_recipe(benchmark, tmp_path / "run", features))
    assert not (tmp_path / "run").exists()


def test_a_head_that_may_skip_trains_without_the_video_and_counts_the_other(
    features, benchmark, tmp_path, capsys
):
    recipe = head_recipe(benchmark, tmp_path / "run", features, data__on_decode_error="skip")
    run = run_training(recipe)
    assert (
        "1 of 6 training videos have no features, since making them failed, and are left out"
        in capsys.readouterr().out
    )
    assert len(read_steps(run.path)) == 2 * 2  # epochs, batches of two out of five videos
    skipped = json.loads(run.summary.read_text())["skipped_videos"]
    assert skipped[VALIDATION] == "the file is empty."
    results = json.loads(run.predictions.read_text())["results"]
    assert results[VALIDATION] == []
    assert len(results) == 5


def test_a_missing_file_that_is_not_listed_is_refused_even_where_failures_are_skipped(
    features, benchmark, tmp_path
):
    copy = tmp_path / "features"
    shutil.copytree(features, copy)
    (copy / "video_training_0003.npy").unlink()
    recipe = head_recipe(benchmark, tmp_path / "run", copy, data__on_decode_error="skip")
    with pytest.raises(FileNotFoundError, match="1 of 5 videos have no features in .*: video_training_0003"):
        run_training(recipe)


def test_extraction_of_the_repaired_videos_clears_the_list(features, extract, benchmark, tmp_path):
    copy = tmp_path / "before"
    shutil.copytree(features, copy)
    try:
        extracted = extract(benchmark.videos)  # another folder of the same videos: the features are the same
        assert (extracted.failures, extracted.num_videos) == ({}, 11)
        assert json.loads((features / "failures.json").read_text()) == {}
    finally:
        shutil.rmtree(features)
        shutil.copytree(copy, features)
