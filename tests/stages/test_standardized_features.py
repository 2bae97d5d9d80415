"""data.standardize_features: moments of the training videos are part of the weights, and prediction uses them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import recipe_file, tiny_overrides

from lofi.config.load import RecipeError, load_recipe
from lofi.data.annotations import read_annotations
from lofi.data.feature_moments import feature_moments
from lofi.data.feature_store import open_feature_directory, read_feature
from lofi.stages.evaluate import load_module
from lofi.stages.plan import PlanOptions, predict_peak
from lofi.stages.train import run_training

HEAD = "frozen_tiny_actionformer"


@pytest.fixture(scope="module")
def recipe(benchmark, extracted, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "run"
    overrides = tiny_overrides(
        HEAD, benchmark, output, data__features=extracted, data__standardize_features=True, train__epochs=1
    )
    return load_recipe(recipe_file(HEAD), overrides)


def test_moments_are_those_of_all_rows_of_the_training_videos(recipe):
    directory = open_feature_directory(recipe.data.features)
    videos = [video.name for video in read_annotations(recipe.data.annotations).subset("training")]
    rows = np.concatenate([read_feature(directory, video) for video in videos]).astype(np.float64)
    mean, deviation = feature_moments(directory, videos)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(deviation, np.maximum(rows.std(axis=0), 1e-6), rtol=1e-5)


def test_a_run_keeps_its_moments_and_evaluates_with_them(recipe):
    run = run_training(recipe)
    assert json.loads(run.results.read_text())["average_mAP"] >= 0
    weights = next(run.checkpoints.glob("step_*/weights.safetensors"))
    kept = load_file(weights)
    annotations = read_annotations(recipe.data.annotations)
    videos = [video.name for video in annotations.subset("training")]
    mean, deviation = feature_moments(open_feature_directory(recipe.data.features), videos)
    torch.testing.assert_close(kept["scale.mean"], mean)
    torch.testing.assert_close(kept["scale.deviation"], deviation)
    detector = load_module(recipe, annotations, weights=weights)
    features = mean + 2 * deviation.expand(1, 5, -1)
    scaled = detector._adapted(features, torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(scaled, torch.full_like(scaled, 2.0), rtol=1e-4, atol=1e-4)


def test_planning_needs_no_features(recipe):
    assert predict_peak(recipe, options=PlanOptions(device="cpu")).worst.peak_bytes > 0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("lofi_t_tiny_actionformer", {}, "standardize_features is for data.features"),
        ("sola_tiny", {}, "data.standardize_features"),
        ("sola_tiny_actionformer", {}, "refused with an adapter"),
        ("extract_tiny", {}, "data.standardize_features"),
    ],
)
def test_where_it_has_no_meaning_it_is_refused(benchmark, tmp_path, name, changes, message):
    from lofi.config.load import load_extraction_recipe
    from lofi.config.objectives import OWN_PARTS
    from sola import PARTS

    load = load_extraction_recipe if name == "extract_tiny" else load_recipe
    options = {} if name == "extract_tiny" else {"parts": OWN_PARTS.joined(PARTS)}
    with pytest.raises(RecipeError, match=message):
        load(recipe_file(name), ["data.standardize_features=true"], **options)
