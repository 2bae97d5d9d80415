"""launch/export.py: encoders of runs as other programs load them."""

import json
import sys
import zlib

import pytest
import torch
import torchvision
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_runs import recipe_file

from lofi.encoders.build import build_encoder
from lofi.encoders.choices import ImageConfig, R2plus1dConfig, Resnet3dConfig, TinyConfig, TsmConfig
from lofi.engine.checkpoint import checkpoint_name
from lofi.engine.validation import Validation, write_best

TINY = {"name": "tiny", "channels": [4, 5, 6]}


def random_encoder(name, config):
    """Every tensor another, statistics of norms too."""
    torch.manual_seed(0)
    encoder, _ = build_encoder(name, config)
    for key, value in encoder.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            value.copy_(torch.rand_like(value) + 0.5)
    return encoder.eval()


def make_run(folder, encoder, block, *, steps=(10,), side=20, frames=4):
    """A run directory as training leaves it: the recipe, and checkpoints whose manifests know their weights."""
    recipe = yaml.safe_load(recipe_file("lofi_s_tiny_actionformer").read_text())
    recipe["encoder"] = block
    recipe["fidelity"] |= {"frames": frames, "height": side, "width": side}
    recipe["output"] = str(folder)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for step in steps:
        checkpoint = folder / "checkpoints" / checkpoint_name(step)
        checkpoint.mkdir(parents=True)
        state = {f"encoder.{key}": value + (step == 20) for key, value in encoder.state_dict().items()}
        save_file(state | {"head.scale": torch.ones(3)}, checkpoint / "weights.safetensors")
        content = (checkpoint / "weights.safetensors").read_bytes()
        files = {"weights.safetensors": [len(content), zlib.crc32(content)]}
        (checkpoint / "manifest.json").write_text(json.dumps({"files": files, "world_size": 1}))
    return folder


