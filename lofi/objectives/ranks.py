"""What objectives ask of the other ranks: tensors averaged, rows collected."""

import torch
from torch import Tensor, distributed


def num_ranks() -> int:
    """1 where no process group was joined."""
    is_joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if is_joined else 1


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of a tensor without gradient over the ranks, element by element; the tensor itself stays as it is. Collective.

    A loss divided by the mean of its count, averaged over ranks, is that of one rank.
    """
    if num_ranks() == 1:
        return values
    summed = values.clone()
    distributed.all_reduce(summed)
    return summed / num_ranks()


def rows_of_all_ranks(rows: Tensor) -> Tensor:
    """(N, D) of every rank, one after another: (ranks x N, D), the same on all. No gradient passes. Collective."""
    if num_ranks() == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(num_ranks())]
    distributed.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)
