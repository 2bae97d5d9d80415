"""Chunked: exact encoder gradients with the activation memory of one chunk of snippets.

Each chunk is encoded under a checkpoint of its own and recomputed in the one backward pass (the idea of the gradient
cache, Gao et al. 2021, arXiv:2101.06983, with snippets of one window in place of samples of one batch). Frames stay
uint8 on the CPU until their chunk is encoded, in the forward pass and again in the recomputation, so the device holds
one chunk's frames and activations and all snippets' features.

Exact only if a snippet's feature does not depend on other snippets: norm layers must be frozen or per sample, and
dropout must be drawn per snippet (`snippet_seeds`).
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lofi.gradients.checkpointed import checkpoint_block
from lofi.protocols import RunBlock, call_block


def encode_chunk(encoder: nn.Module, frames: Tensor, seeds: Tensor | None, run_block: RunBlock) -> Tensor:
    """Move one chunk to the encoder's device and encode it: (N, C, T, H, W) uint8 -> (N, D).

    Under autocast each chunk casts the weights for itself: a cast that all chunks shared would sum their gradients in
    half precision.
    """
    device = next(encoder.parameters()).device
    seeds_N = None if seeds is None else seeds.to(device)
    with torch.autocast(
        device.type,
        enabled=torch.is_autocast_enabled(device.type),
        dtype=torch.get_autocast_dtype(device.type),
        cache_enabled=False,
    ):
        features: Tensor = encoder(
            frames.to(device, non_blocking=True), snippet_seeds=seeds_N, run_block=run_block
        )
    return features


def encode_chunked(
    encoder: nn.Module,
    frames: Tensor,
    *,
    snippet_seeds: Tensor | None,
    chunk_size: int,
    checkpoint_blocks: bool = False,
) -> Tensor:
    """Encode B x L snippets, `chunk_size` at a time.

    Args:
        encoder: a `protocols.SnippetEncoder`.
        frames: (B, L, C, T, H, W) uint8, best on the CPU.
        snippet_seeds: (B, L) int64 or None.
        chunk_size: snippets encoded together; the last chunk may be smaller.
        checkpoint_blocks: also checkpoint each block while a chunk is recomputed, for chunks that are still too large.

    Returns:
        (B, L, D) on the encoder's device.
    """
    run_block = checkpoint_block if checkpoint_blocks else call_block
    chunks = frames.flatten(0, 1).split(chunk_size)
    seeds = [None] * len(chunks) if snippet_seeds is None else snippet_seeds.flatten().split(chunk_size)
    if torch.is_grad_enabled():
        features = [
            checkpoint(encode_chunk, encoder, chunk, seed, run_block, use_reentrant=False)
            for chunk, seed in zip(chunks, seeds, strict=True)
        ]
    else:
        features = [
            encode_chunk(encoder, chunk, seed, call_block) for chunk, seed in zip(chunks, seeds, strict=True)
        ]
    return torch.cat(features).unflatten(0, frames.shape[:2])
