"""Sources of weights by name, what is read of a checkpoint, and `python -m lofi.encoders.weights`."""

import argparse
import pickle
import re
import shlex
import sys
import tarfile

import numpy as np
import public_keys as keys
import pytest
import torch
import torchvision
import yaml
from safetensors.torch import save_file
from tiny_runs import recipe_file
from torch import nn

from lofi.config.load import load_recipe
from lofi.encoders.build import build_encoder
from lofi.encoders.choices import TinyConfig, TsmConfig
from lofi.encoders.tiny import Tiny
from lofi.encoders.weights.__main__ import main
from lofi.encoders.weights.loading import load_encoder_weights
from lofi.encoders.weights.sources import read_source

SMALL = (4, 5, 6)


@pytest.fixture
def command(monkeypatch, capsys):
    """A function: arguments -> (exit code, stdout, stderr) of the command in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["weights", *map(str, arguments)])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function: repository, file, tensors -> the hub's cache holds them. Nothing is looked for outside it."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def put(repository, file, state):
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        commit = "0" * 40
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
        if file.endswith(".safetensors"):
            save_file(state, snapshot / file)
        else:
            torch.save(state, snapshot / file)

    return put


BASE = {"width": 768, "depth": 12}
LARGE = {"width": 1024, "depth": 24}
TSP_HEADS = keys.layer("fc1", 200, 512) | keys.layer("fc2", 2, 1024)
TINY = {key: tuple(tensor.shape) for key, tensor in Tiny().state_dict().items()}

SOURCES = {
    "torchvision's ResNet": (lambda: keys.library("resnet18"), "library", "tsm"),
    "torchvision's R(2+1)D": (lambda: keys.library("r2plus1d_18"), "library", "r2plus1d"),
    "torchvision's R3D": (lambda: keys.library("r3d_18"), "library", "resnet3d"),
    "torchvision's MC3": (lambda: keys.library("mc3_18"), "library", "resnet3d network=mc3_18"),
    "torchvision's S3D": (lambda: keys.library("s3d"), "library", "s3d"),
    "torchvision's Swin": (lambda: keys.library("swin3d_s"), "library", "swin3d size=small"),
    "torchvision's MViT": (lambda: keys.library("mvit_v2_s"), "library", "mvit"),
    "timm's ResNet": (
        lambda: keys.library("resnet26d", of="timm"),
        "library",
        "tsm library=timm network=resnet26d",
    ),
    "timm's ViT": (
        lambda: keys.library("vit_tiny_patch16_224", of="timm"),
        "library",
        "image network=vit_tiny_patch16_224",
    ),
    "TSP's R(2+1)D-34": (
        lambda: keys.tsp_r2plus1d(blocks=(3, 4, 6, 3), own_middle=True, heads=[TSP_HEADS]),
        "tsp",
        "r2plus1d depth=34",
    ),
    "TAC's R(2+1)D-18": (
        lambda: keys.tsp_r2plus1d(blocks=(2, 2, 2, 2), own_middle=False, heads=[keys.layer("fc", 200, 512)]),
        "tsp",
        "r2plus1d",
    ),
    "TSP's R3D-18": (
        lambda: (
            keys.prefixed(
                "features.", {key: shape for key, shape in keys.library("r3d_18").items() if "fc." not in key}
            )
            | TSP_HEADS
        ),
        "tsp",
        "resnet3d",
    ),
    "TSM's repository": (lambda: keys.as_tsm(keys.library("resnet50")), "tsm", "tsm network=resnet50"),
    "MMAction2's TSM": (
        lambda: keys.as_mmaction2_tsm(keys.library("resnet50")),
        "mmaction2 tsm",
        "tsm network=resnet50",
    ),
    "MMAction2's R(2+1)D": (
        keys.mmaction2_r2plus1d,
        "mmaction2 r2plus1d",
        "r2plus1d depth=34 layout=mmaction2",
    ),
    "MMAction2's Swin": (
        lambda: keys.mmaction2_swin(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24)),
        "mmaction2 swin",
        "swin3d",
    ),
    "MMAction2's VideoMAE": (lambda: keys.mmaction2_videomae(**BASE), "mmaction2 videomae", "videomae"),
    "Video Swin's repository": (
        lambda: keys.mmaction2_swin(width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), last_norm="norm"),
        "mmaction2 swin",
        "swin3d size=base",
    ),
    "VideoMAE base, fine-tuned": (lambda: keys.videomae_finetuned(**BASE), "videomae", "videomae"),
    "VideoMAE base, pre-trained": (lambda: keys.videomae_pretrained(**BASE), "videomae", "videomae"),
    "VideoMAE small, Something": (
        lambda: keys.videomae_finetuned(width=384, depth=12, classes=174),
        "videomae",
        "videomae size=small",
    ),
    "VideoMAE V2 giant": (
        lambda: keys.prefixed(
            "module.", keys.videomae_finetuned(width=1408, depth=40, patch=14, hidden=6144)
        ),
        "videomae",
        "videomae size=giant",
    ),
    "VideoMAE V2 on the hub": (
        lambda: keys.prefixed("model.", keys.videomae_encoder(**LARGE) | keys.norm("fc_norm", 1024)),
        "videomae",
        "videomae size=large",
    ),
    "Hugging Face's VideoMAE": (
        lambda: keys.hugging_face_videomae(**LARGE),
        "hugging face videomae",
        "videomae size=large",
    ),
    "a run": (lambda: keys.prefixed("encoder.", TINY) | {"head.scale": (3,)}, "lofi", "tiny"),
    "an export under our own names": (lambda: TINY, "plain", "tiny"),
}
"""The README's table: keys and shapes, the family, and the encoder that takes the file."""


