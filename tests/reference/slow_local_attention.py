"""Local attention, one query at a time."""

import torch
from torch import Tensor


def slow_local_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor,
    window: int | None,
    bias: Tensor | None = None,
) -> Tensor:
    """(B, H, L, d) three times, mask (B, L) and bias (H, window) of the relative positions, the earliest key first ->
    (B, H, L, d); zero where the query is masked."""
    batch, heads, length, width = query.shape
    out = torch.zeros_like(query)
    for b in range(batch):
        for h in range(heads):
            for i in range(length):
                if not mask[b, i]:
                    continue
                seen = [
                    j
                    for j in range(length)
                    if mask[b, j] and (window is None or abs(i - j) <= (window - 1) // 2)
                ]
                logits = torch.stack([query[b, h, i] @ key[b, h, j] / width**0.5 for j in seen])
                if bias is not None and window is not None:
                    logits = logits + torch.stack([bias[h, (window - 1) // 2 + j - i] for j in seen])
                for weight, j in zip(torch.softmax(logits, dim=0), seen, strict=True):
                    out[b, h, i] += weight * value[b, h, j]
    return out
