"""Several features per snippet: VideoMAE's per tubelet time, an image model's per frame."""

from functools import partial

import pytest
import torch
from torch import nn

from lofi.encoders.image import ImageEncoder
from lofi.encoders.videomae import Videomae
from lofi.encoders.videomae_sizes import Size
from lofi.gradients.checkpointed import encode_checkpointed
from lofi.gradients.chunked import encode_chunked
from lofi.gradients.joint import encode_joint
from lofi.gradients.sampled import encode_sampled
from lofi.protocols import features_per_snippet

SMALL = Size(width=12, depth=2, heads=3)
B, L, T = 2, 3, 4
PATHS = {
    "checkpointed": encode_checkpointed,
    "chunked": partial(encode_chunked, chunk_size=2),
    "chunked, blocks too": partial(encode_chunked, chunk_size=4, checkpoint_blocks=True),
    "sampled, all": partial(encode_sampled, chunk_size=2, share=1.0),
}


def random_frames(*shape):
    return torch.randint(0, 256, (*shape, 3, T, 32, 48), dtype=torch.uint8)


def test_the_mean_over_time_of_the_features_of_tubelets_is_the_snippets_before_the_norm():
    torch.manual_seed(0)
    snippet, tubelet = Videomae(SMALL).double(), Videomae(SMALL, feature_per_tubelet=True).double()
    tubelet.load_state_dict(snippet.state_dict())
    snippet.fc_norm = tubelet.fc_norm = nn.Identity()
    frames = random_frames(L)
    assert tubelet(frames).shape == (L, T // 2, SMALL.width)
    assert features_per_snippet(tubelet, frames=T) == T // 2
    torch.testing.assert_close(tubelet(frames).mean(dim=1), snippet(frames))


@pytest.mark.parametrize("has_convolution", [False, True])
def test_the_mean_of_an_image_models_features_of_frames_is_the_snippets(has_convolution):
    torch.manual_seed(0)
    options = {"network": "test_vit", "has_convolution": has_convolution}
    snippet, frame = (ImageEncoder(**options, feature_per_frame=each).double() for each in (False, True))
    frame.load_state_dict(snippet.state_dict())
    frames = random_frames(L)
    assert frame(frames).shape == (L, T, frame.feature_width)
    assert features_per_snippet(frame, frames=T) == T
    torch.testing.assert_close(frame(frames).mean(dim=1), snippet(frames))


@pytest.fixture(scope="module")
def joint():
    """With LoRA, dropout and drop path: features, and the gradients of all that learns."""
    torch.manual_seed(0)
    encoder = Videomae(SMALL, feature_per_tubelet=True, lora_rank=2, dropout=0.3, drop_path=0.2).double()
    for name, parameter in encoder.named_parameters():
        if "adapter.up" in name:
            nn.init.normal_(parameter, std=0.3)
    frames, seeds = random_frames(B, L), torch.randint(2**62, (B, L))
    return encoder.train(), frames, seeds, gradients(encode_joint, encoder, frames, seeds)


def gradients(encode, encoder, frames, seeds):
    encoder.zero_grad()
    features_BLRD = encode(encoder, frames, snippet_seeds=seeds)
    assert features_BLRD.shape == (B, L, T // 2, SMALL.width)
    features_BLRD.cumsum(dim=1).cumsum(dim=2).square().sum().backward()
    return {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("path", PATHS)
def test_exact_paths_have_the_gradients_of_the_joint_one(path, joint):
    encoder, frames, seeds, expected = joint
    found = gradients(PATHS[path], encoder, frames, seeds)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-11)
        assert gradient.abs().sum() > 0
