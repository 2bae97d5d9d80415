"""A detector with a feature per frame, in LoRA: trained, planned, evaluated, its features extracted, any video predicted."""

import pytest
import torch
from tiny_runs import recipe_file, tiny_overrides

from lofi.config.load import load_extraction_recipe, load_recipe
from lofi.data.feature_store import open_feature_directory, read_feature
from lofi.stages.evaluate import evaluate_run
from lofi.stages.extract import run_extraction
from lofi.stages.plan import PlanOptions, predict_peak
from lofi.stages.predict import PredictOptions, run_prediction
from lofi.stages.profile_steps import ProfileOptions, measure_recipe
from lofi.stages.train import run_training

NUM_SNIPPETS, FRAMES = 3, 4
SLIDING = {"grid.mode": "sliding", "grid.window_sec": 2.4}
ENCODER = {
    "encoder.name": "image",
    "encoder.network": "test_vit",
    "encoder.feature": "frame",
    "encoder.lora_rank": 2,
}
FIDELITY = {
    "fidelity.num_snippets": NUM_SNIPPETS,
    "fidelity.frames": FRAMES,
    "fidelity.height": 32,
    "fidelity.width": 32,
}


def overrides(name, benchmark, output, **changes):
    """As the tiny recipes', with another encoder."""
    values = {**SLIDING, "grid.spread_frames": True, **ENCODER, **FIDELITY}
    own = [each for each in tiny_overrides(name, benchmark, output) if not each.startswith("encoder.")]
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return [*own, *(f"{key}={value}" for key, value in {**values, **changes}.items())]


def detector_recipe(benchmark, output, **changes):
    name = "chunked_tiny_actionformer"
    return load_recipe(recipe_file(name), overrides(name, benchmark, output, train__epochs=1, **changes))


@pytest.fixture(scope="module")
def run(benchmark, tmp_path_factory):
    return run_training(detector_recipe(benchmark, tmp_path_factory.mktemp("frames") / "run")).path


def assert_same(found, wanted):
    """Best first; of near equal scores the order may differ."""
    assert sum(map(len, wanted.values())) > 10
    for video, rows in wanted.items():
        scores = torch.tensor([[row.score for row in each] for each in (found[video], rows)])
        torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-6)
        ends = torch.tensor([[(row.start_sec, row.end_sec) for row in each] for each in (found[video], rows)])
        torch.testing.assert_close(ends[0].mean(dim=0), ends[1].mean(dim=0), rtol=1e-4, atol=1e-4)


def predictions(run, benchmark, output):
    options = PredictOptions(
        run=run, videos=[str(benchmark.videos)], output=output, pages=False, device="cpu", encoder_batch=2,
        annotations=benchmark.annotations,
    )  # fmt: skip
    return run_prediction(options).predictions


def test_prediction_of_a_video_is_that_of_evaluation(run, benchmark, tmp_path):
    assert_same(predictions(run, benchmark, tmp_path / "out"), evaluate_run(run).predictions)


def test_a_head_trains_on_extracted_features_and_predicts_videos(run, benchmark, tmp_path):
    features = tmp_path / "features"
    recipe = overrides("extract_tiny", benchmark, features, encoder__weights=run)
    run_extraction(load_extraction_recipe(recipe_file("extract_tiny"), recipe))
    directory = open_feature_directory(features)
    assert directory.manifest.features_per_snippet == FRAMES
    assert directory.manifest.snippet_stride_sec == pytest.approx(2.4 / NUM_SNIPPETS / FRAMES)
    video = sorted(directory.existing_videos())[0]
    assert len(read_feature(directory, video)) == 4.0 / 0.2  # the benchmark's videos are 4 s long

    name = "frozen_tiny_actionformer"
    changes = tiny_overrides(name, benchmark, tmp_path / "head", data__features=features, train__epochs=1)
    recipe = load_recipe(recipe_file(name), [*changes, *(f"{key}={value}" for key, value in SLIDING.items())])
    head = run_training(recipe).path
    assert_same(predictions(head, benchmark, tmp_path / "out"), evaluate_run(head).predictions)


def test_the_predicted_peak_is_the_counted_one_to_the_byte(benchmark, tmp_path):
    recipe = detector_recipe(benchmark, tmp_path, gradient__chunk_size=1)
    options = ProfileOptions(steps=1, warm_up=1, synthetic_input=True)
    measured = measure_recipe(recipe, options=options)
    predicted = predict_peak(recipe, options=PlanOptions(device="cpu", assumed=options.assumed))
    assert predicted.worst.bytes == measured["bytes"]
    on_a_gpu = predict_peak(recipe, options=PlanOptions(device="cuda"))
    assert on_a_gpu.peak_bytes > 0


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"grid__spread_frames": False}, r"needs snippets that touch.*grid\.spread_frames: true"),
        (
            {"grid__spread_frames": False, "grid__frame_rate": 8.0},
            r"one every 0\.8 s, they are 0\.5 s long",
        ),
        (
            {
                "grid__spread_frames": False,
                "grid__frame_rate": NUM_SNIPPETS * FRAMES / 2.4,
                "data__snippet_jitter": 0.5,
                "data__frame_cache": None,
            },
            r"snippet_jitter is refused",
        ),
    ],
)
def test_features_that_would_not_be_evenly_spaced_are_refused(changes, match, benchmark, tmp_path):
    with pytest.raises(ValueError, match=match):
        detector_recipe(benchmark, tmp_path, **{key: _yaml(value) for key, value in changes.items()})


def test_snippets_that_touch_at_a_frame_rate_are_taken(benchmark, tmp_path):
    rate = NUM_SNIPPETS * FRAMES / 2.4
    detector_recipe(benchmark, tmp_path, grid__spread_frames="false", grid__frame_rate=rate)


def test_an_objective_of_single_vectors_is_refused(benchmark, tmp_path):
    changes = {"encoder.name": "videomae", "encoder.size": "small", "encoder.feature": "tubelet"}
    changes |= {"fidelity.height": 32, "fidelity.width": 32}
    own = [each for each in tiny_overrides("tac_tiny", benchmark, tmp_path) if "encoder." not in each]
    with pytest.raises(ValueError, match="refused with objective: tac, which takes one vector per snippet"):
        load_recipe(recipe_file("tac_tiny"), [*own, *(f"{key}={value}" for key, value in changes.items())])


def _yaml(value):
    return (
        {True: "true", False: "false", None: "null"}.get(value, value)
        if not isinstance(value, float)
        else value
    )
