"""The queue of earlier keys and the loss of MoCo (He et al., CVPR 2020, arXiv:1911.05722; v2: arXiv:2003.04297)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NO_OWNER = -1


class KeyQueue(nn.Module):
    """The newest `size` keys, first in first out, and whose they are. Buffers that no exported weights hold, but every
    checkpoint."""

    keys: Tensor
    """(Q, d), of norm 1; random ones at first."""
    owners: Tensor
    """(Q,) int64, a number for the video of each key; NO_OWNER of the random ones."""
    next_place: Tensor
    """() int64."""

    def __init__(self, *, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, width), dim=1), persistent=False)
        self.register_buffer("owners", torch.full((size,), NO_OWNER), persistent=False)
        self.register_buffer("next_place", torch.zeros((), dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def push(self, keys: Tensor, owners: Tensor) -> None:
        """Keys (N, d), of norm 1, and owners (N,): in place of the oldest N; of more than Q the first Q are taken."""
        size = len(self.keys)
        keys, owners = keys[:size], owners[:size]
        places = (self.next_place + torch.arange(len(keys), device=self.keys.device)) % size
        self.keys.index_copy_(0, places, keys.to(self.keys.dtype))
        self.owners.index_copy_(0, places, owners.to(self.owners.device))
        self.next_place.copy_((self.next_place + len(keys)) % size)


def contrast(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    temperature: float,
    is_negative: Tensor,
    own_negatives: Tensor | None = None,
    own_mask: Tensor | None = None,
) -> Tensor:
    """Logits of InfoNCE, the right answer first.

    Args:
        queries: (B, R, d), of norm 1, as all others.
        positives: (B, R, d), one for each query.
        negatives: (Q, d), for all queries.
        temperature: similarities are divided by it.
        is_negative: (B, Q) bool, False where a key is none for this sample.
        own_negatives: (B, M, d), more for the queries of each sample.
        own_mask: (B, R, M) bool, False where one of those is none.

    Returns:
        (B, R, 1 + Q (+ M)).
    """
    others = queries @ negatives.to(queries).T
    parts = [
        (queries * positives).sum(dim=-1, keepdim=True),
        others.masked_fill(~is_negative[:, None], -torch.inf),
    ]
    if own_negatives is not None:
        assert own_mask is not None
        own = queries @ own_negatives.transpose(1, 2)
        parts.append(own.masked_fill(~own_mask, -torch.inf))
    return torch.cat(parts, dim=-1) / temperature
