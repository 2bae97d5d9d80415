"""Probes of features: what can be told linearly is told, what cannot is at chance; time is seen where features change."""

import json

import numpy as np
import pytest
import torch
from tiny_runs import recipe_file

from lofi.config.load import load_extraction_recipe
from lofi.data.annotations import write_annotations
from lofi.data.feature_store import FeatureManifest, create_feature_directory, write_feature
from lofi.probes.linear_probe import probe_linearly
from lofi.probes.temporal_sensitivity import temporal_sensitivity
from lofi.stages import probe
from lofi.stages.chains import Stage
from lofi.stages.probe import PROBE_NAME, ProbeOptions, probe_chain, run_probe

ROWS, CLASSES = 10, ("jump", "run", "throw")


def made_features(folder, *, sees):
    """20 + 20 videos of 10 s, an action from 2 to 6; features are noise, and what the encoder `sees`."""
    rng = np.random.default_rng(0)
    manifest = FeatureManifest(
        fidelity={"num_snippets": ROWS, "frames": 1, "height": 1, "width": 1},
        grid={"mode": "rescale"},
        feature_width=6,
    )
    directory = create_feature_directory(folder / "features", manifest)
    database = {}
    for index in range(40):
        label = index % len(CLASSES)
        rows = rng.normal(size=(ROWS, 6)) * 0.1
        if "class" in sees:
            rows[:, label] += 1.0
        if "region" in sees:
            rows[2:6, 3] += 1.0
        write_feature(directory, f"v{index}", rows)
        database[f"v{index}"] = {
            "subset": "training" if index < 20 else "validation",
            "duration": 10.0,
            "annotations": [{"segment": [2.0, 6.0], "label": CLASSES[label]}],
        }
    write_annotations(folder / "annotations.json", database, classes=CLASSES)
    return directory.path, folder / "annotations.json"


@pytest.mark.parametrize("sees", [("class",), ("region",), ("class", "region")])
def test_a_probe_finds_what_the_features_hold_and_nothing_else(sees, tmp_path, capsys):
    features, annotations = made_features(tmp_path, sees=sees)
    output = tmp_path / "probe.json"
    run_probe([str(features)], annotations=str(annotations), options=ProbeOptions(), output=str(output))
    (row,) = json.loads(output.read_text())
    assert row["class"]["chance"] == pytest.approx(1 / 3)
    assert (row["class"]["num_training"], row["region"]["num_training"]) == (20 * 4, 20 * ROWS)
    if "class" in sees:
        assert row["class"]["balanced_accuracy"] == 1.0
    else:
        assert row["class"]["balanced_accuracy"] < 0.5
    if "region" in sees:
        assert row["region"]["balanced_accuracy"] == 1.0
    else:
        assert row["region"]["balanced_accuracy"] < 0.6
    assert "action / background" in capsys.readouterr().out


def chain_over(features, annotations):
    """Of the one extraction that made the features."""
    recipe = load_extraction_recipe(recipe_file("extract_tiny"), [f"data.annotations={annotations}"])
    return [Stage(name="extract_tiny", recipe=recipe, path=features)]


def test_a_kept_probe_that_cannot_be_read_is_made_anew(tmp_path):
    chain = chain_over(*made_features(tmp_path, sees=("class",)))
    first = probe_chain(chain, seed=0)
    kept = chain[0].path / PROBE_NAME
    for damaged in ("{", "[]", "{}"):
        kept.write_text(damaged)
        assert probe_chain(chain, seed=0) == first
    assert json.loads(kept.read_text())["probe"] == first["probe"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory"), KeyError("label")])
def test_a_probe_that_fails_is_a_note_of_its_row(error, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(probe, "probe_features", fail)
    found = probe_chain(chain_over(*made_features(tmp_path, sees=("class",))), seed=0)
    assert found["probe"] is None
    assert ("KeyError('label')" if isinstance(error, KeyError) else "of memory") in found["probe_error"]


def test_a_draw_of_snippets_is_probed_where_there_are_more(tmp_path):
    features, annotations = made_features(tmp_path, sees=("region",))
    options = ProbeOptions(max_snippets=50)
    (row,) = run_probe([str(features)], annotations=str(annotations), options=options)
    assert row["region"]["num_training"] == row["region"]["num_validation"] == 50
    assert row["region"]["balanced_accuracy"] > 0.95


def test_snippets_of_one_class_are_refused():
    features = torch.randn(8, 3)
    with pytest.raises(ValueError, match="all training snippets are of one class"):
        probe_linearly(
            features, torch.zeros(8, dtype=torch.int64), features, torch.ones(8, dtype=torch.int64)
        )
    with pytest.raises(ValueError, match="0 training and 8 validation snippets"):
        probe_linearly(features[:0], torch.zeros(0, dtype=torch.int64), features, torch.ones(8))


def test_constant_features_are_blind_to_time_and_turning_ones_are_not():
    constant = temporal_sensitivity([np.ones((8, 3)), np.ones((2, 3))])
    assert (constant.adjacent, constant.distant) == pytest.approx((1.0, 1.0))
    assert constant.num_videos == 1
    angles = np.linspace(0, np.pi, 9)
    turning = temporal_sensitivity([np.stack([np.cos(angles), np.sin(angles)], axis=1)])
    assert turning.adjacent == pytest.approx(np.cos(np.pi / 8))
    assert turning.distant == pytest.approx(0.0, abs=1e-9)
    assert turning.difference == pytest.approx(turning.adjacent)
    with pytest.raises(ValueError, match="no video has 4 rows"):
        temporal_sensitivity([np.ones((3, 2))])
