"""What every snippet encoder promises, and that the public ones compute what their sources compute."""

import copy
from functools import partial

import pytest
import torch
import torchvision
from torch._subclasses.fake_tensor import FakeTensor
from torchvision.transforms.functional import normalize

from lofi.encoders import ENCODERS
from lofi.encoders.build import build_encoder
from lofi.encoders.choices import (
    ImageConfig,
    MvitConfig,
    R2plus1dConfig,
    Resnet3dConfig,
    S3dConfig,
    Swin3dConfig,
    TinyConfig,
    TsmConfig,
    VideomaeConfig,
)
from lofi.encoders.freezing import freeze_stages
from lofi.encoders.normalize_frames import IMAGENET_MEAN, IMAGENET_STD, NormalizeFrames
from lofi.encoders.tsm import Tsm
from lofi.encoders.video_resnet import open_r2plus1d
from lofi.fidelity import Fidelity
from lofi.gradients.checkpointed import encode_checkpointed
from lofi.gradients.chunked import encode_chunked
from lofi.gradients.joint import encode_joint
from lofi.gradients.sampled import encode_sampled
from lofi.memory.cuda_rules import cuda_rules
from lofi.memory.fake import fake_tensors

CONFIGS = {
    "tiny": TinyConfig(channels=(4, 6, 10), dropout=0.3),
    "tsm": TsmConfig(dropout=0.3),
    "tsm convnext": TsmConfig(library="timm", network="convnext_atto", dropout=0.3),
    "r2plus1d": R2plus1dConfig(dropout=0.3),
    "resnet3d": Resnet3dConfig(network="mc3_18", dropout=0.3),
    "s3d": S3dConfig(dropout=0.3),
    "swin3d": Swin3dConfig(dropout=0.3, drop_path=0.2),
    "mvit": MvitConfig(dropout=0.3, drop_path=0.2),
    "videomae": VideomaeConfig(size="small", adapters="beside", dropout=0.3, drop_path=0.2),
    "image": ImageConfig(network="vit_tiny_patch16_224", temporal="convolution", dropout=0.3),
}
WIDTHS = {
    "tiny": 10, "tsm": 512, "tsm convnext": 320, "r2plus1d": 512, "resnet3d": 512, "s3d": 1024, "swin3d": 768, "mvit": 768,
    "videomae": 384, "image": 192,
}  # fmt: skip
LEAST = {"tiny": 9, "tsm": 32, "tsm convnext": 32, "r2plus1d": 16, "resnet3d": 16, "s3d": 32, "mvit": 32}
"""Pixels, of the encoders that have a least size."""
LEAST_FRAMES = {"tsm": 2, "tsm convnext": 2, "s3d": 8}
SIZES = {
    "r2plus1d": (2, 17, 19), "resnet3d": (2, 17, 19), "s3d": (8, 33, 35), "videomae": (4, 32, 48), "image": (2, 32, 48)
}  # fmt: skip
"""Frames, height and width, where others than the usual are needed."""
N = 3
USUAL = T, H, W = 2, 33, 35


def test_every_encoder_is_held_to_its_promises():
    assert {name.split()[0] for name in CONFIGS} == set(ENCODERS)


def random_frames(num_snippets=N, frames=T, height=H, width=W):
    return torch.randint(0, 256, (num_snippets, 3, frames, height, width), dtype=torch.uint8)


