"""Weights of our own runs and of every public family, from state dicts with the original names and shapes."""

import json
import re

import public_keys as keys
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from lofi.encoders.build import build_encoder
from lofi.encoders.choices import R2plus1dConfig, TinyConfig, TsmConfig
from lofi.encoders.tiny import Tiny
from lofi.encoders.tsm import Tsm
from lofi.encoders.video_resnet import open_r2plus1d
from lofi.encoders.weights import find_weights, load_encoder_weights
from lofi.encoders.weights.files import read_weights

SMALL = (4, 5, 6)


@pytest.fixture(scope="module")
def resnet_state():
    """torchvision's ResNet-18, every tensor another."""
    torch.manual_seed(0)
    return torchvision.models.resnet18().state_dict()


@pytest.fixture(scope="module")
def video_state():
    torch.manual_seed(1)
    return torchvision.models.video.r2plus1d_18().state_dict()


def as_tsm(state):
    content = keys.as_tsm(state)
    return {"epoch": 50, "arch": "resnet18", "state_dict": content, "best_prec1": torch.tensor(74.1)}


def as_mmaction2(state):
    return {"state_dict": keys.as_mmaction2_tsm(state)}


def as_torchvision(state):
    return dict(state)


@pytest.mark.parametrize(
    ("rename", "family", "head"),
    [
        (as_torchvision, "library", "fc"),
        (as_tsm, "tsm", "new_fc"),
        (as_mmaction2, "mmaction2 tsm", "cls_head.fc_cls"),
    ],
)
def test_public_resnet_weights_end_in_the_same_place(rename, family, head, resnet_state, tmp_path):
    path = tmp_path / "public.pth"
    torch.save(rename(resnet_state), path)
    encoder = Tsm()
    report = load_encoder_weights(encoder, path)
    loaded, expected = encoder.state_dict(), list(resnet_state.items())
    assert len(loaded) == len(expected) - 2 == len(report.loaded)
    for (own, value), (key, wanted) in zip(loaded.items(), expected, strict=False):
        assert torch.equal(value, wanted), (own, key)
    assert report.family == family
    assert list(report.dropped) == [f"{head}.weight", f"{head}.bias"]
    assert report.missing == ()
    assert f"without {head}" in report.summary()


def as_tsp(state):
    renamed = {f"features.{key}": value for key, value in state.items() if not key.startswith("fc.")}
    for head in ("fc1", "fc2"):
        renamed[f"{head}.weight"], renamed[f"{head}.bias"] = torch.zeros(2, 512), torch.zeros(2)
    return {"model": renamed, "epoch": 5}


@pytest.mark.parametrize(("rename", "family"), [(as_torchvision, "library"), (as_tsp, "tsp")])
def test_public_r2plus1d_weights_end_in_the_same_place(rename, family, video_state, tmp_path):
    path = tmp_path / "public.pth"
    torch.save(rename(video_state), path)
    encoder = open_r2plus1d()
    report = load_encoder_weights(encoder, path)
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, video_state[key]), key
    assert report.family == family
    assert all("fc" in key for key in report.dropped)


def test_old_checkpoints_without_counters_are_taken(resnet_state, tmp_path):
    path = tmp_path / "old.pth"
    torch.save({k: v for k, v in resnet_state.items() if "num_batches_tracked" not in k}, path)
    report = load_encoder_weights(Tsm(), path)
    assert len(report.missing) == 20
    assert all(key.endswith("num_batches_tracked") for key in report.missing)


def export(encoder, path, *, prefix="encoder.", **others):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({**{prefix + key: value for key, value in encoder.state_dict().items()}, **others}, path)


def equal_states(one, other):
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("prefix", ["encoder.", ""])
def test_our_own_exports_come_back(prefix, tmp_path):
    source, target = Tiny(channels=SMALL), Tiny(channels=SMALL)
    export(source, tmp_path / "w.safetensors", prefix=prefix)
    assert not equal_states(source, target)
    report = load_encoder_weights(target, tmp_path / "w.safetensors")
    assert equal_states(source, target)
    assert report.family == ("lofi" if prefix else "plain")