@pytest.mark.parametrize("name", SOURCES)
def test_the_command_names_every_listed_source_and_the_encoder_that_takes_it(name, command, tmp_path):
    shapes, family, encoder = SOURCES[name]
    file = tmp_path / "public.pth"
    torch.save({"state_dict": keys.unfilled(shapes())}, file)  # names and shapes, no values
    code, out, err = command(file)
    assert code == 0, out + err
    assert f"family    {family}: " in out
    assert re.findall(r"^fits      (.*): \d+ of \d+ tensors$", out, re.M)[0] == encoder
    options = [f"encoder.{option}" for option in encoder.split(" ")[1:]]
    assert " ".join([f"encoder.name={encoder.split(' ')[0]}", *options, f"encoder.weights={file}"]) in out


def test_the_hubs_safetensors_come_before_its_pickles(hub):
    one, other = ({"weight": torch.full((2,), value)} for value in (1.0, 2.0))
    hub("owner/both", "model.safetensors", one)
    hub("owner/both", "pytorch_model.bin", other)
    hub("owner/pickle", "pytorch_model.bin", other)
    assert torch.equal(read_source("hf:owner/both").state["weight"], one["weight"])
    assert torch.equal(read_source("hf:owner/both/pytorch_model.bin").state["weight"], other["weight"])
    assert read_source("hf:owner/pickle").where == "hf:owner/pickle (pytorch_model.bin)"
    with pytest.raises(ValueError, match=r"encoder.weights: Hugging Face's hub gave no owner/none"):
        read_source("hf:owner/none")
    with pytest.raises(ValueError, match=r"hf:owner must be hf:OWNER/REPOSITORY"):
        read_source("hf:owner")


def test_the_command_reads_the_hub_too(hub, command):
    hub("owner/videomae", "model.safetensors", keys.filled(keys.hugging_face_videomae(width=384, depth=12)))
    code, out, _ = command("hf:owner/videomae")
    assert code == 0
    assert "family    hugging face videomae" in out
    assert "encoder.name=videomae encoder.size=small encoder.weights=hf:owner/videomae" in out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet19", "timm has no model 'resnet19'; near it: resnet18, "),
        ("timm:nope", r"timm has no model 'nope'; timm.list_models\(\) lists its models"),
        ("timm:vit_base_patch16_clip_224.openia", "no weights 'openia' of .*; it has .*openai,"),
        (
            "torchvision:ResNet18_Weights.BEST",
            r"no weights 'ResNet18_Weights.BEST'; near it: ResNet18_Weights.DEFAULT",
        ),
        (
            "torchvision:NOPE",
            "torchvision:NOPE does not say of which network, .*such as .*R2Plus1D_18_Weights",
        ),
        ("torchvision:resnet18", "does not say of which network, .*near it: ResNet18_Weights.DEFAULT"),
    ],
)
def test_a_name_that_timm_or_torchvision_does_not_know_is_refused_with_those_near_it(name, message):
    with pytest.raises(ValueError, match=message):
        read_source(name)


def truncated_zip(path):
    torch.save({"weight": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def save_torchscript(path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 3), torch.ones(1, 2)), path)


def save_arrays(path):
    with path.open("wb") as file:
        np.savez(file, weight=np.ones(3))


def save_tar(path):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))


