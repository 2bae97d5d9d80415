"""Sampled: every snippet is encoded, but only a drawn share of the chunks carries gradient to the encoder.

The sampled gradient of ETAD (Liu et al. 2023, arXiv:2205.07134), drawn uniformly without replacement per step. Features,
loss and the head's gradients are exact. The encoder's gradient is the sum over the drawn snippets alone: its expectation
is share times the exact one (biased by that factor, which `rescale` divides out; then it is unbiased, with more
variance). At share 1 it is the chunked gradient.

The drawn chunks' activations are kept, which is quick, or recomputed one chunk at a time, which needs the memory of one
chunk whatever the share.
"""

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lofi.batches import Views
from lofi.gradients.chunked import encode_chunk, encoder_device, split_seeds
from lofi.gradients.prefetch import ChunkFrames
from lofi.protocols import call_block


def encode_sampled(
    encoder: nn.Module,
    frames: Tensor,
    *,
    snippet_seeds: Tensor | None,
    chunk_size: int,
    share: float,
    rescale: bool = False,
    recompute: bool = False,
    views: Views | None = None,
) -> Tensor:
    """Encode B x L snippets; a share of the chunks with gradient.

    Args:
        encoder: a `protocols.SnippetEncoder`.
        frames: (B, L, C, T, H, W) uint8.
        snippet_seeds: (B, L) int64; the draw of chunks is seeded by the first. None: nothing carries gradient.
        chunk_size: snippets that are encoded, and drawn, together.
        share: of the chunks that carry gradient, in (0, 1]; at least one does.
        rescale: multiply the encoder's gradient by chunks / drawn chunks.
        recompute: keep no activations of the drawn chunks either, and recompute one at a time, as `chunked` does.
        views: what each window shows of its frames; None: all.

    Returns:
        (B, L, D) on the encoder's device.
    """
    device = encoder_device(encoder)
    num_chunks = math.ceil(frames.shape[:2].numel() / chunk_size)
    drawn = _draw_chunks(num_chunks, snippet_seeds=snippet_seeds, share=share)
    chunks = ChunkFrames(frames, chunk_size=chunk_size, device=device, views=views, recomputed=drawn)
    seeds = split_seeds(snippet_seeds, chunk_size=chunk_size, device=device)
    features = []
    for index in range(num_chunks):
        seed = None if seeds is None else seeds[index]
        carries_gradient = torch.is_grad_enabled() and index in drawn
        if carries_gradient and recompute:
            features.append(
                checkpoint(encode_chunk, encoder, chunks, index, seed, call_block, use_reentrant=False)
            )
        else:
            with torch.set_grad_enabled(carries_gradient):
                features.append(encode_chunk(encoder, chunks, index, seed, call_block))
    features_BLD = torch.cat(features).unflatten(0, frames.shape[:2])
    if rescale and drawn:
        exact = features_BLD.detach()
        features_BLD = exact + (features_BLD - exact) * (num_chunks / len(drawn))
    return features_BLD


def _draw_chunks(num_chunks: int, *, snippet_seeds: Tensor | None, share: float) -> set[int]:
    if snippet_seeds is None:
        return set()
    generator = torch.Generator().manual_seed(int(snippet_seeds.flatten()[0]))
    count = max(1, round(share * num_chunks))
    return set(torch.randperm(num_chunks, generator=generator)[:count].tolist())
