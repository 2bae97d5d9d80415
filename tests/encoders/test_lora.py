"""LoRA on VideoMAE and on timm's vision transformers: what learns, and that merged layers compute the same."""

import pytest
import torch
from torch import nn

from lofi.encoders.build import build_encoder
from lofi.encoders.choices import ImageConfig, VideomaeConfig
from lofi.encoders.image import ImageEncoder
from lofi.encoders.lora import LoraLinear, LowRank, merge_lora
from lofi.encoders.videomae import Videomae
from lofi.encoders.videomae_sizes import Size
from lofi.encoders.weights import load_encoder_weights
from lofi.encoders.weights.describe import meet, possible_encoders
from lofi.encoders.weights.own_names import added_options

SMALL = Size(width=12, depth=2, heads=3)
RANK = 2
ENCODERS = {
    "videomae": lambda **options: Videomae(SMALL, **options),
    "image": lambda **options: ImageEncoder(network="test_vit", **options),
}


@pytest.fixture(params=ENCODERS)
def pair(request):
    """An encoder with LoRA whose updates are not zero, and one without, of the same weights otherwise."""
    torch.manual_seed(0)
    plain, adapted = (ENCODERS[request.param](**options).double() for options in ({}, {"lora_rank": RANK}))
    found = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert found.unexpected_keys == []
    assert all(".adapter." in key for key in found.missing_keys)
    return plain, adapted


def random_frames():
    return torch.randint(0, 256, (3, 3, 4, 32, 48), dtype=torch.uint8)


def with_updates(encoder):
    for module in encoder.modules():
        if isinstance(module, LowRank):
            nn.init.normal_(module.up.weight, std=0.3)
    return encoder


def test_new_updates_change_nothing_and_merged_ones_compute_the_same(pair):
    plain, adapted = pair
    frames = random_frames()
    assert torch.equal(adapted(frames), plain(frames))
    expected = with_updates(adapted)(frames)
    assert not torch.allclose(expected, plain(frames))
    assert merge_lora(adapted)
    assert not merge_lora(adapted)
    torch.testing.assert_close(adapted(frames), expected, rtol=1e-10, atol=1e-11)
    assert adapted.state_dict().keys() == plain.state_dict().keys()


def test_an_update_is_a_low_rank_matrix_beside_a_frozen_one():
    base = nn.Linear(5, 7).double()
    layer = with_updates(LoraLinear(base, rank=RANK).double())
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    dense = base.weight + layer.adapter.up.weight @ layer.adapter.down.weight
    torch.testing.assert_close(layer(x), x @ dense.T + base.bias)
    assert torch.linalg.matrix_rank(layer.merged().weight - base.weight) == RANK


def test_updates_and_norms_are_all_that_learns(pair):
    _, adapted = pair
    adapted(random_frames()).square().sum().backward()
    for name, parameter in adapted.named_parameters():
        learns = ".adapter." in name or "norm" in name
        assert (parameter.grad is not None) is parameter.requires_grad is learns, name
    assert sum(isinstance(each, LoraLinear) for each in adapted.modules()) == 2 * len(
        list(adapted.stages[1:])
    )


def test_public_weights_load_first_and_a_run_of_its_own_comes_back(tmp_path):
    from safetensors.torch import save_file

    plain, _ = build_encoder("image", ImageConfig(network="test_vit"))
    save_file(plain.network.state_dict(), tmp_path / "public.safetensors")
    config = ImageConfig(network="test_vit", lora_rank=RANK, weights=str(tmp_path / "public.safetensors"))
    adapted, report = build_encoder("image", config)
    assert all(".adapter." in name for name in report.initial)
    frames = random_frames()
    torch.testing.assert_close(adapted(frames), plain(frames))
    save_file(
        {f"encoder.{key}": value for key, value in with_updates(adapted).state_dict().items()},
        tmp_path / "run.safetensors",
    )
    again = ImageEncoder(network="test_vit", lora_rank=RANK)
    load_encoder_weights(again, tmp_path / "run.safetensors")
    assert torch.equal(again(frames), adapted(frames))
    with pytest.raises(ValueError, match=r"not in the encoder: .*adapter.*: set encoder\.lora_rank: 2\.$"):
        load_encoder_weights(ImageEncoder(network="test_vit"), tmp_path / "run.safetensors")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: VideomaeConfig(lora_rank=-1), "lora_rank is -1; it must be at least 0"),
        (lambda: VideomaeConfig(lora_rank=4, frozen_stages=2), "frozen_stages is 2, which has no effect"),
        (lambda: VideomaeConfig(lora_rank=4, adapters="alone"), "take one of the two"),
        (
            lambda: build_encoder("image", ImageConfig(network="test_resnet", lora_rank=4)),
            "no plain vision tr",
        ),
        (
            lambda: ImageEncoder(network="vit_small_patch16_18x2_224", lora_rank=4),
            "lora_rank is 4, but vit_small_patch16_18x2_224 is no plain vision transformer, with one attention",
        ),
    ],
)
def test_a_rank_without_effect_is_refused(make, match):
    with torch.device("meta"), pytest.raises(ValueError, match=match):
        make()


def test_a_run_with_updates_is_told_by_its_tensors():
    with torch.device("meta"):
        adapted = ImageEncoder(network="vit_tiny_patch16_224", lora_rank=5)
    state = {f"encoder.{key}": value for key, value in adapted.state_dict().items()}
    options = {"network": "vit_tiny_patch16_224", "lora_rank": 5}
    assert ("image", options) in possible_encoders(state)
    assert meet("image", options, state).fit.is_whole
    assert added_options(Videomae(SMALL, has_adapters=True).state_dict()) == {"adapters": "beside"}
    assert added_options(Videomae(SMALL).state_dict()) == {}