class Unknown:
    """No tensor and no plain value."""


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 132866509\n"
NO_WEIGHTS = {
    "text": (b"hello, not weights", r"is no weights file; .* begins as neither does \(b'hello, not weigh'\)"),
    "empty": (b"", "is empty; was its download cut off"),
    "truncated zip": (truncated_zip, "cannot be read .*; it is damaged or cut off"),
    "damaged pickle": (b"\x80\x02h\x05.", "cannot be read .*; it is damaged or cut off"),
    "web page": (b"\n<!DOCTYPE html>\n<html><head>", "is no weights file but a web page"),
    "git-lfs pointer": (LFS, "is no weights file but a git-lfs pointer .* `git lfs pull`"),
    "gzip": (b"\x1f\x8b\x08" + bytes(20), "is no weights file but an archive: unpack it"),
    "TorchScript": (save_torchscript, r"is no weights file but a TorchScript program: .*state_dict\(\), NEW"),
    "npz": (save_arrays, "is no weights file but a zip archive that torch.save did not write: .* .npz"),
    "protocol 4": (
        lambda path: torch.save({"weight": torch.ones(2)}, path, pickle_protocol=4),
        "is no weights file but a pickle of protocol 4, .* save its state dict again",
    ),
    "plain pickle": (
        lambda path: path.write_bytes(pickle.dumps({"weight": [1.0]}, protocol=4)),
        "is no weights file but a pickle of protocol 4, .* save its state dict again",
    ),
    "plain pickle of protocol 2": (
        lambda path: path.write_bytes(pickle.dumps({"weight": [1.0]}, protocol=2)),
        "is no weights file but a pickle that torch.save did not write",
    ),
    "old tar": (save_tar, "is no weights file but a checkpoint in the tar format of PyTorch's first"),
    "unsafe": (
        lambda path: torch.save({"model": Unknown()}, path),
        r"holds more than tensors and plain values \(test_weights_command.Unknown\), .*If you trust it",
    ),
}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_a_file_that_holds_no_weights_is_named_for_what_it_is(kind, suffix, command, tmp_path):
    content, message = NO_WEIGHTS[kind]
    file = tmp_path / f"file.{suffix}"
    if callable(content):
        content(file)
    else:
        file.write_bytes(content)
    code, _, err = command(file)
    assert code == 2
    assert re.search(f"^error: encoder.weights: .*file.{suffix} {message}", err), err
    assert ("weights_only=False" in err) == (kind in ("unsafe", "old tar"))


def test_a_safetensors_file_of_another_name_is_read(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "file.bin")
    assert torch.equal(read_source(tmp_path / "file.bin").state["weight"], torch.ones(2))


def test_a_name_of_torchvision_can_say_its_network(monkeypatch):
    state = torchvision.models.video.r2plus1d_18().state_dict()

    def give(self, **options):
        assert options["weights_only"] is True
        return state

    monkeypatch.setattr(torchvision.models.video.R2Plus1D_18_Weights, "get_state_dict", give)
    source = read_source("torchvision:R2Plus1D_18_Weights.KINETICS400_V1")
    assert source.state.keys() == state.keys()


def test_a_command_line_beside_the_weights_is_read_over(tmp_path):
    source, target = Tiny(channels=SMALL), Tiny(channels=SMALL)
    arguments = argparse.Namespace(model="vit", lr=1e-3, nested=argparse.Namespace(epochs=[1, 2]))
    torch.save({"model": source.state_dict(), "args": arguments, "epoch": 3}, tmp_path / "with_args.pth")
    load_encoder_weights(target, tmp_path / "with_args.pth")
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)


def test_exceptions_without_weights_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"encoder.allow_unmatched is \['head'\], which has no effect without"
    ):
        build_encoder("tiny", TinyConfig(allow_unmatched=("head",)))
    state = Tiny(channels=SMALL).state_dict() | {"extra.weight": torch.ones(2)}
    torch.save(state, tmp_path / "extra.pth")
    config = TinyConfig(channels=SMALL, weights=str(tmp_path / "extra.pth"), allow_unmatched=("extra.*",))
    _, report = build_encoder("tiny", config)
    assert list(report.dropped) == ["extra.weight"]


