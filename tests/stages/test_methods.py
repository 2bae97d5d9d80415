"""One run of every method in configs/synthetic: it finishes, and leaves what a run must leave."""

import json

import numpy as np
import pytest
from tiny_runs import (
    BATCH_SIZE,
    CHANNELS,
    FRAMES,
    NUM_SNIPPETS,
    SIDE,
    SYNTHETIC,
    read_steps,
    recipe_file,
    tiny_overrides,
)

from lofi.config.load import load_extraction_recipe
from lofi.stages.extract import run_extraction

FULL = "8x4x20x20"
S, T, ST = "8x4x10x10", "2x4x20x20", "4x4x14x14"

FIDELITIES = {
    "full": [FULL] * 6,
    "checkpointed": [FULL] * 6,
    "chunked": [FULL] * 6,
    "sampled": [FULL] * 6,
    "lofi_s": [S] * 6,
    "lofi_t": [T] * 6,
    "lofi_st": [ST] * 6,
    "lofi_cyclic": [S] * 3 + [T] * 3 + [ST] * 3,
    "lofi_short_cyclic": [S, S, T, T, ST, ST],
}
"""Method -> fidelity of each step; an epoch has three."""

METHODS = [f"{method}_tiny_actionformer" for method in FIDELITIES]
TRAINED = [*METHODS, "tac_tiny"]


@pytest.fixture(scope="module")
def frozen(trained, extracted):
    return trained("frozen_tiny_actionformer", data__features=extracted)


def read_json(path):
    return json.loads(path.read_text())


def test_every_method_of_the_synthetic_recipes_is_run_here():
    files = {path.stem for path in SYNTHETIC.glob("*_tiny*.yaml")}
    of_sola = {
        "sola_tiny",
        "sola_tiny_actionformer",
        "sola_supervised_tiny_actionformer",
    }  # test_sola_runs.py
    pretexts = {"tsp_tiny", "bsp_tiny", "pal_tiny"}  # test_pretexts.py
    files = {name for name in files if not name.endswith(("_bmn", "_gtad", "_tridet"))}  # test_heads.py
    assert files - pretexts == {*METHODS, *of_sola, "tac_tiny", "extract_tiny", "frozen_tiny_actionformer"}


@pytest.mark.parametrize("name", TRAINED)
def test_a_run_leaves_what_the_run_directory_promises(name, trained):
    run = trained(name)
    expected = {"recipe.yaml", "environment.json", "metrics.jsonl", "memory.json", "summary.json"}
    if name in METHODS:
        expected |= {"predictions.json", "results.json"}
    assert {path.name for path in run.iterdir()} == expected | {"checkpoints", "tensorboard"}
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert [path.name for path in sorted((run / "checkpoints").iterdir())][-1].startswith("step_")
    assert read_json(run / "environment.json")["packages"]["torch"]
    summary = read_json(run / "summary.json")
    assert summary["skipped_videos"] == {}
    assert summary["step"] == len(read_steps(run))
    assert (summary["average_mAP"] is not None) == (name in METHODS)


