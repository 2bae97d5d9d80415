"""Joint: all snippets of the batch are encoded at once and every activation is kept for the backward pass.

The plain way, and the reference that the other gradient paths are tested against.
"""

from torch import Tensor, nn

from lofi.batches import Views
from lofi.gradients.prefetch import show
from lofi.protocols import RunBlock, call_block


def encode_joint(
    encoder: nn.Module,
    frames: Tensor,
    *,
    snippet_seeds: Tensor | None,
    run_block: RunBlock = call_block,
    views: Views | None = None,
) -> Tensor:
    """Encode B x L snippets in one call.

    Args:
        encoder: a `protocols.SnippetEncoder`.
        frames: (B, L, C, T, H, W) uint8, on any device.
        snippet_seeds: (B, L) int64 or None.
        run_block: how the encoder runs its blocks.
        views: what each window shows of its frames; None: all.

    Returns:
        (B, L, D) on the encoder's device.
    """
    num_windows, num_snippets = frames.shape[:2]
    device = next(encoder.parameters()).device
    frames_NCTHW = frames.flatten(0, 1).to(device, non_blocking=True)
    if views is not None:
        frames_NCTHW = show(frames_NCTHW, views.to(device).per_snippet(num_snippets))
    seeds_N = None if snippet_seeds is None else snippet_seeds.flatten().to(device)
    features_ND: Tensor = encoder(frames_NCTHW, snippet_seeds=seeds_N, run_block=run_block)
    return features_ND.unflatten(0, (num_windows, num_snippets))
