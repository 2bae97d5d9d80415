"""Public sources' tensors, brought to our names, compute what the original computes. (Which file is of which source:
test_weights_command.py.)"""

import re

import public_keys as keys
import pytest
import timm
import torch
import torchvision
from reference.public_networks import (
    r2plus1d_features,
    relative_positions,
    swin_in_one_window,
    videomae_feature,
)
from torchvision.models.video.swin_transformer import PatchEmbed3d, SwinTransformer3d

from lofi.encoders import ENCODERS
from lofi.encoders.normalize_frames import IMAGENET_MEAN, IMAGENET_STD
from lofi.encoders.video_resnet import open_r2plus1d
from lofi.encoders.videomae import Videomae
from lofi.encoders.videomae_sizes import Size
from lofi.encoders.weights.describe import describe, meet
from lofi.encoders.weights.families.mmaction2 import translate_swin
from lofi.encoders.weights.families.videomae import OLD_HEAD, PRETRAINING, SINE_TABLE, TOKEN_NORM
from lofi.encoders.weights.libraries import library_weights
from lofi.encoders.weights.loading import fit_weights, load_encoder_weights
from lofi.encoders.weights.networks import possible_networks
from lofi.encoders.weights.sources import Source


@pytest.mark.parametrize("name", ENCODERS)
def test_a_librarys_own_weights_fit_and_an_export_has_its_names(name):
    config_class, build = ENCODERS[name]
    encoder = build(config_class())
    network = getattr(encoder, "torchvision_name", None) or getattr(encoder, "timm_name", None)
    if network is None:
        assert library_weights(encoder) is None
        return
    library = torchvision.models.get_model if hasattr(encoder, "torchvision_name") else timm.create_model
    with torch.device("meta"):
        state = library(network).state_dict()
    fit = fit_weights(encoder, state)
    assert fit.is_whole, fit.problems()
    assert fit.loaded.keys() == encoder.state_dict().keys()
    assert set(fit.dropped.values()) == {OLD_HEAD}
    exported = library_weights(encoder)
    assert exported.library.endswith(network)
    assert exported.state.keys() | fit.dropped.keys() == state.keys()


def named(library, network):
    with torch.device("cpu" if "regnet" in network else "meta"):  # RegNets look at their tensors
        model = (
            torchvision.models.get_model(network) if library == "torchvision" else timm.create_model(network)
        )
    return model.state_dict()


@pytest.mark.parametrize(
    ("library", "network", "encoder", "options"),
    [
        ("torchvision", "resnet34", "tsm", {"network": "resnet34"}),
        ("torchvision", "resnext50_32x4d", "tsm", {"network": "resnext50_32x4d"}),
        ("torchvision", "regnet_y_400mf", "tsm", {"network": "regnet_y_400mf"}),
        ("torchvision", "convnext_tiny", "tsm", {"network": "convnext_tiny"}),
        ("timm", "regnety_002", "tsm", {"library": "timm", "network": "regnety_002"}),
        ("timm", "convnext_atto", "image", {"network": "convnext_atto"}),
        ("timm", "vit_tiny_patch16_224", "image", {"network": "vit_tiny_patch16_224"}),
    ],
)
def test_the_network_of_a_file_is_among_those_that_its_keys_tell(library, network, encoder, options):
    assert (encoder, options) in possible_networks(named(library, network))


def test_of_the_networks_that_keys_tell_shapes_tell_the_one(tmp_path):
    state = {f"base_model.{key}": value for key, value in named("torchvision", "resnet50").items()}
    state = {re.sub(r"(layer\d\.\d+\.conv1)", r"\1.net", key): value for key, value in state.items()}
    choices = possible_networks(state)
    assert [options["network"] for _, options in choices] == [
        "resnet50", "resnext50_32x4d", "wide_resnet50_2",
    ]  # fmt: skip
    fitting = [options for name, options in choices if meet(name, options, state).fit.is_whole]
    assert fitting == [{"network": "resnet50"}]


def test_where_keys_tell_no_network_the_command_asks_for_it():
    state = {
        "conv_stem.weight": torch.zeros(8, 3, 3, 3),
        "blocks.0.0.conv_pw.weight": torch.zeros(8, 8, 1, 1),
    }
    met = [meet("tiny", {}, state), meet("tsm", {}, state)]
    text = describe(Source(where="mobile.pth", state=state), met, weights="mobile.pth")
    named = "network   its keys do not tell it; if it is one of timm's image networks, name it: --encoder image network="
    assert named in text


def small_videomae():
    torch.manual_seed(0)
    return Videomae(Size(width=12, depth=2, heads=3))


