"""The encoders on torchvision's and timm's modules compute what the libraries' own forward functions compute."""

import pytest
import timm
import torch
import torchvision
from timm.models.vision_transformer import Block
from torch import nn

from lofi.encoders.freezing import freeze_norms
from lofi.encoders.image import ImageEncoder
from lofi.encoders.mvit import Mvit
from lofi.encoders.position_table import interpolate_table, sine_table
from lofi.encoders.s3d import S3d
from lofi.encoders.swin3d import Swin3d
from lofi.encoders.tsm import BRANCHES, Tsm
from lofi.encoders.video_resnet import open_r2plus1d, open_resnet3d
from lofi.encoders.videomae import Videomae
from lofi.encoders.videomae_sizes import SIZES
from lofi.encoders.weights.own_names import own_name
from lofi.fidelity import Fidelity


def random_frames(*size):
    return torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)


def copy_weights(encoder, library):
    """Every tensor of the encoder from the library's module, by the names that weight files go by."""
    state = {own_name(encoder, name): value for name, value in library.state_dict().items()}
    own = encoder.state_dict()
    encoder.load_state_dict({name: state[name] for name in own})


VIDEO = {
    "r2plus1d_18": (open_r2plus1d, "fc", (3, 32, 34)),
    "r3d_18": (lambda: open_resnet3d(network="r3d_18"), "fc", (2, 32, 34)),
    "mc3_18": (lambda: open_resnet3d(network="mc3_18"), "fc", (2, 32, 34)),
    "swin3d_t": (lambda: Swin3d(network="swin3d_t"), "head", (3, 33, 36)),
    "mvit_v2_s": (Mvit, "head", (4, 32, 64)),
}


@pytest.mark.parametrize("name", VIDEO)
def test_video_networks_equal_torchvisions(name):
    build, head, size = VIDEO[name]
    encoder, library = build().eval(), torchvision.models.get_model(name, weights=None).eval()
    setattr(library, head, nn.Identity())
    copy_weights(encoder, library)
    if name == "mvit_v2_s":  # torchvision's forward reads the size of its input from here
        library.pos_encoding.temporal_size, library.pos_encoding.spatial_size = 2, (8, 16)
    frames = random_frames(*size)
    with torch.no_grad():
        expected = library(encoder.normalize(frames, order="NCTHW"))
        torch.testing.assert_close(encoder(frames), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["swin3d_s", "swin3d_b"])
def test_larger_swins_have_torchvisions_tensors(name):
    with torch.device("meta"):
        encoder, library = Swin3d(network=name), torchvision.models.get_model(name, weights=None)
    library.head = nn.Identity()
    found = {own_name(encoder, key): value.shape for key, value in encoder.state_dict().items()}
    assert found == {key: value.shape for key, value in library.state_dict().items()}


def test_s3d_equals_torchvisions_where_one_pooling_window_is_the_whole_map():
    encoder, library = S3d().eval(), torchvision.models.video.s3d(weights=None).eval()
    library.classifier = nn.Identity()
    library.avgpool = nn.AvgPool3d((1, 1, 2))  # of 8 frames of 32 x 64 pixels, as 2 x 7 x 7 is of 16 at 224
    copy_weights(encoder, library)
    frames = random_frames(8, 32, 64)
    with torch.no_grad():
        expected = library(encoder.normalize(frames, order="NCTHW"))
        torch.testing.assert_close(encoder(frames), expected, rtol=1e-5, atol=1e-5)


IMAGE = [
    ("torchvision", "resnet18"),
    ("torchvision", "resnet34"),
    ("torchvision", "resnet50"),
    ("torchvision", "resnext50_32x4d"),
    ("torchvision", "regnet_y_400mf"),
    ("torchvision", "convnext_tiny"),
    ("timm", "resnet10t"),
    ("timm", "regnety_002"),
    ("timm", "convnext_atto"),
]


@pytest.mark.parametrize(
    ("library", "name", "fraction"), [("torchvision", "resnet18", 0.0), *((*each, 0.125) for each in IMAGE)]
)
def test_tsm_equals_the_library_with_shifted_branches(library, name, fraction):
    encoder = Tsm(library=library, network=name, temporal_shift_fraction=fraction).eval()
    if library == "timm":
        network = timm.create_model(name, num_classes=0).eval()
    else:
        network = torchvision.models.get_model(name, weights=None).eval()
        if hasattr(network, "fc"):
            network.fc = nn.Identity()
        else:
            network.classifier[2] = nn.Identity()
    for module in network.modules():
        if hasattr(module, "layer_scale"):
            nn.init.constant_(module.layer_scale, 0.3)
    copy_weights(encoder, network)

    def shift(_, args):
        x = args[0].unflatten(0, (2, 3))
        out, fold = x.clone(), int(x.shape[2] * fraction)
        out[:, :, : 2 * fold] = 0
        out[:, :2, :fold] = x[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = x[:, :2, fold : 2 * fold]
        return (out.flatten(0, 1),)

    blocks = [module for module in network.modules() if type(module) in BRANCHES]
    assert blocks
    for block in blocks:
        block.get_submodule(BRANCHES[type(block)]).register_forward_pre_hook(shift)
    frames = random_frames(3, 32, 40)
    with torch.no_grad():
        inputs = encoder.normalize(frames, order="NTCHW")
        expected = network(inputs.flatten(0, 1)).unflatten(0, (2, 3)).mean(dim=1)
        torch.testing.assert_close(encoder(frames), expected, rtol=1e-5, atol=1e-5)


def test_tsm_refuses_networks_without_shifted_branches():
    with pytest.raises(
        ValueError, match="encoder.network is 'vgg11', a VGG of torchvision; tsm takes ResNets"
    ):
        Tsm(library="torchvision", network="vgg11")


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "seresnet18",
        "resnet26d",
        "regnetx_002",
        "regnetz_005",
        "convnext_atto_ols",
        "convnextv2_atto",
    ],
)
def test_every_block_of_timms_networks_is_shifted_and_no_norm_trains(name):
    with torch.device("meta"):
        encoder = Tsm(library="timm", network=name)
    freeze_norms(encoder)
    encoder.train()
    for stage in encoder.stages[1:]:
        blocks = [
            module for module in stage.modules() if type(module).__name__.endswith(("Block", "Bottleneck"))
        ]
        assert blocks
        assert all(block.shifted_branch == BRANCHES[type(block)] for block in blocks)
    assert not any(norm.training for norm in encoder.modules() if hasattr(norm, "running_var"))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("skresnet18", "of SelectiveKernelBasic blocks, whose branch to shift tsm does not know"),
        ("res2net50_26w_4s", "of Bottle2neck blocks, "),
        ("resnest14d", "of ResNestBottleneck blocks, "),
        ("regnetv_040", "of PreBottleneck blocks, "),
        ("convnext_tiny_hnf", "a ConvNeXt of timm with another head"),
        ("convnext_large_mlp", "a ConvNeXt of timm with another head"),
    ],
)
def test_tsm_refuses_networks_that_it_would_shift_or_run_in_part(name, match):
    with torch.device("meta"), pytest.raises(ValueError, match=f"encoder.network is '{name}', {match}"):
        Tsm(library="timm", network=name)


