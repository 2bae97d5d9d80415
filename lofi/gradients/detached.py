"""Detached: the encoder is frozen. Its features carry no gradient, and no activation is kept."""

import torch
from torch import Tensor, nn

from lofi.batches import Views
from lofi.gradients.chunked import encode_chunked


def encode_detached(
    encoder: nn.Module,
    frames: Tensor,
    *,
    snippet_seeds: Tensor | None,
    chunk_size: int,
    views: Views | None = None,
) -> Tensor:
    """frames (B, L, C, T, H, W) uint8 -> (B, L, D) without gradient, `chunk_size` snippets at a time.

    A frozen encoder runs without dropout, so `snippet_seeds` is not used.
    """
    with torch.no_grad():
        return encode_chunked(encoder, frames, snippet_seeds=None, chunk_size=chunk_size, views=views)