def random_frames(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def normalized(frames):
    mean, std = (torch.tensor(each).view(1, 3, 1, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return (frames / 255 - mean) / std


def test_videomae_computes_what_the_original_computes(tmp_path):
    state = keys.filled(keys.videomae_finetuned(width=12, depth=2, classes=7), scale=0.3)
    torch.save({"model": state, "epoch": 3}, tmp_path / "videomae.pth")
    encoder = small_videomae().eval()
    report = load_encoder_weights(encoder, tmp_path / "videomae.pth")
    assert report.dropped == {"head.weight": OLD_HEAD, "head.bias": OLD_HEAD}
    assert report.initial == {}
    frames = random_frames(1, 3, 16, 224, 224)
    with torch.no_grad():
        expected = videomae_feature(state, normalized(frames), depth=2, heads=3)
        torch.testing.assert_close(encoder(frames), expected, rtol=1e-4, atol=1e-4)


def original_as(family, state):
    """The tensors of VideoMAE's own file under the names of another."""
    renamed = {}
    for key, value in state.items():
        if family == "mmaction2":
            key = key.replace("patch_embed.proj", "patch_embed.projection").replace(
                "head.", "cls_head.fc_cls."
            )
            key = key.replace("mlp.fc1", "mlp.layers.0.0").replace("mlp.fc2", "mlp.layers.1")
            renamed[key if key.startswith("cls_head") else f"backbone.{key}"] = value
        elif "qkv" in key:
            names = (key.replace("attn.qkv", f"attn.{part}") for part in ("query", "key", "value"))
            renamed |= dict(zip(names, value.chunk(3), strict=True))
        else:
            renamed[key] = value
    if family == "mmaction2":
        return renamed
    for ours, theirs in (
        ("patch_embed.proj.", "videomae.embeddings.patch_embeddings.projection."),
        (".attn.proj.", ".attention.output.dense."),
        (".attn.", ".attention.attention."),
        (".norm1.", ".layernorm_before."),
        (".norm2.", ".layernorm_after."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
        ("head.", "classifier."),
        ("blocks.", "videomae.encoder.layer."),
    ):
        renamed = {key.replace(ours, theirs): value for key, value in renamed.items()}
    return renamed


@pytest.mark.parametrize("family", ["mmaction2", "hugging face"])
def test_the_three_forms_of_videomae_end_in_the_same_place(family):
    shapes = {"width": 12, "depth": 2}
    original = keys.filled(keys.videomae_finetuned(classes=7, **shapes))
    other = original_as(family, original)
    named = keys.mmaction2_videomae if family == "mmaction2" else keys.hugging_face_videomae
    assert {key: tuple(value.shape) for key, value in other.items()} == named(classes=7, **shapes)
    if family == "mmaction2":  # a buffer there, so that its files have it
        other["backbone.pos_embed"] = small_videomae().patch_embed.table[None]
    encoder = small_videomae()
    expected, fit = fit_weights(encoder, original), fit_weights(encoder, other)
    assert fit.is_whole, fit.problems()
    assert fit.loaded.keys() == expected.loaded.keys() == encoder.state_dict().keys()
    for name, value in expected.loaded.items():
        assert torch.equal(fit.loaded[name], value), name
    assert fit.dropped.get("backbone.pos_embed", SINE_TABLE) == SINE_TABLE


def test_a_learnt_position_table_does_not_fit():
    state = keys.filled(keys.videomae_finetuned(width=12, depth=2))
    state["pos_embed"] = torch.zeros(1, 1568, 12)
    assert fit_weights(small_videomae(), state).unexpected == ("pos_embed",)


def test_of_pretraining_the_encoder_alone_is_taken_and_its_last_norm_starts_as_built():
    encoder = small_videomae()
    fit = fit_weights(encoder, keys.filled(keys.videomae_pretrained(width=12, depth=2)))
    assert fit.is_whole, fit.problems()
    assert set(fit.initial) == {"fc_norm.weight", "fc_norm.bias"}
    assert fit.loaded.keys() | fit.initial.keys() == encoder.state_dict().keys()
    assert set(fit.dropped.values()) == {PRETRAINING, TOKEN_NORM}
    assert fit.dropped["encoder.norm.weight"] == TOKEN_NORM


def test_a_fine_tuned_file_without_its_last_norm_does_not_fit():
    shapes = keys.videomae_finetuned(width=12, depth=2)
    state = keys.filled({key: shape for key, shape in shapes.items() if "fc_norm" not in key})
    assert fit_weights(small_videomae(), state).missing == ("fc_norm.weight", "fc_norm.bias")


def test_adapters_start_as_built_on_public_weights_and_come_back_from_our_own(tmp_path):
    encoder = Videomae(Size(width=12, depth=2, heads=3), has_adapters=True)
    fit = fit_weights(encoder, keys.filled(keys.videomae_finetuned(width=12, depth=2)))
    assert fit.is_whole, fit.problems()
    assert fit.initial
    assert all(".adapter." in name for name in fit.initial)
    own = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    assert fit_weights(encoder, own).loaded.keys() == encoder.state_dict().keys()
    del own["encoder.blocks.1.adapter.down.weight"]
    assert fit_weights(encoder, own).missing == ("blocks.1.adapter.down.weight",)


SWIN = {"depths": (2, 1), "heads": (2, 4)}
WINDOW = (2, 4, 4)


@pytest.mark.parametrize("last_norm", ["norm3", "norm"])
def test_mmaction2s_swin_computes_the_same_in_torchvisions_module(last_norm):
    shapes = keys.mmaction2_swin(width=8, window=WINDOW, classes=5, last_norm=last_norm, **SWIN)
    state = keys.filled(shapes, scale=0.4)
    for key in shapes:
        if key.endswith("relative_position_index"):
            state[key] = relative_positions(WINDOW)
    translated = translate_swin(state)
    assert list(translated.dropped) == ["cls_head.fc_cls.weight", "cls_head.fc_cls.bias"]
    library = SwinTransformer3d(
        patch_size=[2, 4, 4],
        embed_dim=8,
        depths=list(SWIN["depths"]),
        num_heads=list(SWIN["heads"]),
        window_size=list(WINDOW),
        stochastic_depth_prob=0.0,
        num_classes=5,
        patch_embed=PatchEmbed3d,
    ).eval()
    built = library.state_dict()
    assert built.keys() - translated.tensors.keys() == {"head.weight", "head.bias"}
    assert torch.equal(
        built["features.0.0.attn.relative_position_index"],
        translated.tensors["features.0.0.attn.relative_position_index"],
    )
    library.load_state_dict(translated.tensors, strict=False)
    clip = normalized(random_frames(2, 3, 4, 16, 8))
    plain = {key.replace("backbone.norm.", "backbone.norm3."): value for key, value in state.items()}
    with torch.no_grad():
        expected = swin_in_one_window(plain, clip, window=WINDOW, **SWIN)
        x = library.norm(library.features(library.patch_embed(clip)))
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)


def test_exceptions_are_allowed_by_name_and_listed(tmp_path):
    shapes = keys.videomae_finetuned(width=12, depth=2) | {"blocks.0.gamma_1": (12,), "fc_norm.weight": (13,)}
    del shapes["patch_embed.proj.bias"]
    torch.save(keys.filled(shapes), tmp_path / "odd.pth")
    encoder = small_videomae()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(
        ValueError,
        match=r"not in the file: patch_embed.proj.bias; not in the encoder: blocks.0.gamma_1; of another shape: "
        r"fc_norm.weight is \(13,\), wanted \(12,\)\. .*encoder.allow_unmatched",
    ):
        load_encoder_weights(encoder, tmp_path / "odd.pth")
    allow = ("*.gamma_1", "fc_norm.weight", "patch_embed.*")
    report = load_encoder_weights(encoder, tmp_path / "odd.pth", allow=allow)
    assert set(report.initial) == {"patch_embed.proj.bias", "fc_norm.weight"}
    assert {"blocks.0.gamma_1", "fc_norm.weight"} <= report.dropped.keys()
    for name in report.initial:
        assert torch.equal(encoder.state_dict()[name], before[name])
    with pytest.raises(
        ValueError, match=r"encoder.allow_unmatched: gamma_3 names nothing that does not match"
    ):
        load_encoder_weights(encoder, tmp_path / "odd.pth", allow=(*allow, "gamma_3"))


def test_tsps_own_middle_channels_are_not_torchvisions():
    shapes = keys.tsp_r2plus1d(blocks=(2, 2, 2, 2), own_middle=True, heads=[])
    with torch.device("meta"):
        fit = fit_weights(open_r2plus1d(depth=18), keys.unfilled(shapes))
    assert fit.misshapen
    assert not fit.missing
    assert not fit.unexpected


def test_mmaction2s_r2plus1d_computes_what_the_original_computes(tmp_path):
    state = keys.filled(keys.mmaction2_r2plus1d(), scale=0.05)
    torch.save({"state_dict": state, "meta": {"epoch": 180}}, tmp_path / "r2plus1d.pth")
    encoder = open_r2plus1d(depth=34, layout="mmaction2").eval()
    report = load_encoder_weights(encoder, tmp_path / "r2plus1d.pth")
    assert (report.family, len(report.missing)) == ("mmaction2 r2plus1d", 0)
    assert list(report.dropped) == ["cls_head.fc_cls.weight", "cls_head.fc_cls.bias"]
    frames = random_frames(2, 3, 5, 40, 32)
    with torch.no_grad():
        expected = r2plus1d_features(state, normalized(frames), blocks=(3, 4, 6, 3))
        torch.testing.assert_close(encoder(frames), expected, rtol=1e-3, atol=1e-4)
    with torch.device("meta"):
        other = open_r2plus1d(depth=34)
    fit = fit_weights(other, state)
    assert not fit.is_whole
    assert "backbone.conv1.conv.conv_s.weight" in fit.misshapen["stem.0.weight"].keys