def test_an_export_of_a_detector_gives_its_encoder_alone(tmp_path):
    source, target = Tiny(channels=SMALL), Tiny(channels=SMALL)
    export(source, tmp_path / "w.safetensors", **{"head.scale": torch.ones(3)})
    report = load_encoder_weights(target, tmp_path / "w.safetensors")
    assert equal_states(source, target)
    assert list(report.dropped) == ["head.scale"]
    assert "without head" in report.summary()


def test_an_export_of_frozen_norms_comes_back(tmp_path):
    source, _ = build_encoder("tsm", TsmConfig())
    export(source, tmp_path / "w.safetensors")
    config = TsmConfig(weights=str(tmp_path / "w.safetensors"), norm="affine")
    target, report = build_encoder("tsm", config)
    assert equal_states(source, target)
    assert report is not None


def test_a_run_of_the_former_wrapped_resnet_is_still_taken(tmp_path):
    source, target = Tsm(), Tsm()
    renamed = {}
    for key, value in source.state_dict().items():
        key = re.sub(r"^stem\.", "stem.block.", key)
        key = re.sub(r"^(layer\d\.\d+)\.", r"\1.block.", key)
        renamed["encoder." + re.sub(r"(layer.*)\.conv1\.", r"\1.conv1.net.", key)] = value
    save_file(renamed, tmp_path / "w.safetensors")
    load_encoder_weights(target, tmp_path / "w.safetensors")
    assert equal_states(source, target)


def test_a_run_directory_gives_its_newest_checkpoint(tmp_path):
    encoders = {step: Tiny(channels=SMALL) for step in (90, 1000, 200)}
    for step, encoder in encoders.items():
        export(encoder, tmp_path / f"run/checkpoints/step_{step:06d}/weights.safetensors")
    (tmp_path / "run/checkpoints/step_002000").mkdir()
    (tmp_path / "run/checkpoints/.step_003000.partial").mkdir()
    target = Tiny(channels=SMALL)
    report = load_encoder_weights(target, tmp_path / "run")
    assert report.source.endswith("step_001000/weights.safetensors")
    assert equal_states(encoders[1000], target)
    load_encoder_weights(target, tmp_path / "run/checkpoints/step_000200")
    assert equal_states(encoders[200], target)


@pytest.mark.parametrize(("weights", "step"), [("best", 200), ("newest", 1000)])
def test_a_run_directory_gives_its_best_checkpoint_where_its_recipe_says_so(weights, step, tmp_path):
    for number in (90, 200, 1000):
        export(Tiny(channels=SMALL), tmp_path / f"run/checkpoints/step_{number:06d}/weights.safetensors")
    best = tmp_path / "run/checkpoints/best.json"
    best.write_text(json.dumps({"checkpoint": "step_000200", "weights": weights}))
    assert find_weights(tmp_path / "run") == best.with_name(f"step_{step:06d}") / "weights.safetensors"


def test_a_best_checkpoint_that_is_gone_or_cannot_be_read_is_an_error(tmp_path):
    export(Tiny(channels=SMALL), tmp_path / "run/checkpoints/step_000090/weights.safetensors")
    best = tmp_path / "run/checkpoints/best.json"
    best.write_text(json.dumps({"checkpoint": "step_000200", "weights": "best"}))
    with pytest.raises(ValueError, match=r"best\.json names step_000200, which has no weights\.safetensors"):
        find_weights(tmp_path / "run")
    best.write_text("{}")
    with pytest.raises(ValueError, match=r"best\.json cannot be read"):
        find_weights(tmp_path / "run")


def test_weights_beside_the_checkpoints_come_first(tmp_path):
    export(Tiny(channels=SMALL), tmp_path / "run/weights.safetensors")
    assert find_weights(tmp_path / "run") == tmp_path / "run/weights.safetensors"


def test_weights_are_not_loaded_where_a_checkpoint_follows(tmp_path):
    config = TinyConfig(channels=SMALL, weights=str(tmp_path / "gone.safetensors"))
    _, report = build_encoder("tiny", config, with_weights=False)
    assert report is None
    with pytest.raises(ValueError, match="encoder.weights: .*gone.safetensors does not exist"):
        build_encoder("tiny", config)