@pytest.mark.parametrize(("method", "fidelities"), FIDELITIES.items())
def test_each_step_has_the_fidelity_of_the_schedule(method, fidelities, trained):
    steps = read_steps(trained(f"{method}_tiny_actionformer"))
    assert [step["fidelity"] for step in steps] == fidelities
    assert [step["step"] for step in steps] == list(range(len(fidelities)))
    assert [step["epoch"] for step in steps] == [index // 3 for index in range(len(fidelities))]
    for step in steps:
        assert np.isfinite([step["loss"], step["classification"], step["regression"]]).all()
        assert step["snippets_per_sec"] > 0
        assert step["gradient_norm"] > 0
        assert {"lr_head", "lr_encoder"} <= set(step)


@pytest.mark.parametrize("name", TRAINED)
def test_the_bytes_of_a_step_sum_to_its_peak(name, trained):
    run = trained(name)
    (row,) = read_json(run / "memory.json")
    assert (row["kind"], row["device"], row["world_size"]) == ("measured", "cpu", 1)
    assert sum(row["bytes"].values()) == row["peak_bytes"] == read_json(run / "summary.json")["peak_bytes"]
    trained_parameters = read_json(run / "summary.json")["trained_parameters"]
    assert 0 <= row["bytes"]["gradients"] <= 4 * trained_parameters, "those that are there at the peak"
    assert max(row["curve"]["live_bytes"]["gradients"]) == 4 * trained_parameters
    assert 8 * trained_parameters <= row["bytes"]["optimizer"] < 9 * trained_parameters + 1000
    assert row["bytes"]["parameters"] >= 4 * trained_parameters
    assert row["bytes"]["activations"] > 0
    assert row["bytes"]["inputs"] > 0
    assert row["snippets_per_sec"] > 0


def test_exact_gradient_paths_train_alike_step_for_step(trained):
    losses = {
        method: [step["loss"] for step in read_steps(trained(f"{method}_tiny_actionformer"))]
        for method in ("full", "checkpointed", "chunked", "sampled")
    }
    assert losses["checkpointed"] == pytest.approx(losses["full"], abs=1e-5)
    assert losses["chunked"] == pytest.approx(losses["full"], abs=1e-5)
    assert losses["sampled"] != pytest.approx(losses["full"], abs=1e-5)


def test_chunks_and_reduced_fidelity_need_less_memory_than_full(trained):
    def peak(method):
        return read_json(trained(f"{method}_tiny_actionformer") / "memory.json")[0]["peak_bytes"]

    assert peak("chunked") < peak("full")
    assert peak("checkpointed") <= peak(
        "full"
    )  # equal where the first block alone makes the peak, as at this size
    assert peak("sampled") < peak("full")
    for method in ("lofi_s", "lofi_t", "lofi_st"):
        assert peak(method) < 0.6 * peak("full")
    assert peak("lofi_cyclic") == pytest.approx(
        max(peak("lofi_s"), peak("lofi_t"), peak("lofi_st")), rel=0.05
    )


def test_predictions_name_every_validation_video_once(trained, benchmark):
    database = read_json(benchmark.annotations)["database"]
    validation = {name for name, video in database.items() if video["subset"] == "validation"}
    predictions = read_json(trained("full_tiny_actionformer") / "predictions.json")["results"]
    assert set(predictions) == validation
    for name, rows in predictions.items():
        for row in rows:
            assert 0 <= row["segment"][0] < row["segment"][1] <= database[name]["duration"]


def test_results_are_fractions_at_the_thresholds_of_the_recipe(trained):
    results = read_json(trained("full_tiny_actionformer") / "results.json")
    assert next(iter(results["mAP"])) == "0.50"
    assert len(results["mAP"]) == 10
    assert results["average_mAP"] == pytest.approx(np.mean(list(results["mAP"].values())))
    assert all(0 <= value <= 1 for value in [*results["mAP"].values(), *results["AR"].values()])


def test_extraction_writes_one_sequence_per_video(extracted, benchmark):
    videos = read_json(benchmark.annotations)["database"]
    assert {path.stem for path in extracted.glob("*.npy")} == set(videos)
    manifest = read_json(extracted / "manifest.json")
    assert manifest["fidelity"] == {
        "num_snippets": NUM_SNIPPETS,
        "frames": FRAMES,
        "height": SIDE,
        "width": SIDE,
    }
    for path in extracted.glob("*.npy"):
        features = np.load(path)
        assert features.shape == (NUM_SNIPPETS, CHANNELS[-1])
        assert np.isfinite(features).all()
        assert features.std() > 0


def test_extraction_takes_the_encoder_of_the_run_that_it_names(extracted, trained, benchmark, tmp_path):
    output = tmp_path / "features"
    overrides = tiny_overrides(
        "extract_tiny", benchmark, output, encoder__weights=trained("lofi_s_tiny_actionformer")
    )
    other = run_extraction(load_extraction_recipe(recipe_file("extract_tiny"), overrides)).path
    name = next(other.glob("*.npy")).name
    assert not np.allclose(np.load(other / name), np.load(extracted / name))
    assert (
        read_json(other / "manifest.json")["weights_sha256"]
        != read_json(extracted / "manifest.json")["weights_sha256"]
    )


def test_a_whole_feature_directory_is_left_as_it_is(extracted, trained, benchmark):
    before = {path: path.stat().st_mtime_ns for path in extracted.iterdir()}
    overrides = tiny_overrides("extract_tiny", benchmark, extracted, encoder__weights=trained("tac_tiny"))
    assert run_extraction(load_extraction_recipe(recipe_file("extract_tiny"), overrides)).num_videos == 11
    assert {path: path.stat().st_mtime_ns for path in extracted.iterdir()} == before


def test_the_head_trains_and_is_evaluated_on_features_from_disk(frozen):
    steps = read_steps(frozen)
    assert [step["fidelity"] for step in steps] == [FULL] * 6
    assert "lr_encoder" not in steps[0]
    assert 0 <= read_json(frozen / "results.json")["average_mAP"] <= 1
    (row,) = read_json(frozen / "memory.json")
    assert sum(row["bytes"].values()) == row["peak_bytes"]


def test_steps_hold_the_windows_of_the_recipe(trained):
    (row,) = read_json(trained("tac_tiny") / "memory.json")
    assert row["steps"] > 0
    assert len(read_steps(trained("tac_tiny"))) == 2 * (10 // 5)
    assert len(read_steps(trained("full_tiny_actionformer"))) == 2 * (6 // BATCH_SIZE)
