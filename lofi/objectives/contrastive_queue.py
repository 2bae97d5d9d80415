"""The queue of earlier keys and the loss of MoCo (He et al., CVPR 2020, arXiv:1911.05722; v2: arXiv:2003.04297)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeyQueue(nn.Module):
    """The newest `size` keys, first in first out. Buffers that no exported weights hold, but every checkpoint."""

    keys: Tensor
    """(Q, d), of norm 1; random ones at first."""
    next_place: Tensor
    """() int64."""

    def __init__(self, *, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, width), dim=1), persistent=False)
        self.register_buffer("next_place", torch.zeros((), dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """(N, d), of norm 1, N at most Q: in place of the oldest N."""
        size = len(self.keys)
        places = (self.next_place + torch.arange(len(keys), device=self.keys.device)) % size
        self.keys.index_copy_(0, places, keys.to(self.keys.dtype))
        self.next_place.copy_((self.next_place + len(keys)) % size)


def contrast(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    temperature: float,
    own_negatives: Tensor | None = None,
    own_mask: Tensor | None = None,
) -> Tensor:
    """Logits of InfoNCE, the right answer first.

    Args:
        queries: (B, R, d), of norm 1, as all others.
        positives: (B, R, d), one for each query.
        negatives: (Q, d), for all queries.
        temperature: similarities are divided by it.
        own_negatives: (B, M, d), more for the queries of each sample.
        own_mask: (B, M) bool, False where one of those is none.

    Returns:
        (B, R, 1 + Q (+ M)).
    """
    parts = [(queries * positives).sum(dim=-1, keepdim=True), queries @ negatives.to(queries).T]
    if own_negatives is not None:
        assert own_mask is not None
        own = queries @ own_negatives.transpose(1, 2)
        parts.append(own.masked_fill(~own_mask[:, None], -torch.inf))
    return torch.cat(parts, dim=-1) / temperature