def test_weights_of_another_depth_are_refused_and_listed(resnet_state, tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(resnet_state, path)
    encoder = Tsm(network="resnet34")
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"encoder.weights: .*resnet18.pth .* not in the file: layer1.2.* and \d+ more"
    ):
        load_encoder_weights(encoder, path)
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


def test_weights_of_another_shape_are_refused_with_both_shapes(tmp_path):
    export(Tiny(channels=(4, 5, 7)), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"of another shape: .*is \(7,\), wanted \(6,\)"):
        load_encoder_weights(Tiny(channels=SMALL), tmp_path / "w.safetensors")


def test_an_unexpected_tensor_is_refused_by_name(resnet_state, tmp_path):
    path = tmp_path / "more.pth"
    torch.save({**resnet_state, "layer1.0.nonlocal.weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"not in the encoder: layer1.0.nonlocal.weight\."):
        load_encoder_weights(Tsm(), path)


def test_a_file_cut_off_is_refused_by_name(resnet_state, tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save(resnet_state, whole)
    export(Tiny(channels=SMALL), tmp_path / "whole.safetensors")
    for suffix in ("pth", "safetensors"):
        data = (tmp_path / f"whole.{suffix}").read_bytes()
        for size in (0, 10, len(data) // 2):
            cut = tmp_path / f"cut.{suffix}"
            cut.write_bytes(data[:size])
            what = "is empty" if size == 0 else "cannot be read .*damaged or cut off"
            with pytest.raises(ValueError, match=rf"encoder.weights: .*cut.{suffix} {what}"):
                load_encoder_weights(Tiny(channels=SMALL), cut)


def test_a_checkpoint_that_needs_code_is_refused_with_what_to_do(tmp_path):
    torch.save({"state_dict": {}, "model": nn.Linear(2, 3)}, tmp_path / "whole_module.pth")
    with pytest.raises(
        ValueError, match=r"whole_module.pth holds more than tensors.*save its state dict alone"
    ):
        load_encoder_weights(Tiny(channels=SMALL), tmp_path / "whole_module.pth")


def test_a_checkpoint_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    with pytest.raises(ValueError, match=r"numbers.pth holds no state dict"):
        load_encoder_weights(Tiny(channels=SMALL), tmp_path / "numbers.pth")


def test_a_directory_without_weights_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"encoder.weights: the directory .* has no weights.safetensors"):
        load_encoder_weights(Tiny(channels=SMALL), tmp_path)


def test_unknown_names_of_torchvision_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no weights 'BEST' of resnet18; it has IMAGENET1K_V1"):
        load_encoder_weights(Tsm(), "torchvision:BEST")
    with pytest.raises(ValueError, match="torchvision:DEFAULT does not say of which network"):
        load_encoder_weights(Tiny(channels=SMALL), "torchvision:DEFAULT")


def test_torchvision_names_are_downloaded_by_torchvision(monkeypatch, resnet_state):
    asked = []

    def fake_state_dict(self, *args, **kwargs):
        asked.append(self.name)
        return resnet_state

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", fake_state_dict)
    report = load_encoder_weights(Tsm(), "torchvision:IMAGENET1K_V1")
    assert asked == ["IMAGENET1K_V1"]
    assert report.source == "torchvision:IMAGENET1K_V1"


def test_a_failed_download_says_so(monkeypatch):
    def no_network(self, *args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models.video.R2Plus1D_18_Weights, "get_state_dict", no_network)
    with pytest.raises(
        ValueError, match="could not download KINETICS400_V1 of r2plus1d_18 .no route to host."
    ):
        build_encoder("r2plus1d", R2plus1dConfig(weights="torchvision:KINETICS400_V1"))


def test_a_header_whose_length_begins_as_a_pickle_does_is_safetensors_all_the_same(tmp_path):
    path = tmp_path / "weights.safetensors"
    state = {"a": torch.arange(3.0)}
    for padding in range(64):
        save_file(state, path, metadata={"note": " " * 8 * padding})
        if path.read_bytes().startswith(b"\x80"):
            break
    else:
        raise AssertionError("no header of such a length")
    tensors, _ = read_weights(path)
    assert torch.equal(tensors["a"], state["a"])
