"""Frames on their way to the encoder: copied one chunk ahead, cut out and mirrored chunk by chunk."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from test_gradient_paths import SmallEncoder

from lofi.batches import Views
from lofi.gradients import offload
from lofi.gradients.checkpointed import encode_checkpointed
from lofi.gradients.chunked import encode_chunked
from lofi.gradients.detached import encode_detached
from lofi.gradients.joint import encode_joint
from lofi.gradients.prefetch import ChunkFrames, show
from lofi.gradients.sampled import encode_sampled
from lofi.memory.counting import LiveTensorCount
from lofi.memory.fake import fake_tensors

B, L, C, T, H, W = 2, 5, 3, 4, 9, 11
VIEWS = Views(
    height=6,
    width=7,
    top=torch.tensor([3, 0]),
    left=torch.tensor([1, 4]),
    is_mirrored=torch.tensor([True, False]),
)

PATHS = {
    "joint": encode_joint,
    "checkpointed": encode_checkpointed,
    "checkpointed_offloaded": partial(encode_checkpointed, offload=True),
    "chunked": partial(encode_chunked, chunk_size=3),
    "chunked_checkpointed": partial(encode_chunked, chunk_size=4, checkpoint_blocks=True),
    "sampled": partial(encode_sampled, chunk_size=2, share=0.5),
    "sampled_recomputed": partial(encode_sampled, chunk_size=2, share=0.5, recompute=True),
    "detached": partial(encode_detached, chunk_size=3),
}


@pytest.fixture
def frames():
    return torch.randint(0, 256, (B, L, C, T, H, W), dtype=torch.uint8, generator=torch.manual_seed(1))


def cut_out_by_hand(frames):
    """(B, L, C, T, 6, 7): what VIEWS shows."""
    first, second = frames[0, :, :, :, 3:9, 1:8].flip(-1), frames[1, :, :, :, 0:6, 4:11]
    return torch.stack([first, second])


def features_and_gradients(encode, frames, *, device="cpu", **options):
    torch.manual_seed(7)
    encoder = SmallEncoder().double().train().to(device)
    seeds = torch.arange(B * L).view(B, L)
    features = encode(encoder, frames, snippet_seeds=seeds, **options)
    if features.requires_grad:
        (features**2).sum().backward()
    return features.detach(), [parameter.grad for parameter in encoder.parameters()]


@pytest.mark.parametrize("name", PATHS)
def test_every_path_cuts_out_and_mirrors_as_if_it_had_been_done_before(name, frames):
    shown, gradients = features_and_gradients(PATHS[name], frames, views=VIEWS)
    expected, expected_gradients = features_and_gradients(PATHS[name], cut_out_by_hand(frames))
    assert torch.equal(shown, expected)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        assert (found is None and wanted is None) or torch.equal(found, wanted)


def test_a_view_of_a_snippet_is_a_rectangle_mirrored_or_not(frames):
    snippets = frames.flatten(0, 1)
    assert torch.equal(show(snippets, VIEWS.per_snippet(L)), cut_out_by_hand(frames).flatten(0, 1))


def copies_of(order, **options):
    """The snippet counts of the copies to the device, in order, while chunks of 2, 2 and 1 are taken in an order."""
    with fake_tensors():
        waiting = torch.zeros(1, L, C, T, H, W, dtype=torch.uint8, device="meta")
        with LiveTensorCount(device_type="cpu") as count:
            chunks = ChunkFrames(waiting, chunk_size=2, device=torch.device("cpu"), **options)
            for index in order:
                chunks.take(index)
    made = [made.num_bytes // (C * T * H * W) for made in count.made if made.comes_from_host]
    return made, count.peak_bytes // (C * T * H * W)


def test_each_chunk_is_copied_once_forward_and_once_backward_and_two_are_held_at_most():
    made, most = copies_of([0, 1, 2, 2, 1, 0])
    assert made == [2, 2, 1, 1, 2, 2]
    assert most == 4


def test_chunks_that_are_not_recomputed_are_not_copied_ahead():
    made, _ = copies_of([0, 1, 2, 2, 0], recomputed=[0, 2])
    assert made == [2, 2, 1, 1, 2]


def test_a_chunk_that_nobody_expected_is_copied_all_the_same():
    made, _ = copies_of([2, 0])
    assert made == [1, 2]


def test_frames_that_are_on_the_device_are_not_copied(frames):
    chunks = ChunkFrames(frames, chunk_size=3, device=torch.device("cpu"))
    assert chunks.take(1).untyped_storage().data_ptr() == frames.untyped_storage().data_ptr()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("is_pinned", [True, False])
@pytest.mark.parametrize(
    "name", ["chunked", "chunked_checkpointed", "sampled_recomputed", "detached", "checkpointed_offloaded"]
)
def test_frames_copied_ahead_give_the_same_bits_as_frames_that_were_there(
    name, is_pinned, frames, monkeypatch
):
    monkeypatch.setattr(offload, "LEAST_BYTES", 0)
    many = frames.repeat(1, 1, 1, 8, 6, 6)
    waiting = many.pin_memory() if is_pinned else many
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
        for _ in range(5):
            found = features_and_gradients(PATHS[name], waiting, device="cuda", views=VIEWS)
            wanted = features_and_gradients(PATHS[name], many.cuda(), device="cuda", views=VIEWS)
            assert torch.equal(found[0], wanted[0])
            for one, other in zip(found[1], wanted[1], strict=True):
                assert (one is None and other is None) or torch.equal(one, other)


def fetched(count):
    """Of what a count saw: copies from the host that the backward pass made, outside of recomputations."""
    return [
        made
        for made in count.made
        if made.comes_from_host and made.phase == "backward" and not made.is_recomputed
    ]


@pytest.mark.parametrize("least_bytes", [0, 1 << 30])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_inputs_of_blocks_wait_on_the_host_where_they_are_large(device, least_bytes, frames, monkeypatch):
    """On the CPU fake tensors play: `meta` is the host."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    monkeypatch.setattr(offload, "LEAST_BYTES", least_bytes)
    with fake_tensors() if device == "cpu" else nullcontext():
        waiting = torch.empty(frames.shape, dtype=frames.dtype, device="meta") if device == "cpu" else frames
        encoder = SmallEncoder().train()
        encoder = encoder if device == "cpu" else encoder.to(device)
        with LiveTensorCount(device_type=device) as count:
            encode_checkpointed(encoder, waiting, snippet_seeds=None, offload=True).sum().backward()
    blocks = [B * L * each * T * H * W * 4 for each in (C, 4)]
    found = [made.num_bytes for made in fetched(count)]
    assert set(blocks) <= set(found) if least_bytes == 0 else not found
