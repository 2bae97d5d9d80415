"""Chunks that are alike run once: of a window's many chunks the first and the last three run, the others are stood in for.

Every full chunk makes the same tensors. In the forward pass what is alive before a chunk only grows from chunk to chunk
(by its features), so that the last full chunk, which runs, reaches the highest. In the backward pass the last chunk is
recomputed first; the first of all makes the weights' gradients, the second adds to them, and what is alive only falls from
there on. So a step of any number of chunks has the peak of the step in which the chunks between leave their features and
nothing else, which is what a stand-in does. Chunks with gradient and chunks without are told apart, and of either kind the
first and the last three run. Tests compare both, to the byte.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

FIRST, LAST = 1, 3
"""Chunks that run, at either end."""


def num_chunks(num_snippets: int, *, chunk_size: int) -> int:
    """Chunks of `chunk_size` snippets, the last one perhaps smaller."""
    return math.ceil(num_snippets / chunk_size)


@contextmanager
def stand_in_for_repeated_chunks(
    encoder: nn.Module, *, chunks: int, drawn: int, recomputes: bool
) -> Iterator[None]:
    """Inside, one step's calls of the encoder, one per chunk and again when it is recomputed, run as said above.

    Chunks that carry gradient and are not recomputed always run: what they leave behind is kept.

    Args:
        encoder: called once per chunk in the forward pass, in order, and in the opposite order in the backward pass.
        chunks: how many.
        drawn: how many of them carry gradient; they come first (`fake` draws so).
        recomputes: whether the backward pass recomputes those.
    """
    run = encoder.forward
    standing_in = _StandIn(run, chunks=chunks, drawn=drawn, recomputes=recomputes)
    encoder.forward = standing_in
    try:
        yield
    finally:
        del encoder.forward


class _StandIn:
    def __init__(self, run: Any, *, chunks: int, drawn: int, recomputes: bool) -> None:
        self._run = run
        self._chunks = chunks
        self._drawn = drawn
        self._recomputes = recomputes
        self._calls = 0
        self._recomputed = 0
        self._width_and_dtype: tuple[int, torch.dtype] | None = None
        self._kept: set[int] = set()
        """Chunks that ran in the forward pass."""

    def __call__(self, frames: Tensor, **options: Any) -> Tensor:
        if torch._C._current_graph_task_id() != -1:
            if not self._recomputes:
                return self._run(frames, **options)
            self._recomputed += 1
            chunk = self._drawn - self._recomputed
            return self._run(frames, **options) if chunk in self._kept else self._features(len(frames))
        chunk, self._calls = self._calls, self._calls + 1
        first, end = (0, self._drawn) if chunk < self._drawn else (self._drawn, self._chunks)
        is_repeated = first + FIRST <= chunk < end - LAST
        is_kept = torch.is_grad_enabled() and not self._recomputes
        if not is_repeated or is_kept:
            self._kept.add(chunk)
            features: Tensor = self._run(frames, **options)
            self._width_and_dtype = (features.shape[1], features.dtype)
            return features
        return self._features(len(frames))

    def _features(self, num_snippets: int) -> Tensor:
        """(N, D), with a graph that saves something, so that a checkpoint around it recomputes as it would; its one leaf
        has no elements, so that nothing else is left behind."""
        assert self._width_and_dtype is not None
        width, dtype = self._width_and_dtype
        features = torch.zeros(num_snippets, width, dtype=dtype)
        if not torch.is_grad_enabled():
            return features
        return features * torch.zeros(0, dtype=dtype, requires_grad=True).sum()
