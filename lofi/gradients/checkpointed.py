"""Checkpointed: joint, but each block of the encoder keeps its input alone and recomputes in the backward pass.

Activation checkpointing (Chen et al. 2016, arXiv:1604.06174) in PyTorch's non-reentrant form, which every ZeRO stage
takes. Exact as long as norm layers are frozen or per sample: a batch norm in training would count its statistics twice.
"""

from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lofi.batches import Views
from lofi.gradients.joint import encode_joint
from lofi.gradients.offload import saved_on_host


def checkpoint_block(block: nn.Module, *arguments: Any) -> Any:
    """Run a block, keeping its input alone: a `protocols.RunBlock`."""
    return checkpoint(block, *arguments, use_reentrant=False)


def encode_checkpointed(
    encoder: nn.Module,
    frames: Tensor,
    *,
    snippet_seeds: Tensor | None,
    offload: bool = False,
    views: Views | None = None,
) -> Tensor:
    """As `encode_joint`: frames (B, L, C, T, H, W) uint8 -> (B, L, D). `offload`: the blocks' inputs wait where the frames
    came from, on the host."""
    with saved_on_host(frames.device) if offload else nullcontext():
        return encode_joint(
            encoder, frames, snippet_seeds=snippet_seeds, run_block=checkpoint_block, views=views
        )