def test_the_command_says_what_fits_and_gives_the_lines_to_paste(command, tmp_path):
    shapes = keys.tsp_r2plus1d(
        blocks=(3, 4, 6, 3), own_middle=True, heads=[keys.layer("fc1", 200, 512), keys.layer("fc2", 2, 1024)]
    )
    torch.save({"model": keys.unfilled(shapes)}, tmp_path / "tsp.pth")
    code, out, _ = command(tmp_path / "tsp.pth")
    assert code == 0
    assert "family    tsp: " in out
    assert "fits      r2plus1d depth=34: " in out
    assert "dropped   4 tensors (fc1, fc2): the old task's head" in out
    assert f"encoder.name=r2plus1d encoder.depth=34 encoder.weights={tmp_path / 'tsp.pth'}" in out
    code, out, _ = command(tmp_path / "tsp.pth", "--encoder", "r2plus1d", "depth=18")
    assert code == 1
    assert "amiss     not in the encoder: features.layer1.2.conv1.0.0.weight, " in out


def test_the_command_allows_and_refuses_as_a_recipe_does(command, tmp_path):
    state = Tiny(channels=SMALL).state_dict() | {"extra.weight": torch.ones(2)}
    torch.save(state, tmp_path / "extra.pth")
    options = ("--encoder", "tiny", "channels=[4,5,6]")
    assert command(tmp_path / "extra.pth", *options)[0] == 1
    assert command(tmp_path / "extra.pth", *options, "allow_unmatched=[extra.*]")[0] == 0
    code, _, err = command(tmp_path / "extra.pth", *options, "size=3")
    assert (code, "encoder tiny has no size" in err) == (2, True)
    code, _, err = command(tmp_path / "extra.pth", *options, "dropout=much")
    assert (code, "encoder tiny: '<=' not supported" in err) == (2, True)
    code, _, err = command(tmp_path / "gone.pth")
    assert (code, "gone.pth does not exist" in err) == (2, True)


def test_the_lines_to_paste_are_taken_by_a_recipe_and_by_a_shell(command, tmp_path):
    file = tmp_path / "of a friend" / "part.pth"
    file.parent.mkdir()
    shapes = keys.library("resnet18")
    torch.save(
        keys.unfilled({key: shapes[key] for key in shapes if "layer4.1" not in key} | {"weird": (2,)}), file
    )
    code, out, _ = command(file, "--encoder", "tsm", "allow_unmatched=[layer4.1*,*weird*]")
    assert code == 0
    wanted = TsmConfig(weights=str(file), allow_unmatched=("layer4.1*", "*weird*"))
    plain = yaml.safe_load(recipe_file("lofi_s_tiny_actionformer").read_text())
    plain["encoder"], plain["fidelity"] = {}, plain["fidelity"] | {"height": 64, "width": 64}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain))
    overrides = shlex.split(re.search(r"^or        (.*)$", out, re.M)[1])
    assert load_recipe(tmp_path / "recipe.yaml", overrides).encoder.config == wanted
    block = yaml.safe_load(out[out.index("recipe    ") :].removeprefix("recipe    ").split("\nor ")[0])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain | block))
    assert load_recipe(tmp_path / "recipe.yaml").encoder.config == wanted


def test_the_networks_of_a_file_that_several_libraries_have_are_all_listed(command, tmp_path):
    torch.save(keys.unfilled(keys.library("resnet18", of="timm")), tmp_path / "resnet18.pth")
    out = command(tmp_path / "resnet18.pth")[1]
    for each in ("tsm", "tsm library=timm", "image network=resnet18"):
        assert f"\nfits      {each}: 120 of 120 tensors\n" in out


def test_of_a_network_that_its_keys_do_not_tell_the_command_says_how_to_name_it_and_little_else(
    command, tmp_path
):
    torch.save(keys.unfilled(keys.library("vgg11")), tmp_path / "vgg.pth")
    code, out, _ = command(tmp_path / "vgg.pth")
    assert code == 1
    assert (
        "fits      no encoder; none has a place for any tensor\nnetwork   its keys do not tell it; if it is one of timm's"
        in out
    )
    assert "amiss" not in out


def test_of_a_resnet_with_a_tensor_missing_the_command_does_not_say_that_its_keys_tell_nothing(
    command, tmp_path
):
    shapes = keys.library("resnet18")
    del shapes["layer1.0.conv2.weight"]
    torch.save(keys.unfilled(shapes), tmp_path / "resnet.pth")
    code, out, _ = command(tmp_path / "resnet.pth")
    assert (code, "its keys do not tell it" in out) == (1, False)
    assert "nearest is tsm" in out


def test_the_command_has_help_with_examples(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        command("--help")
    assert "python -m lofi.encoders.weights hf:" in capsys.readouterr().out
