"""SoLa's recipes through the trainer: trained without labels, judged, resumed, applied, and in front of a head."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import ROOT, child_environment, read_steps, recipe_file, tiny_overrides

from lofi.config.load import load_recipe
from lofi.config.objectives import OWN_PARTS
from lofi.data.feature_failures import record_failures
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
    assert summary["weights"] == "best"
    assert summary["trained_parameters"] > 0


def test_linear_evaluation_judges_the_start_and_every_epoch_and_its_best_checkpoint_is_kept(adapter_run):
    rows = read_validations(adapter_run / "validation.jsonl")
    assert [(row.epoch, row.step) for row in rows] == [(0, 0), (1, 3), (2, 6), (3, 9)]
    assert {row.measure for row in rows} == {"balanced_linear_accuracy"}
    assert all(set(row.details) == {"linear_accuracy", "action_share"} for row in rows)
    best = max(rows[1:], key=lambda row: (row.score, -row.step))  # the start has no checkpoint
    assert read_best(adapter_run / "checkpoints").name == f"step_{best.step:06d}"


def test_an_interrupted_run_resumes_bit_for_bit(adapter_run, extracted, benchmark, tmp_path, monkeypatch):
    output = tmp_path / "run"
    changes = {"data__features": extracted, "objective__weights": "best", **LINEAR}
    overrides = tiny_overrides("sola_tiny", benchmark, output, **changes)
    recipe = load_recipe(recipe_file("sola_tiny"), overrides, parts=ALL_PARTS)
    import lofi.stages.validation as validation

    real = validation.Validator.__call__

    def stop_at_the_second(self, position):
        if position.epoch == 2:
            raise KeyboardInterrupt
        return real(self, position)

    monkeypatch.setattr(validation.Validator, "__call__", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_training(recipe)
    monkeypatch.undo()
    run_training(recipe, resume=True)
    scores = [
        [(row.step, row.score) for row in read_validations(run / "validation.jsonl")]
        for run in (adapter_run, output)
    ]
    assert scores[0] == scores[1]
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
    moved = extracted.rename(extracted.with_name("features_moved"))
    try:
        apply_adapter(features=moved, run=adapter_run, output=output)
    finally:
        moved.rename(extracted)
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
        (
            "sola_tiny",
            {"grid__mode": "sliding", "grid__window_sec": 2.5},
            r"grid\.mode has no effect with objective: similarity_matching",
        ),
        (
            "sola_tiny",
            {"grid__training": "crops"},
            r"grid\.training has no effect with objective: similarity_",
        ),
        (
            "sola_tiny",
            {"objective__linear_evaluation_videos": 3},
            r"linear_evaluation_videos has no effect without",
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


@pytest.fixture
def one_failed(extracted, tmp_path):
    """The features without those of one training video, which could not be decoded."""
    copy = tmp_path / "one_failed"
    shutil.copytree(extracted, copy)
    (copy / "video_training_0003.npy").unlink()
    record_failures(open_feature_directory(copy), {"video_training_0003": "the file is empty."})
    return copy


def test_a_video_without_features_is_named_with_its_reason_or_left_out(
    one_failed, adapter_run, benchmark, tmp_path
):
    def recipe(**changes):
        overrides = tiny_overrides(
            "sola_tiny", benchmark, tmp_path / "run", data__features=one_failed, **LINEAR, **changes
        )
        return load_recipe(recipe_file("sola_tiny"), overrides, parts=ALL_PARTS)

    with pytest.raises(
        ValueError, match=r"video_training_0003 has no features, .*: the file is empty\. .*skip"
    ):
        run_training(recipe())
    run = run_training(recipe(data__on_decode_error="skip", train__batch_size=5))
    assert read_json(run.summary)["skipped_videos"] == {"video_training_0003": "the file is empty."}


def test_adapting_lists_the_videos_that_had_no_features_and_the_exit_code_says_so(
    one_failed, adapter_run, tmp_path
):
    options = {"--features": one_failed, "--adapter": adapter_run, "--output": tmp_path / "adapted"}
    arguments = [str(part) for option in options.items() for part in option]
    done = subprocess.run(
        [sys.executable, ROOT / "launch" / "extract.py", *arguments],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "skipped: video_training_0003: the file is empty." in done.stdout
    assert f"feature directory: {tmp_path / 'adapted'}, 10 videos" in done.stdout


def test_annotations_of_one_class_of_snippets_are_refused_before_training(extracted, benchmark, tmp_path):
    content = json.loads(benchmark.annotations.read_text())
    for entry in content["database"].values():
        entry["annotations"] = []
    annotations = tmp_path / "annotations.json"
    annotations.write_text(json.dumps(content))
    changes = {"data__annotations": annotations, "data__features": extracted, **LINEAR}
    overrides = tiny_overrides("sola_tiny", benchmark, tmp_path / "run", **changes)
    with pytest.raises(ValueError, match="none of the .* lies inside an annotated segment"):
        run_training(load_recipe(recipe_file("sola_tiny"), overrides, parts=ALL_PARTS))
    assert not (tmp_path / "run").exists()


def test_lofi_alone_does_not_know_the_adapter(benchmark, extracted, tmp_path):
    overrides = tiny_overrides("sola_tiny", benchmark, tmp_path / "run", data__features=extracted)
    with pytest.raises(ValueError, match=r"objective\.name is 'similarity_matching'; allowed: tal, tac"):
        load_recipe(recipe_file("sola_tiny"), overrides)