@pytest.fixture(scope="module", params=list(CONFIGS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def encoder(name):
    """In float64 and training, with batch norms that have seen other data, and nothing at zero that starts there."""
    torch.manual_seed(0)
    encoder, report = build_encoder(name.split()[0], CONFIGS[name])
    assert report is None
    shake_norms(encoder)
    with torch.no_grad():
        for key, parameter in encoder.named_parameters():
            if "adapter.up" in key or "layer_scale" in key or key.endswith(".gamma"):
                parameter.normal_(std=0.1)
    return encoder.double().train()


def frames_for(name, num_snippets=N):
    frames, height, width = SIZES.get(name, USUAL)
    return random_frames(num_snippets, frames, height, width)


def shake_norms(module):
    for key, value in module.state_dict().items():
        if key.endswith("running_mean"):
            value.copy_(torch.randn_like(value) * 1e-3)
        if key.endswith("running_var"):
            value.copy_(torch.rand_like(value) * 0.2 + 0.4)


def test_features_are_one_vector_per_snippet(name, encoder):
    features = encoder(frames_for(name))
    assert features.shape == (N, WIDTHS[name]) == (N, encoder.feature_width)
    assert features.dtype == torch.float64


def test_snippets_encoded_apart_equal_snippets_encoded_together(name, encoder):
    frames, seeds = frames_for(name), torch.tensor([7, 8, 9])
    together = encoder(frames, snippet_seeds=seeds)
    apart = [encoder(frames[i : i + 1], snippet_seeds=seeds[i : i + 1]) for i in range(N)]
    torch.testing.assert_close(torch.cat(apart), together, rtol=1e-10, atol=1e-11)


def test_every_block_is_run_by_run_block_in_order(name, encoder):
    seen = []

    def record(block, *arguments):
        seen.append(block)
        return block(*arguments)

    encoder(frames_for(name, num_snippets=1), run_block=record)
    assert [id(block) for block in seen] == [id(block) for block in encoder.all_blocks]
    outside = {"network.cls_token", "network.pos_embed", "pos_encoding.class_token"}
    inside = {id(p) for block in encoder.all_blocks for p in block.parameters()}
    assert all(id(p) in inside or key in outside for key, p in encoder.named_parameters())


def test_stages_are_cut_at_the_input_and_hold_what_can_be_frozen(encoder):
    stages = [{id(p) for p in stage.parameters()} for stage in encoder.stages]
    assert all(stages)
    assert sum(len(each) for each in stages) == len(set().union(*stages))
    first = next(iter(encoder.all_blocks[0].parameters()))
    assert id(first) in stages[0]


EXACT = {
    "checkpointed": encode_checkpointed,
    "chunked": partial(encode_chunked, chunk_size=2, checkpoint_blocks=True),
    "sampled": partial(encode_sampled, chunk_size=2, share=1.0, recompute=True),
}


OF_NO_EFFECT = ("blocks.15.attn.rel_pos", "blocks.15.attn.pool_q.pool")
"""MViT's feature is its class token, whose attention in the last block has no relative positions and is not pooled."""


def test_gradients_reach_every_weight_and_are_the_same_on_every_path(name, encoder):
    """With dropout and drop path on, in float64."""
    frames, seeds = frames_for(name)[None], torch.tensor([[3, 4, 5]])
    weight = torch.randn(1, N, encoder.feature_width, dtype=torch.float64)
    gradients = {}
    for path, encode in {"joint": encode_joint, **EXACT}.items():
        encoder.zero_grad()
        (encode(encoder, frames, snippet_seeds=seeds) * weight).sum().backward()
        gradients[path] = {key: p.grad for key, p in encoder.named_parameters() if p.requires_grad}
    encoder.zero_grad()
    for key, joint in gradients["joint"].items():
        assert joint.abs().sum() > 0 or key.startswith(OF_NO_EFFECT), key
    for path in EXACT:
        for key, joint in gradients["joint"].items():
            # timm interpolates position tables in float32, whatever their type.
            rtol, atol = (1e-4, 1e-5) if "pos_embed" in key else (1e-8, 1e-10)
            torch.testing.assert_close(
                gradients[path][key], joint, rtol=rtol, atol=atol, msg=f"{path}: {key}"
            )


def test_with_frozen_stages_the_first_that_learns_has_gradients_on_every_path_and_they_have_none(
    name, encoder
):
    encoder = copy.deepcopy(encoder)
    freeze_stages(encoder.stages, count=2)
    frozen = {id(p) for stage in encoder.stages[:2] for p in stage.parameters()}
    seeds = torch.tensor([[3, 4]])
    sampled = partial(encode_sampled, chunk_size=1, share=0.5)
    for path, encode in {"joint": encode_joint, **EXACT, "sampled": sampled}.items():
        encoder.zero_grad()
        encode(encoder, frames_for(name, num_snippets=2)[None], snippet_seeds=seeds).sum().backward()
        assert all(p.grad is None for p in encoder.parameters() if id(p) in frozen), path
        first = encoder.stages[2:][0].named_parameters()
        assert all(p.grad.abs().sum() > 0 for key, p in first if p.requires_grad), path


def test_dropout_follows_the_seeds_and_needs_training(name, encoder):
    frames = frames_for(name, num_snippets=2)
    one = encoder(frames, snippet_seeds=torch.tensor([1, 2]))
    assert torch.equal(encoder(frames, snippet_seeds=torch.tensor([1, 2])), one)
    assert not torch.equal(encoder(frames, snippet_seeds=torch.tensor([1, 3]))[1], one[1])
    try:
        still = encoder.eval()(frames, snippet_seeds=torch.tensor([1, 2]))
    finally:
        encoder.train()
    assert torch.equal(encoder(frames), still)


def test_frames_that_are_not_uint8_rgb_are_refused(encoder):
    with pytest.raises(
        ValueError, match=r"frames are \(1, 3, 2, 33, 33\) torch.float32; an encoder takes .* uint8"
    ):
        encoder(torch.zeros(1, 3, 2, 33, 33))
    with pytest.raises(ValueError, match=r"frames are \(1, 4, 2, 33, 33\)"):
        encoder(torch.zeros(1, 4, 2, 33, 33, dtype=torch.uint8))


def test_the_smallest_fidelity_allowed_can_be_encoded_and_one_less_is_refused(name, encoder):
    least, frames = LEAST.get(name), LEAST_FRAMES.get(name, 1)
    if least is None:
        pytest.skip("has no least size")
    encoder.check_fidelity(Fidelity(num_snippets=5, frames=frames, height=least, width=least + 1))
    features = encoder(random_frames(num_snippets=1, frames=frames, height=least, width=least + 1))
    assert features.isfinite().all()
    with pytest.raises(
        ValueError, match=rf"too small for {name.split()[0]}.*nearest usable: .*height {least}, width 40"
    ):
        encoder.check_fidelity(Fidelity(num_snippets=5, frames=frames, height=least - 1, width=40))


def test_the_dtype_follows_the_weights(name, encoder):
    encoder = copy.deepcopy(encoder).float()
    frames = frames_for(name, num_snippets=1)
    assert encoder(frames).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encoder(frames).isfinite().all()


PLANNED = {
    **CONFIGS,
    "tsm regnet": TsmConfig(network="regnet_y_400mf"),
    "tsm regnet of timm": TsmConfig(library="timm", network="regnety_002"),
    "image regnet": ImageConfig(network="regnety_002"),
    "image with its own softmax": ImageConfig(network="beit_base_patch16_224"),
}
"""RegNets work their layout out with tensors while they are built."""
PLANNED_SIZES = {**SIZES, "image with its own softmax": (1, 224, 224)}
PLANNED_PATHS = (encode_checkpointed, partial(encode_chunked, chunk_size=1))
"""The last chunk is encoded as `encode_joint` does it."""


@pytest.mark.parametrize("name", PLANNED)
def test_a_checkpointed_and_a_chunked_step_are_planned_on_fake_tensors(name):
    """Built, encoded and differentiated as on CUDA, without an allocation."""
    sizes = PLANNED_SIZES.get(name, USUAL)
    with fake_tensors():
        encoder, _ = build_encoder(name.split()[0], PLANNED[name])
        encoder.train()
        trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        for encode in PLANNED_PATHS:
            encoder.zero_grad()
            frames = torch.empty(1, 2, 3, *sizes, dtype=torch.uint8)
            with torch.autocast("cpu", dtype=torch.bfloat16), cuda_rules(encoder):
                features = encode(encoder, frames, snippet_seeds=torch.zeros(1, 2, dtype=torch.int64))
                features.float().sum().backward()
            assert all(isinstance(parameter.grad, FakeTensor) for parameter in trained)


@pytest.mark.parametrize("order", ["NCTHW", "NTCHW"])
def test_normalized_frames_equal_torchvisions(order):
    frames = random_frames()
    normalize_frames = NormalizeFrames(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    expected = normalize(frames.transpose(1, 2) / 255, mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD))
    result = normalize_frames(frames, order=order)
    assert result.is_contiguous()
    assert not normalize_frames.state_dict()
    torch.testing.assert_close(result if order == "NTCHW" else result.transpose(1, 2), expected)


@pytest.mark.parametrize("order", ["NCTHW", "NTCHW"])
def test_under_autocast_frames_are_normalized_into_its_type_with_one_rounding(order):
    frames = torch.arange(256, dtype=torch.uint8).view(1, 1, 2, 8, 16).expand(2, 3, -1, -1, -1)
    normalize_frames = NormalizeFrames(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    exact = normalize_frames(frames, order=order)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = normalize_frames(frames, order=order)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous()
    torch.testing.assert_close(found.float(), exact, rtol=2**-8, atol=1e-6)


def test_the_public_encoders_normalize_as_their_weights_were_trained():
    frames = random_frames()
    for encoder, weights in (
        (Tsm(), torchvision.models.ResNet18_Weights.DEFAULT),
        (open_r2plus1d(), torchvision.models.video.R2Plus1D_18_Weights.DEFAULT),
    ):
        public = weights.transforms()
        expected = normalize(frames.transpose(1, 2) / 255, mean=list(public.mean), std=list(public.std))
        torch.testing.assert_close(encoder.normalize(frames, order="NTCHW"), expected)


def test_a_single_frame_is_refused_only_where_channels_are_shifted():
    fidelity = Fidelity(num_snippets=5, frames=1, height=32, width=32)
    Tsm(temporal_shift_fraction=0.0).check_fidelity(fidelity)
    with pytest.raises(ValueError, match="shifts channels between frames unless .*nearest usable: frames 2"):
        Tsm().check_fidelity(fidelity)


@pytest.mark.parametrize(
    ("config_class", "options", "message"),
    [
        (TinyConfig, {"channels": (4, 5)}, r"encoder.channels is \[4, 5\]; it must be three numbers"),
        (TinyConfig, {"dropout": 1.0}, r"encoder.dropout is 1.0; it must lie in \[0, 1\)"),
        (TinyConfig, {"frozen_stages": 4}, r"encoder.frozen_stages is 4; it must lie in 0 to 3"),
        (TsmConfig, {"library": "mmcv"}, r"encoder.library is 'mmcv'; it must be one of torchvision, timm"),
        (TsmConfig, {"temporal_shift_fraction": 0.6}, r"temporal_shift_fraction is 0.6; .* \[0, 0.5\]"),
        (
            TsmConfig,
            {"norm": "thaw"},
            r"encoder.norm is 'thaw'; it must be one of frozen, affine, train",
        ),
        (R2plus1dConfig, {"dropout": -0.1}, r"encoder.dropout is -0.1"),
        (R2plus1dConfig, {"frozen_stages": 6}, r"encoder.frozen_stages is 6; it must lie in 0 to 5"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(config_class, options, message):
    with pytest.raises(ValueError, match=message):
        config_class(**options)


def test_an_unknown_encoder_is_refused():
    with pytest.raises(ValueError, match="encoder.name is 'swin'; it must be one of tiny, tsm, .*swin3d"):
        build_encoder("swin", TinyConfig())


def test_r2plus1d_of_34_layers_has_the_layout_of_its_public_weights():
    encoder, _ = build_encoder("r2plus1d", R2plus1dConfig(depth=34))
    assert [len(stage) for stage in encoder.stages[1:]] == [3, 4, 6, 3]
    state = encoder.state_dict()
    middle = {
        (layer, conv): state[f"layer{layer}.0.conv{conv}.0.0.weight"].shape[0]
        for layer in (1, 2, 3, 4)
        for conv in (1, 2)
    }
    assert middle[1, 1] == middle[1, 2] == 144
    assert {key: middle[key] for key in middle if key[1] == 2 and key[0] > 1} == {
        (2, 2): 288, (3, 2): 576, (4, 2): 1152,
    }  # fmt: skip
    assert middle[2, 1] == 230
    assert encoder.layer3[2].conv1[1].eps == 1e-3
    assert encoder(random_frames(num_snippets=1)).shape == (1, 512)