def random_frames(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


def metadata_of(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["lofi"])


def normalized(frames, metadata):
    mean, std = (torch.tensor(metadata["normalization"][key]).view(1, 3, 1, 1, 1) for key in ("mean", "std"))
    return (frames / 255 - mean) / std


@pytest.fixture(scope="module")
def tiny():
    return random_encoder("tiny", TinyConfig(channels=(4, 5, 6)))


@pytest.mark.parametrize(
    ("name", "config", "network"),
    [("r2plus1d", R2plus1dConfig(), "r2plus1d_18"), ("resnet3d", Resnet3dConfig(network="mc3_18"), "mc3_18")],
)
def test_torchvisions_module_loads_the_export_and_computes_the_same(name, config, network, call, tmp_path):
    encoder = random_encoder(name, config)
    block = {"name": name} | ({"network": network} if name == "resnet3d" else {})
    run = make_run(tmp_path / "run", encoder, block, side=40)
    code, out, err = call("export", run, "--to", tmp_path / "encoder.safetensors")
    assert code == 0, err
    assert f"names of torchvision {network}" in out + err
    plain = torchvision.models.get_model(network).eval()
    plain.fc = torch.nn.Identity()
    plain.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    metadata = metadata_of(tmp_path / "encoder.safetensors")
    assert metadata["fidelity"] == {"num_snippets": 64, "frames": 4, "height": 40, "width": 40}
    assert (metadata["feature_width"], metadata["checkpoint"]) == (512, "step_000010")
    frames = random_frames(2, 3, 4, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(plain(normalized(frames, metadata)), encoder(frames), rtol=1e-4, atol=1e-5)


def test_torchvisions_resnet_loads_an_export_of_a_temporal_shift_network(call, tmp_path):
    encoder = random_encoder("tsm", TsmConfig(temporal_shift_fraction=0.0))
    block = {"name": "tsm", "temporal_shift_fraction": 0.0}
    run = make_run(tmp_path / "run", encoder, block, side=64)
    code, _, err = call("export", run, "--to", tmp_path / "encoder.safetensors")
    assert code == 0, err
    plain = torchvision.models.resnet18().eval()
    plain.fc = torch.nn.Identity()
    plain.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    frames = random_frames(2, 3, 3, 64, 64)
    with torch.no_grad():
        images = (
            normalized(frames, metadata_of(tmp_path / "encoder.safetensors")).transpose(1, 2).flatten(0, 1)
        )
        features = plain(images).unflatten(0, (2, 3)).mean(dim=1)
        torch.testing.assert_close(features, encoder(frames), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "block", "config", "side"),
    [
        ("tiny", TINY, {"channels": (4, 5, 6)}, 20),
        ("tsm", {"name": "tsm"}, {}, 64),
    ],
)
def test_an_export_comes_back_as_initial_weights(name, block, config, side, call, tmp_path):
    from lofi.encoders import ENCODERS

    config_class, _ = ENCODERS[name]
    encoder = random_encoder(name, config_class(**config))
    run = make_run(tmp_path / "run", encoder, block, side=side)
    assert call("export", run, "--to", tmp_path / "encoder.safetensors")[0] == 0
    again, report = build_encoder(name, config_class(weights=str(tmp_path / "encoder.safetensors"), **config))
    for key, value in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert len(report.loaded) == len(encoder.state_dict())


def test_a_program_of_torch_export_computes_the_same_for_any_number_of_snippets(tiny, call, tmp_path):
    run = make_run(tmp_path / "run", tiny, TINY)
    code, out, err = call("export", run, "--to", tmp_path / "encoder.pt2")
    assert code == 0, err
    assert "run and compared" in out + err
    extra = {"lofi.json": ""}
    program = torch.export.load(tmp_path / "encoder.pt2", extra_files=extra)
    assert json.loads(extra["lofi.json"])["names"] == "lofi"
    for num_snippets in (1, 5):
        frames = random_frames(num_snippets, 3, 4, 20, 20)
        torch.testing.assert_close(program.module()(frames), tiny(frames))


def test_a_vision_transformer_is_exported_as_a_program_too(call, tmp_path):
    config = ImageConfig(network="test_vit", temporal="convolution")
    encoder = random_encoder("image", config)
    torch.nn.init.normal_(encoder.adapter.up.weight, std=0.1)
    block = {"name": "image", "network": "test_vit", "temporal": "convolution"}
    run = make_run(tmp_path / "run", encoder, block, side=48, frames=3)
    code, _, err = call("export", run, "--to", tmp_path / "encoder.pt2")
    assert code == 0, err
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for num_snippets in (1, 5):
        frames = random_frames(num_snippets, 3, 3, 48, 48)
        torch.testing.assert_close(program(frames), encoder(frames))


def test_an_onnx_graph_computes_the_same(tiny, call, tmp_path):
    import onnxruntime

    run = make_run(tmp_path / "run", tiny, TINY)
    code, _, err = call("export", run, "--to", tmp_path / "encoder.onnx")
    assert code == 0, err
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    assert json.loads(session.get_modelmeta().custom_metadata_map["lofi"])["encoder"]["name"] == "tiny"
    frames = random_frames(5, 3, 4, 20, 20)
    features = torch.from_numpy(session.run(None, {"frames": frames.numpy()})[0])
    torch.testing.assert_close(features, tiny(frames).detach(), rtol=1e-4, atol=1e-5)


def test_onnx_without_its_packages_says_what_to_install(tiny, call, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", tiny, TINY)
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # cannot be found, nor imported
    code, _, err = call("export", run, "--to", tmp_path / "encoder.onnx")
    assert (code, "needs onnxscript: pip install 'lofi-sola[onnx]'" in err) == (2, True)
    assert not (tmp_path / "encoder.onnx").exists()


def test_the_best_checkpoint_is_exported_where_it_is_asked_for_or_handed_on(tiny, call, tmp_path):
    run = make_run(tmp_path / "run", tiny, TINY, steps=(10, 20))
    best = Validation(epoch=1, step=10, measure="average_mAP", score=0.5, details={}, seconds=1.0)
    checkpoints = {}
    for handed_on in ("newest", "best"):
        write_best(run / "checkpoints", best, weights=handed_on, subset="validation")
        for options in ((), ("--weights", "best"), ("--weights", "newest")):
            assert call("export", run, "--to", tmp_path / "e.safetensors", *options)[0] == 0
            checkpoints[(handed_on, *options[1:])] = metadata_of(tmp_path / "e.safetensors")["checkpoint"]
    assert checkpoints == {
        ("newest",): "step_000020",
        ("newest", "best"): "step_000010",
        ("newest", "newest"): "step_000020",
        ("best",): "step_000010",
        ("best", "best"): "step_000010",
        ("best", "newest"): "step_000020",
    }


def test_what_cannot_be_exported_is_refused_in_one_line(tiny, call, tmp_path):
    run = make_run(tmp_path / "run", tiny, TINY)
    code, _, err = call("export", run, "--to", tmp_path / "encoder.bin")
    assert (code, "ends in none of .safetensors, .pt2, .onnx" in err) == (2, True)
    code, _, err = call("export", tmp_path, "--to", tmp_path / "encoder.pt2")
    assert (code, "is no run directory" in err) == (2, True)
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    (frozen / "recipe.yaml").write_text(recipe_file("frozen_tiny_actionformer").read_text())
    code, _, err = call("export", frozen, "--to", tmp_path / "encoder.pt2")
    assert (code, "trained no encoder" in err) == (2, True)
    assert not (tmp_path / "encoder.pt2").exists()
