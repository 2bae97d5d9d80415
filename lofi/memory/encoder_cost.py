"""What encoding costs in floating-point operations, and how often each gradient path pays for it."""

import math
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lofi.fidelity import Fidelity

BACKWARD = 2.0
"""A backward pass costs about two forward passes: the gradients of inputs and of weights."""


def snippet_flops(encoder: nn.Module, fidelity: Fidelity) -> int:
    """Floating-point operations of encoding one snippet, by PyTorch's counter. Runs on fake tensors as on real ones."""
    frames = torch.zeros(1, 3, fidelity.frames, fidelity.height, fidelity.width, dtype=torch.uint8)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        encoder(frames)
    return int(counter.get_total_flops())


def passes_per_snippet(gradient: str, config: Any, *, num_snippets: int) -> float:
    """Forward passes (a backward pass counts two) that a gradient path makes of each snippet, recomputation counted.

    Frozen stages are counted as if they learned. Args: num_snippets: of a step on one rank.
    """
    if gradient == "joint":
        return 1 + BACKWARD
    if gradient == "checkpointed":
        return 2 + BACKWARD
    if gradient == "chunked":
        chunks = math.ceil(num_snippets / config.chunk_size)
        return 1 + (1 if config.checkpoint_blocks else 0) + (chunks - 1) / chunks + BACKWARD
    if gradient == "sampled":
        return 1 + config.share * (BACKWARD + (1 if config.recompute else 0))
    return 1.0
