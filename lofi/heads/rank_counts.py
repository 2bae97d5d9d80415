"""Counts that a loss is divided by, the same on all ranks."""

import torch
from torch import Tensor, distributed


def rank_share(counts: Tensor) -> Tensor:
    """Counts of this rank's batch -> its share of those of all ranks together: their sum by the number of ranks.

    A sum over this rank's batch divided by the share, averaged over the ranks as DeepSpeed does, is the loss of one rank on
    the whole batch. Collective where several ranks train. Any shape, float.
    """
    num_ranks = ranks_together()
    if num_ranks > 1:
        counts = counts.clone()
        distributed.all_reduce(counts)
    return counts / num_ranks


def ranks_together() -> int:
    """How many ranks train together."""
    is_shared = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if is_shared else 1


def divisor(count: Tensor) -> Tensor:
    """1 where nothing was counted, so that a sum over nothing stays 0. Any shape."""
    return torch.where(count > 0, count, 1.0)
