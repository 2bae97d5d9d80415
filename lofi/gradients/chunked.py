"""Chunked: exact encoder gradients with the activation memory of one chunk of snippets.

Each chunk is encoded under a checkpoint of its own and recomputed in the one backward pass (the idea of the gradient
cache, Gao et al. 2021, arXiv:2101.06983, with snippets of one window in place of samples of one batch). The last chunk is
not: its activations stay, and are the first that the backward pass uses, so that n chunks cost n - 1 forward passes more.
Frames stay uint8 on the host until their chunk is due, in the forward pass and again in the recomputation (`prefetch`);
they are cut out, mirrored, cast and normalised inside the chunk. So the device holds one chunk's activations, all snippets'
features, and the uint8 frames of two chunks: of the one that is encoded, and of the one that is copied meanwhile.

Where the peak lies: a chunk that is recomputed stands beside the weights' gradients, the one that stays beside the head's
activations and no gradient of the encoder yet. The first is the larger for encoders of the field (R(2+1)D-34, 16
snippets one at a time, predicted: 1,909 MiB against 1,591); for an encoder smaller than its head's activations the second may be.

Exact only if a snippet's feature does not depend on other snippets: norm layers must be frozen or per sample, and
dropout must be drawn per snippet (`snippet_seeds`).

The other way to chunk, two passes with a backward pass of the head between them that ends at the features, as the gradient
cache has it, gives the same gradients and is not here, because it wins nowhere: its peak is the same or higher (it holds the
features' gradient and the head's together with a chunk's activations), it runs several backward passes per step, which
ZeRO has to be told about one by one, and it has to replay random states and loss scales by hand. Frames that are streamed
from disk, its one use, need it no more: a chunk's function fetches its frames itself, each time that it runs.

Inside a chunk blocks can be checkpointed too (`checkpoint_blocks`). PyTorch's activation memory budget under torch.compile
was tried in its place and did not win: it saves as little as it is told to, but recomputes what is missing all at once, so
that the peak hardly falls. R(2+1)D-18, 2 snippets of 8 frames at 80 px, counted in fp32 with torch 2.15's partitioner
(tests/benchmarks/activation_budget.py): 264 MiB as it is, 117 with blocks checkpointed, 232 at budget 1, 231 at 0.1.
Offloading what is saved between chunks has nothing to move: it is features alone, and frames that are on the host already.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lofi.batches import Views
from lofi.gradients.checkpointed import checkpoint_block
from lofi.gradients.prefetch import ChunkFrames
from lofi.protocols import RunBlock, call_block


def encode_chunk(
    encoder: nn.Module, chunks: ChunkFrames, index: int, seeds: Tensor | None, run_block: RunBlock
) -> Tensor:
    """Fetch one chunk and encode it: (N, C, T, H, W) uint8 -> (N, D).

    Under autocast each chunk casts the weights for itself: a cast that all chunks shared would sum their gradients in
    half precision.
    """
    device = encoder_device(encoder)
    with torch.autocast(
        device.type,
        enabled=torch.is_autocast_enabled(device.type),
        dtype=torch.get_autocast_dtype(device.type),
        cache_enabled=False,
    ):
        features: Tensor = encoder(chunks.take(index), snippet_seeds=seeds, run_block=run_block)
    return features


def encode_chunked(
    encoder: nn.Module,
    frames: Tensor,
    *,
    snippet_seeds: Tensor | None,
    chunk_size: int,
    checkpoint_blocks: bool = False,
    views: Views | None = None,
) -> Tensor:
    """Encode B x L snippets, `chunk_size` at a time.

    Args:
        encoder: a `protocols.SnippetEncoder`.
        frames: (B, L, C, T, H, W) uint8, best on the CPU.
        snippet_seeds: (B, L) int64 or None.
        chunk_size: snippets encoded together; the last chunk may be smaller.
        checkpoint_blocks: also checkpoint each block of a chunk that stays or is recomputed, for chunks still too large.
        views: what each window shows of its frames; None: all.

    Returns:
        (B, L, D) on the encoder's device.
    """
    device = encoder_device(encoder)
    chunks = ChunkFrames(frames, chunk_size=chunk_size, device=device, views=views)
    seeds = split_seeds(snippet_seeds, chunk_size=chunk_size, device=device)
    features = []
    for index in range(len(chunks)):
        seed = None if seeds is None else seeds[index]
        run_block = checkpoint_block if checkpoint_blocks and torch.is_grad_enabled() else call_block
        if torch.is_grad_enabled() and index < len(chunks) - 1:
            features.append(
                checkpoint(encode_chunk, encoder, chunks, index, seed, run_block, use_reentrant=False)
            )
        else:
            features.append(encode_chunk(encoder, chunks, index, seed, run_block))
    return torch.cat(features).unflatten(0, frames.shape[:2])


def encoder_device(encoder: nn.Module) -> torch.device:
    """Where an encoder's weights lie, and its features will."""
    return next(encoder.parameters()).device


def split_seeds(
    snippet_seeds: Tensor | None, *, chunk_size: int, device: torch.device
) -> tuple[Tensor, ...] | None:
    """(B, L) -> a chunk's seeds each, on the device; copied at once, since every copy makes the host wait."""
    return None if snippet_seeds is None else snippet_seeds.flatten().to(device).split(chunk_size)
