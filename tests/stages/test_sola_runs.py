"""SoLa's recipes through the trainer: trained without labels, judged, resumed, applied, and in front of a head."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import read_steps, recipe_file, tiny_overrides

from lofi.config.load import load_recipe
from lofi.config.objectives import OWN_PARTS
from lofi.data.feature_store import open_feature_directory, read_feature
from lofi.engine.checkpoint import newest_weights
from lofi.engine.validation import read_best, read_validations
from lofi.stages.train import run_training
from sola import PARTS
from sola.apply import apply_adapter

ALL_PARTS = OWN_PARTS.joined(PARTS)
LINEAR = {"objective__linear_evaluation_every_epochs": 1, "train__epochs": 3, "optimizer__lr": 0.05}


@pytest.fixture(scope="module")
def adapter_run(trained, extracted):
    return trained("sola_tiny", data__features=extracted, objective__weights="best", **LINEAR)


def read_json(path):
    return json.loads(path.read_text())


def test_similarity_matching_trains_the_adapter_and_logs_how_much_it_changes(adapter_run):
    steps = read_steps(adapter_run)
    assert len(steps) == 9
    assert steps[0]["alpha"] == steps[0]["relative_change"] == 0
    assert steps[-1]["alpha"] != 0
    summary = read_json(adapter_run / "summary.json")
    assert summary["average_mAP"] is None
    assert summary["trained_parameters"] > 0


def test_linear_evaluation_judges_every_epoch_and_its_best_checkpoint_is_kept(adapter_run):
    rows = read_validations(adapter_run / "validation.jsonl")
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert {row.measure for row in rows} == {"linear_accuracy"}
    best = max(rows, key=lambda row: (row.score, -row.step))
    assert read_best(adapter_run / "checkpoints").name == f"step_{best.step:06d}"


def test_an_interrupted_run_resumes_bit_for_bit(adapter_run, extracted, benchmark, tmp_path, monkeypatch):
    output = tmp_path / "run"
    changes = {"data__features": extracted, "objective__weights": "best", **LINEAR}
    overrides = tiny_overrides("sola_tiny", benchmark, output, **changes)
    recipe = load_recipe(recipe_file("sola_tiny"), overrides, parts=ALL_PARTS)
    import lofi.stages.validation as validation

    real, calls = validation.Validator.__call__, []

    def stop_at_the_second(self, position):
        calls.append(position)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, position)

    monkeypatch.setattr(validation.Validator, "__call__", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_training(recipe)
    monkeypatch.undo()
    run_training(recipe, resume=True)
    whole, resumed = (load_file(newest_weights(run / "checkpoints")) for run in (adapter_run, output))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_adapted_features_go_on_where_they_stopped_and_name_their_parent(adapter_run, extracted, tmp_path):
    output = tmp_path / "adapted"
    applied = apply_adapter(features=extracted, run=adapter_run, output=output)
    parent, directory = open_feature_directory(extracted), open_feature_directory(output)
    videos = sorted(parent.existing_videos())
    assert applied.num_videos == len(videos) == len(directory.existing_videos())
    assert directory.manifest.parent.startswith("features_tac, manifest ")
    assert directory.manifest.adapter["name"] == "sola"
    assert not np.array_equal(read_feature(directory, videos[0]), read_feature(parent, videos[0]))

    directory.file(videos[1]).unlink()
    kept = directory.file(videos[0]).stat().st_mtime_ns
    apply_adapter(features=extracted, run=adapter_run, output=output)
    assert directory.file(videos[0]).stat().st_mtime_ns == kept
    assert directory.existing_videos() == set(videos)
    apply_adapter(features=output, run=adapter_run, output=tmp_path / "twice")
    with pytest.raises(ValueError, match="holds features that were made otherwise: .*parent"):
        apply_adapter(features=extracted, run=adapter_run, output=tmp_path / "twice")
    with pytest.raises(ValueError, match="is the folder of the features themselves"):
        apply_adapter(features=extracted, run=adapter_run, output=extracted)


def test_a_head_on_a_frozen_adapter_equals_a_head_on_adapted_features(
    adapter_run, extracted, trained, tmp_path
):
    """One rescaled window is the whole video, so both ways give the head the same features."""
    apply_adapter(features=extracted, run=adapter_run, output=tmp_path / "adapted")
    in_front = trained("sola_tiny_actionformer", data__features=extracted, adapter__weights=adapter_run)
    on_files = trained("frozen_tiny_actionformer", data__features=tmp_path / "adapted")
    losses = [[step["loss"] for step in read_steps(run)] for run in (in_front, on_files)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    weights = load_file(newest_weights(in_front / "checkpoints"))
    adapter = load_file(read_best(adapter_run / "checkpoints") / "weights.safetensors")
    assert torch.equal(weights["adapter.alpha"], adapter["adapter.alpha"])
    assert read_json(in_front / "results.json")["average_mAP"] >= 0


def test_the_supervised_variant_trains_the_adapter_under_the_heads_loss(extracted, trained):
    run = trained("sola_supervised_tiny_actionformer", data__features=extracted)
    weights = load_file(newest_weights(run / "checkpoints"))
    assert float(weights["adapter.alpha"]) != 0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sola_tiny", {"objective__window": 9}, r"none of the 6 training videos has 9 rows"),
        ("sola_tiny", {"adapter": None}, r"adapter is missing; objective: similarity_matching needs one"),
        (
            "sola_tiny",
            {"head__name": "actionformer"},
            r"head has no effect with objective: similarity_matching",
        ),
        ("sola_tiny", {"objective__weights": "best"}, r"objective\.weights: best has no effect without"),
        ("sola_tiny_actionformer", {"adapter__weights": "nowhere"}, r"nowhere is no run directory"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(name, changes, message, extracted, benchmark, tmp_path):
    overrides = tiny_overrides(name, benchmark, tmp_path / "run", data__features=extracted, **changes)
    with pytest.raises(ValueError, match=message):
        run_training(load_recipe(recipe_file(name), overrides, parts=ALL_PARTS))
    assert not (tmp_path / "run").exists()


def test_lofi_alone_does_not_know_the_adapter(benchmark, extracted, tmp_path):
    overrides = tiny_overrides("sola_tiny", benchmark, tmp_path / "run", data__features=extracted)
    with pytest.raises(ValueError, match=r"objective\.name is 'similarity_matching'; allowed: tal, tac"):
        load_recipe(recipe_file("sola_tiny"), overrides)
