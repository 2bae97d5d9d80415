"""What a step of the chunked paths holds does not grow with the window, counted on fake tensors with a host apart."""

from functools import partial

import pytest
import torch

from lofi.detector import Detector
from lofi.encoders.tiny import Tiny
from lofi.fidelity import Fidelity
from lofi.gradients.checkpointed import encode_checkpointed
from lofi.gradients.chunked import encode_chunked
from lofi.gradients.joint import encode_joint
from lofi.gradients.sampled import encode_sampled
from lofi.heads import HEADS
from lofi.memory.counting import LiveTensorCount
from lofi.memory.fake import fake_tensors
from lofi.memory.made_up_batch import made_up_batch

D = 12
FLOAT_BYTES, SEED_BYTES = 4, 8


def peak_bytes(encode, *, num_snippets):
    """Of forward and backward of a detector, weights left out."""
    return counted_step(encode, num_snippets=num_snippets)[0]


def counted_step(encode, *, num_snippets):
    """Peak bytes, and those that are held between the forward and the backward pass; weights left out."""
    fidelity = Fidelity(num_snippets=num_snippets, frames=6, height=34, width=38)
    config_class, build = HEADS["actionformer"]
    with fake_tensors():
        head = build(config_class(embed_width=8, levels=2, window=3), feature_width=D, num_classes=5)
        detector = Detector(encoder=Tiny(channels=(8, 10, D)), head=head, encode=encode).train()
        batch = made_up_batch(
            fidelity, num_windows=1, num_segments=2, num_classes=5, host=torch.device("meta")
        )
        weights = [*detector.parameters(), *detector.buffers()]
        with LiveTensorCount(weights, device_type="cpu") as count:
            weight_bytes = count.live_bytes
            loss = detector(batch).total
            held = count.live_bytes
            loss.backward()
    return count.peak_bytes - weight_bytes, held - weight_bytes


@pytest.mark.parametrize(
    "encode",
    [
        partial(encode_chunked, chunk_size=16),
        partial(encode_chunked, chunk_size=16, checkpoint_blocks=True),
    ],
    ids=["chunked", "chunked_checkpointed"],
)
def test_twice_the_snippets_take_their_features_and_seeds_more_and_nothing_else(encode):
    once, twice = peak_bytes(encode, num_snippets=64), peak_bytes(encode, num_snippets=128)
    assert twice - once == 64 * (D * FLOAT_BYTES + SEED_BYTES)
    assert twice < 1.02 * once


def test_a_sampled_step_that_recomputes_grows_by_less_than_a_fiftieth():
    encode = partial(encode_sampled, chunk_size=16, share=0.4, recompute=True)
    assert peak_bytes(encode, num_snippets=128) < 1.02 * peak_bytes(encode, num_snippets=64)


@pytest.mark.parametrize(
    "encode", [encode_joint, partial(encode_sampled, chunk_size=16, share=0.5)], ids=["joint", "sampled"]
)
def test_paths_that_keep_activations_grow_with_the_window(encode):
    assert peak_bytes(encode, num_snippets=128) > 1.7 * peak_bytes(encode, num_snippets=64)


def test_block_inputs_that_wait_on_the_host_leave_the_device():
    """The three blocks' inputs: normalized frames, and the outputs of the first two stages."""
    _, kept = counted_step(encode_checkpointed, num_snippets=64)
    _, offloaded = counted_step(partial(encode_checkpointed, offload=True), num_snippets=64)
    inputs_CHW = (3 * 34 * 38, 8 * 17 * 19, 10 * 9 * 10)
    assert kept - offloaded == 64 * 6 * FLOAT_BYTES * sum(inputs_CHW)
