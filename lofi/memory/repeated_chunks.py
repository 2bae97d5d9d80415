"""Chunks that are alike run once: of a window's many chunks the first and the last few run, the others are stood in for.

Every full chunk makes the same tensors. In the forward pass what is alive before a chunk only grows from chunk to chunk
(by its features), so that the last full chunk, which runs, reaches the highest. In the backward pass the last chunk comes
first and makes the weights' gradients; the one before it is recomputed and adds to them, and what is alive only falls from
there on. The first chunk adds to them last, which makes its sums the gradients, and those before workspace. So a step of
any number of chunks has the peak of the step in which the chunks between leave their features and nothing else, which is
what a stand-in does. Chunks with gradient and chunks without are told apart, and of those without the last three run: the
highest may be the one whose successor's frames, copied meanwhile, are still a full chunk's. Tests compare both, to the byte.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lofi.batches import Views
from lofi.gradients import prefetch
from lofi.gradients.prefetch import show

FIRST, LAST, LAST_WITHOUT_GRADIENT = 1, 2, 3
"""Chunks that run, at either end."""


def num_chunks(num_snippets: int, *, chunk_size: int) -> int:
    """Chunks of `chunk_size` snippets, the last one perhaps smaller."""
    return math.ceil(num_snippets / chunk_size)


@contextmanager
def stand_in_for_repeated_chunks(
    encoder: nn.Module, *, chunks: int, drawn: int, recomputed: int
) -> Iterator[None]:
    """Inside, one step's calls of the encoder, one per chunk and again when it is recomputed, run as said above.

    Chunks that carry gradient and are not recomputed always run: what they leave behind is kept.

    Args:
        encoder: called once per chunk in the forward pass, in order, and in the opposite order in the backward pass.
        chunks: how many.
        drawn: how many of them carry gradient; they come first (`fake` draws so).
        recomputed: how many of those the backward pass recomputes: the first.
    """
    standing_in = _StandIn(encoder.forward, chunks=chunks, drawn=drawn, recomputed=recomputed)
    encoder.forward, prefetch.show = standing_in, standing_in.show
    try:
        yield
    finally:
        del encoder.forward
        prefetch.show = show


class _StandIn:
    def __init__(self, run: Any, *, chunks: int, drawn: int, recomputed: int) -> None:
        self._run = run
        self._chunks = chunks
        self._drawn = drawn
        self._recomputed = recomputed
        self._calls = 0
        self._recomputed_so_far = 0
        self._shape_and_dtype: tuple[torch.Size, torch.dtype] | None = None

    def __call__(self, frames: Tensor, **options: Any) -> Tensor:
        chunk = self._next_chunk()
        if _is_recomputation():
            self._recomputed_so_far += 1
        else:
            self._calls += 1
        if self._is_repeated(chunk):
            return self._features(len(frames))
        features: Tensor = self._run(frames, **options)
        self._shape_and_dtype = (features.shape[1:], features.dtype)
        return features

    def show(self, frames: Tensor, views: Views) -> Tensor:
        """`prefetch.show`, which makes a chunk's frames just before they are encoded."""
        if self._is_repeated(self._next_chunk()):
            return frames[..., : views.height, : views.width]
        return show(frames, views)

    def _next_chunk(self) -> int:
        if _is_recomputation():
            return self._recomputed - self._recomputed_so_far - 1
        return self._calls

    def _is_repeated(self, chunk: int) -> bool:
        if chunk < self._drawn:
            return FIRST <= chunk < min(self._recomputed, self._drawn - LAST)
        return self._drawn + FIRST <= chunk < self._chunks - LAST_WITHOUT_GRADIENT

    def _features(self, num_snippets: int) -> Tensor:
        """(N, D) or (N, R, D), with a graph that saves something, so that a checkpoint around it recomputes as it would; its
        one leaf has no elements, so that nothing else is left behind."""
        assert self._shape_and_dtype is not None
        shape, dtype = self._shape_and_dtype
        features = torch.zeros(num_snippets, *shape, dtype=dtype)
        if not torch.is_grad_enabled():
            return features
        return features * torch.zeros(0, dtype=dtype, requires_grad=True).sum()


def _is_recomputation() -> bool:
    """Whether autograd runs: what encodes then, encodes again."""
    return torch._C._current_graph_task_id() != -1