def test_a_network_of_unknown_blocks_is_taken_frame_by_frame():
    with torch.device("meta"):
        encoder = Tsm(library="timm", network="skresnet18", temporal_shift_fraction=0.0)
    assert len(encoder.all_blocks) == 5


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet10t"])
def test_image_encoders_equal_timm_frame_by_frame(name):
    encoder = ImageEncoder(network=name).eval()
    options = {"dynamic_img_size": True} if "vit" in name else {}
    network = timm.create_model(name, num_classes=0, **options).eval()
    copy_weights(encoder, network)
    frames = random_frames(3, 32, 48)
    with torch.no_grad():
        inputs = encoder.normalize(frames, order="NTCHW")
        expected = network(inputs.flatten(0, 1)).unflatten(0, (2, 3)).mean(dim=1)
        torch.testing.assert_close(encoder(frames), expected, rtol=1e-5, atol=1e-5)


def test_videomae_equals_timms_own_blocks():
    size = SIZES["small"]
    encoder = Videomae(size).eval()
    with torch.device("meta"):
        blocks = [Block(size.width, size.heads, qkv_bias=True).eval() for _ in range(size.depth)]
    for own, block in zip(encoder.blocks, blocks, strict=True):
        block.load_state_dict(own.state_dict(), assign=True)
    frames = random_frames(16, 32, 48)
    with torch.no_grad():
        x = encoder.patch_embed.proj(encoder.normalize(frames, order="NCTHW")).flatten(2).transpose(1, 2)
        x = x + interpolate_table(encoder.patch_embed.table, grid=(8, 14, 14), to=(8, 2, 3))
        for block in blocks:
            x = block(x)
        torch.testing.assert_close(encoder(frames), encoder.fc_norm(x.mean(1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in SIZES if name not in ("small", "giant")])
def test_larger_videomaes_have_the_tensors_of_timms_blocks(name):
    size = SIZES[name]
    with torch.device("meta"):
        encoder, block = Videomae(size), Block(size.width, size.heads, qkv_bias=True)
    expected = {key: value.shape for key, value in block.state_dict().items()}
    assert len(encoder.blocks) == size.depth
    for own in encoder.blocks:
        assert {key: value.shape for key, value in own.state_dict().items()} == expected


def test_the_sine_table_is_interpolated_in_time_and_space():
    table = sine_table(4 * 6 * 8, width=10).double()
    assert interpolate_table(table, grid=(4, 6, 8), to=(4, 6, 8)) is table
    assert table[5, 2] == pytest.approx(torch.tensor(5 / 10000 ** (2 / 10)).sin().item(), rel=1e-5)
    # Codes that rise evenly along an axis still do, away from the borders, at the new positions.
    t, h, w = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), torch.arange(8.0), indexing="ij")
    even = torch.stack([t, h, w], dim=-1).flatten(0, 2)
    finer = interpolate_table(even, grid=(4, 6, 8), to=(8, 12, 16)).unflatten(0, (8, 12, 16))[
        2:-2, 4:-4, 4:-4
    ]
    for axis, length in enumerate((8, 12, 16)):
        border = 2 if axis == 0 else 4
        wanted = (torch.arange(length) + 0.5) / 2 - 0.5
        shape = [-1 if place == axis else 1 for place in range(3)]
        wanted = wanted[border:-border].view(shape).expand(finer.shape[:3])
        # PyTorch's bicubic kernel (a = -0.75) keeps a straight line to 0.05 of a step; linear keeps it exactly.
        atol = 1e-5 if axis == 0 else 0.05
        torch.testing.assert_close(finer[..., axis], wanted, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("frames", "side", "message"),
    [
        (15, 160, "frames 15 is no multiple of 2.*nearest usable: frames 14 or 16"),
        (16, 158, "height 158 is no multiple of 16.*nearest usable: height 144 or 160"),
    ],
)
def test_videomae_takes_whole_tubelets(frames, side, message):
    with torch.device("meta"):
        encoder = Videomae(SIZES["small"])
    encoder.check_fidelity(Fidelity(num_snippets=4, frames=8, height=112, width=96))
    with pytest.raises(ValueError, match=message):
        encoder.check_fidelity(Fidelity(num_snippets=4, frames=frames, height=side, width=160))
