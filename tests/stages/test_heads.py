"""Every head in the trainer: on features, end to end at three fidelities, validated while it trains, and planned."""

import json
import re

import pytest
import torch
import yaml
from tiny_runs import SYNTHETIC, TINY_HEADS, read_steps, recipe_file, tiny_overrides

from lofi.config.load import load_recipe
from lofi.heads import HEADS
from lofi.stages.build import build_objective
from lofi.stages.plan import PlanOptions, predict_peak
from lofi.stages.train import run_training

NEW = [name for name in HEADS if name != "actionformer"]
NOT_MEASURED = "# Memory and mAP: not measured."
END_TO_END = "lofi_short_cyclic_tiny_actionformer"


def test_every_head_has_a_recipe_on_features():
    assert {path.stem for path in SYNTHETIC.glob("frozen_tiny_*.yaml")} == {
        f"frozen_tiny_{name}" for name in HEADS
    }
    assert set(TINY_HEADS) == set(HEADS)


def test_the_published_form_that_a_header_states_loads_and_builds():
    file = SYNTHETIC.parent / "activitynet13" / "frozen_actionformer.yaml"
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    overrides = re.findall(r"[a-z_.]+=\S+", " ".join(header[header.index(NOT_MEASURED) + 1 :]))
    recipe = load_recipe(file, overrides)
    assert (recipe.grid.mode, recipe.train.ema_decay) == ("sliding", 0.999)
    assert recipe.head.config.needs_video_scores
    with torch.device("meta"):
        build_objective(recipe, classes=("a", "b"), feature_width=512)


def end_to_end(head, benchmark, folder, **changes):
    """LoFi, short cycle, with another head: the recipe of this head on features says its options."""
    plain = yaml.safe_load(recipe_file(END_TO_END).read_text())
    plain["head"] = yaml.safe_load(recipe_file(f"frozen_tiny_{head}").read_text())["head"]
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(plain))
    options = {f"head__{key}": value for key, value in TINY_HEADS[head].items()}
    left_out = {f"head.{key}" for key in TINY_HEADS["actionformer"]}
    overrides = tiny_overrides(END_TO_END, benchmark, folder / "run", **changes)
    overrides = [each for each in overrides if each.partition("=")[0] not in left_out]
    overrides += [f"{key.replace('__', '.')}={value}" for key, value in options.items()]
    return load_recipe(file, overrides)


@pytest.mark.parametrize("head", NEW)
def test_a_head_trains_on_features_and_is_evaluated(head, trained, extracted):
    run = trained(f"frozen_tiny_{head}", data__features=extracted)
    steps = read_steps(run)
    assert len(steps) == 6
    assert all(torch.isfinite(torch.tensor([step["loss"], step["gradient_norm"]])).all() for step in steps)
    assert 0 <= json.loads((run / "results.json").read_text())["average_mAP"] <= 1


def test_lofi_s_own_head_trains_with_the_encoder_through_the_long_cycle(trained):
    steps = read_steps(trained("lofi_cyclic_tiny_gtad"))
    assert [step["fidelity"] for step in steps] == ["8x4x10x10"] * 3 + ["2x4x20x20"] * 3 + ["4x4x14x14"] * 3
    assert {"boundaries", "regression", "classification", "labels", "lr_encoder"} <= set(steps[0])


@pytest.mark.parametrize("head", ["bmn", "tridet"])
def test_a_head_trains_end_to_end_at_every_fidelity_and_is_validated(head, benchmark, tmp_path):
    run = run_training(end_to_end(head, benchmark, tmp_path, evaluation__every_epochs=1))
    assert {step["fidelity"] for step in read_steps(run.path)} == {"8x4x10x10", "2x4x20x20", "4x4x14x14"}
    assert len(run.validation.read_text().splitlines()) == 2


@pytest.mark.parametrize("head", NEW)
def test_the_predicted_peak_is_the_counted_one_to_the_byte(head, benchmark, tmp_path):
    from lofi.stages.profile_steps import ProfileOptions, measure_recipe

    one_fidelity = {"reduction": "space", "cycle": "long", "cycle_every": None}
    changes = {f"fidelity__{key}": value for key, value in one_fidelity.items()}
    recipe = end_to_end(head, benchmark, tmp_path, evaluation=None, **changes)
    options = ProfileOptions(steps=1, warm_up=1, synthetic_input=True)
    measured = measure_recipe(recipe, options=options)
    predicted = predict_peak(recipe, options=PlanOptions(device="cpu", assumed=options.assumed))
    assert predicted.peak_bytes == measured["counted_peak_bytes"]
    assert predicted.worst.bytes == measured["bytes"]


@pytest.mark.parametrize("head", ["gtad", "bmn"])
def test_proposals_that_nobody_names_are_refused_before_training(head, benchmark, tmp_path):
    with pytest.raises(ValueError, match=rf"^.*postprocess\.video_scores is missing; head\.name: {head}"):
        end_to_end(head, benchmark, tmp_path, head__labels="external")


def test_a_class_agnostic_head_takes_its_classes_from_video_scores(benchmark, tmp_path, trained, extracted):
    from lofi.data.annotations import read_annotations

    annotations = read_annotations(str(benchmark.annotations))
    scores = tmp_path / "scores.json"
    rows = {name: [0.9, 0.1] for name in annotations.videos}
    scores.write_text(json.dumps({"class": list(annotations.classes), "results": rows}))
    changes = {"data__features": extracted, "head__class_agnostic": True, "postprocess__min_score": 0.0}
    run = trained(
        "frozen_tiny_actionformer",
        **changes,
        postprocess__video_scores=scores,
        postprocess__video_scores_top_k=1,
    )
    found = json.loads((run / "predictions.json").read_text())["results"]
    assert {row["label"] for rows in found.values() for row in rows} == {annotations.classes[0]}
    overrides = tiny_overrides("frozen_tiny_actionformer", benchmark, tmp_path / "other", **changes)
    with pytest.raises(ValueError, match=r"head\.name: actionformer finds proposals without a class"):
        load_recipe(recipe_file("frozen_tiny_actionformer"), overrides)
