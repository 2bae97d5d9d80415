"""TSP, BSP and PAL as runs: validated while they train, handed on as encoders, resumed bit for bit, refused before training."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import CHANNELS, ROOT, read_steps, recipe_file, tiny_overrides

from lofi.config.load import load_recipe
from lofi.data.annotations import read_annotations
from lofi.data.synthetic import SyntheticConfig, write_benchmark
from lofi.encoders.build import build_encoder
from lofi.encoders.choices import TinyConfig
from lofi.engine.checkpoint import list_checkpoints, newest_weights
from lofi.stages.build import open_source
from lofi.stages.chains import chain_folder, chain_stages, load_comparison
from lofi.stages.list_videos import list_videos
from lofi.stages.plan import PlanOptions, predict_peak
from lofi.stages.profile_steps import ProfileOptions, measure_recipe
from lofi.stages.train import run_training

PARTS = {
    "tsp_tiny": {"action", "region", "action_accuracy", "region_accuracy"},
    "bsp_tiny": {"boundary", "accuracy"},
    "pal_tiny": {"contrast", "agreement"},
}
"""What each logs of a step."""
EXPORTED = {
    "tsp_tiny": {"encoder", "action_head", "region_head"},
    "bsp_tiny": {"encoder", "type_head"},
    "pal_tiny": {"encoder", "projection"},
}


@pytest.mark.parametrize("name", PARTS)
def test_a_pretext_trains_is_validated_and_hands_on_its_encoder(name, trained):
    run = trained(name)
    for step in read_steps(run):
        assert {"loss", *PARTS[name]} <= set(step)
        assert step["gradient_norm"] > 0
    lines = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert all(0 <= line["score"] <= 1 for line in lines)
    weights = load_file(newest_weights(run / "checkpoints"))
    assert {key.partition(".")[0] for key in weights} == EXPORTED[name]
    encoder, report = build_encoder("tiny", TinyConfig(channels=CHANNELS, weights=str(run)))
    assert report is not None
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    handed_on = run / "checkpoints" / best["checkpoint"] / "weights.safetensors"
    expected = load_file(handed_on) if name == "tsp_tiny" else weights
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, expected[f"encoder.{key}"])


def test_classification_is_validated_by_mean_class_accuracy(trained):
    run = trained("tac_tiny", objective__validate_every_epochs=2, objective__class_balance="equal")
    lines = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["measure"]) for line in lines] == [
        (0, "mean_class_accuracy"),
        (2, "mean_class_accuracy"),
    ]
    assert set(lines[0]["details"]) == {"top1", "top5"}


def test_segments_of_untrimmed_videos_serve_classification_too(benchmark, trained):
    run = trained("tac_tiny", data__annotations=benchmark.annotations, data__videos=benchmark.videos)
    assert read_steps(run)


def test_tsp_reads_the_global_features_of_an_extraction(trained, extracted):
    run = trained("tsp_tiny", objective__global_features=extracted)
    width = CHANNELS[-1]
    weights = load_file(newest_weights(run / "checkpoints"))
    assert weights["region_head.weight"].shape == (2, 2 * width)


def test_pal_on_a_folder_of_videos_resumes_with_queue_and_momentum_encoder_bit_for_bit(benchmark, tmp_path):
    unlabelled = tmp_path / "unlabelled.json"
    list_videos(benchmark.videos, output=unlabelled, validation_share=0.4)
    assert read_annotations(unlabelled).classes == ()
    changes = {"train__epochs": 3, "train__keep_checkpoints": 3, "data__flip": True}
    changes["data__annotations"] = unlabelled
    overrides = tiny_overrides("pal_tiny", benchmark, tmp_path / "run", **changes)
    recipe = load_recipe(recipe_file("pal_tiny"), overrides)
    run = run_training(recipe)
    first, *later = list_checkpoints(run.checkpoints)
    assert len(later) == 2
    assert len(run.validation.read_text().splitlines()) == 1 + 3
    before = _state(later[-1])
    assert any(name.startswith("buffers.queue") for name in before)
    assert any(name.startswith("buffers.key_encoder") for name in before)
    for checkpoint in later:
        shutil.rmtree(checkpoint)
    run.summary.unlink()
    run_training(recipe, resume=True)
    after = _state(list_checkpoints(run.checkpoints)[-1])
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(before["buffers.queue.keys"], _state(first)["buffers.queue.keys"])


def _state(checkpoint):
    rank = torch.load(checkpoint / "rank_0.pt", weights_only=True)
    buffers = {f"buffers.{name}": value for name, value in rank["buffers"].items()}
    return {**load_file(checkpoint / "weights.safetensors"), **buffers}


MOCO = {"data__color_jitter": 0.4, "data__grayscale": 0.2, "data__blur": 0.5}


@pytest.mark.parametrize(
    ("name", "gradient", "drawn"),
    [
        *((name, "joint", {}) for name in PARTS),
        ("pal_tiny", "joint", MOCO),
        ("pal_tiny", "chunked", MOCO),
    ],
)
def test_the_predicted_peak_is_the_counted_one_to_the_byte(name, gradient, drawn, benchmark, tmp_path):
    changes = {"gradient__name": gradient} | ({"gradient__chunk_size": 5} if gradient == "chunked" else {})
    changes |= drawn
    overrides = tiny_overrides(name, benchmark, tmp_path / "run", **changes)
    recipe = load_recipe(recipe_file(name), overrides)
    options = ProfileOptions(steps=1, warm_up=1, synthetic_input=True)
    measured = measure_recipe(recipe, options=options)
    predicted = predict_peak(recipe, options=PlanOptions(device="cpu", assumed=options.assumed))
    assert predicted.peak_bytes == measured["counted_peak_bytes"]
    assert predicted.worst.bytes == measured["bytes"]


def load_with(name, benchmark, output, database, **changes):
    file = output / "annotations.json"
    file.write_text(json.dumps({"database": database}))
    overrides = tiny_overrides(name, benchmark, output / "run", **{"data__annotations": file, **changes})
    return load_recipe(recipe_file(name), overrides)


def database_of(benchmark, part):
    return json.loads((benchmark.data / part / "annotations.json").read_text())["database"]


def refused(recipe):
    """The message, where nothing has been made of the run yet."""
    with pytest.raises(ValueError, match=".") as caught:
        run_training(recipe)
    assert not Path(recipe.output).exists()
    return str(caught.value)


def test_annotations_without_background_are_refused_before_training(benchmark, tmp_path):
    database = database_of(benchmark, "untrimmed")
    for entry in database.values():
        entry["annotations"] = [{"segment": [0, entry["duration"]], "label": "shake"}]
    assert "no background" in refused(load_with("tsp_tiny", benchmark, tmp_path, database))


def test_global_features_of_other_videos_are_refused_before_training(benchmark, tmp_path, extracted):
    database = database_of(benchmark, "untrimmed")
    database["another"] = next(iter(database.values()))
    recipe = load_with("tsp_tiny", benchmark, tmp_path, database, objective__global_features=extracted)
    assert "objective.global_features: 1 of 7 videos have no features" in refused(recipe)


def test_videos_and_segments_that_are_too_short_are_counted_before_training(benchmark, tmp_path, capsys):
    database = database_of(benchmark, "untrimmed")
    first = next(entry for entry in database.values() if entry["subset"] == "training")
    first |= {"duration": 1.5, "annotations": []}
    open_source(load_with("pal_tiny", benchmark, tmp_path, database))
    assert "training: 1 of 6 videos does not hold the 2 s" in capsys.readouterr().out
    database = database_of(benchmark, "trimmed")
    for entry in list(database.values())[:2]:
        entry["annotations"][0]["segment"] = [0, 0.1]
    open_source(load_with("bsp_tiny", benchmark, tmp_path, database))
    assert "training: 2 of 10 annotated segments do not hold" in capsys.readouterr().out


def test_two_videos_are_refused_before_training(benchmark, tmp_path):
    database = dict(list(database_of(benchmark, "untrimmed").items())[:2])
    recipe = load_with("pal_tiny", benchmark, tmp_path, database, objective__validate_every_epochs=None)
    assert "2 of 2 videos hold 2 s" in refused(recipe)


def test_one_class_is_refused_before_training(benchmark, tmp_path):
    database = database_of(benchmark, "trimmed")
    for entry in database.values():
        entry["annotations"][0]["label"] = "shake"
    assert "of the one class shake" in refused(load_with("bsp_tiny", benchmark, tmp_path, database))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("pal_tiny", {"grid__frame_rate": None}, "grid.frame_rate is null"),
        ("pal_tiny", {"train__batch_size": 2}, "train.batch_size is 2"),
        ("pal_tiny", {"objective__min_region": 0.05}, "less than one"),
        ("pal_tiny", {"data__frame_cache": "cache"}, "data.frame_cache has no use"),
        ("pal_tiny", {"deepspeed__zero_optimization__stage": 3}, "stage: 3 is refused"),
        ("pal_tiny", {"fidelity__reduction": "time"}, "only none and space"),
        ("pal_tiny", {"data__snippet_jitter": 0.5}, "data.snippet_jitter has no effect"),
        ("bsp_tiny", {"fidelity__num_snippets": 6}, "it must be 4"),
        ("bsp_tiny", {"fidelity__frames": 2}, "needs 4 frames"),
        ("tsp_tiny", {"grid__frame_rate": 2}, "would reach into the actions"),
    ],
)
def test_recipes_that_cannot_be_meant_are_refused(name, changes, message, benchmark, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_recipe(recipe_file(name), tiny_overrides(name, benchmark, tmp_path, **changes))


def test_a_share_of_the_labels_trains_on_fewer_videos(trained):
    whole, share = (
        read_steps(trained("tsp_tiny", **changes)) for changes in ({}, {"data__labelled_share": 0.5})
    )
    assert 0 < len(share) < len(whole)


def test_a_share_is_repeated_to_as_many_windows_of_its_own_videos(benchmark, tmp_path):
    repeated = {"data__labelled_share": 0.5, "data__repeat_labelled": True}
    whole, share, again = (
        open_source(
            load_recipe(recipe_file("tsp_tiny"), tiny_overrides("tsp_tiny", benchmark, tmp_path, **changes))
        ).training.windows
        for changes in ({}, {"data__labelled_share": 0.5}, repeated)
    )
    assert len(again) == len(whole) > len(share)
    videos = {window.video for window in share}
    assert {window.video for window in again} == videos < {window.video for window in whole}


@pytest.fixture(scope="module")
def small_benchmark(tmp_path_factory):
    """32 and 24 untrimmed videos of 8 s at 8 frames a second, two classes."""
    folder = tmp_path_factory.mktemp("pretexts")
    config = SyntheticConfig(
        videos=32, trimmed_videos=4, classes=2, size=20, fps=8.0, duration_sec=8.0, clip_sec=1.0
    )
    write_benchmark(config, folder)
    return folder / "untrimmed"


def validated(name, small_benchmark, output, **changes):
    """The validations of a run on the small benchmark with a fixed seed: before training and at its end."""
    options = {
        "data.annotations": small_benchmark / "annotations.json",
        "data.videos": small_benchmark / "videos",
        "output": output / "run",
        "fidelity.height": 20,
        "fidelity.width": 20,
        "encoder.channels": "[8,12,16]",
        "optimizer.lr": 4.0e-3,
        "objective.validate_every_epochs": 100,
        "train.checkpoint_every_epochs": 100,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    overrides = [f"{key}={'null' if value is None else value}" for key, value in options.items()]
    run = run_training(load_recipe(recipe_file(name), overrides))
    before, after = (json.loads(line) for line in run.validation.read_text().splitlines())
    return before, after


def test_tsp_tells_action_from_background_ten_points_above_chance(small_benchmark, tmp_path):
    before, after = validated(
        "tsp_tiny",
        small_benchmark,
        tmp_path,
        data__frame_cache=tmp_path / "frames",
        objective__global_features=None,
        fidelity__frames=8,
        train__batch_size=16,
        train__epochs=15,
    )
    assert abs(before["details"]["balanced_region_accuracy"] - 0.5) < 0.1
    assert after["details"]["balanced_region_accuracy"] > 0.6


def test_pal_finds_the_counterpart_of_a_bin_twelve_times_as_often_as_chance_and_more_than_untrained(
    small_benchmark, tmp_path
):
    before, after = validated(
        "pal_tiny",
        small_benchmark,
        tmp_path,
        grid__frame_rate=8,
        fidelity__num_snippets=8,
        fidelity__frames=4,
        objective__queue=256,
        objective__temperature=0.1,
        objective__momentum=0.9,
        train__batch_size=8,
        train__epochs=20,
    )
    assert after["score"] > 12 * after["details"]["chance"]
    assert after["score"] > before["score"] + 0.05


def test_frames_narrower_than_the_blur_reaches_are_refused(benchmark, tmp_path):
    own = [each for each in tiny_overrides("pal_tiny", benchmark, tmp_path) if "encoder." not in each]
    changes = ["encoder.name=swin3d", "data.blur=0.5", "fidelity.width=6"]
    with pytest.raises(ValueError, match="both sides must be at least 7"):
        load_recipe(recipe_file("pal_tiny"), [*own, *changes])


def test_chains_hand_on_global_features_and_join_streams(monkeypatch):
    monkeypatch.chdir(ROOT)
    comparison = load_comparison("configs/synthetic/compare_pretexts.yaml")
    tac, extract, tsp, again, head = chain_stages(comparison, "tsp", seed=1)
    assert tsp.recipe.encoder.config.weights == str(tac.path)
    assert tsp.recipe.objective.config.global_features == str(extract.path)
    assert again.recipe.encoder.config.weights == str(tsp.path)
    assert head.recipe.data.features == str(again.path)
    assert (Path(tac.recipe.data.videos).parent.name, Path(tsp.recipe.data.videos).parent.name) == (
        "trimmed",
        "untrimmed",
    )
    tac, extract, *_ = comparison.methods["tsp"]
    bsp, _, head = comparison.methods["bsp"]
    two_streams = [tac, extract, bsp, extract, f"{head} data.joined_features=[BSP]"]
    comparison = replace(comparison, methods={"two_streams": two_streams})
    *_, first, bsp, second, joined = chain_stages(comparison, "two_streams", seed=1)
    assert Path(bsp.recipe.data.videos).parent.name == "trimmed"
    assert joined.recipe.data.features == str(first.path)
    assert joined.recipe.data.joined_features == [str(second.path)]


def test_a_chain_of_many_changed_values_has_a_folder_that_file_systems_take():
    names = ["tac_tiny+train.epochs=40", "extract_tiny"]
    assert chain_folder(names) == "tac_tiny+train.epochs=40__extract_tiny"
    long = [f"tac_tiny+{'data.clips_per_segment=1+' * 9}", "extract_tiny"]
    folder, other = chain_folder(long), chain_folder([*long, "tac_tiny+train.epochs=3"])
    assert folder.startswith("tac_tiny__extract_tiny_")
    assert len(folder) < 60
    assert chain_folder([long[0] + "train.epochs=2", long[1]]) != folder != other
