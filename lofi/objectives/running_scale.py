"""Features brought to zero mean and unit variance, element by element, by what they have been so far.

Features of a snippet encoder share a large mean (after a ReLU and a mean over places, cosines of 0.999 between any two), so that a
contrast of their directions starts near the collapsed solution and can stay there. Batch norm in the projection, as others do
(SimCLR, arXiv:2002.05709; MoCo-v3, arXiv:2104.02057), would let query and key recognise one another by their batch; running
moments do not, and are the same for any chunks and, averaged, for any ranks.
"""

import torch
from torch import Tensor, nn

from lofi.objectives.ranks import mean_over_ranks

LEAST_VARIANCE = 1e-8


class RunningScale(nn.Module):
    """(..., D) -> the same shape. As it is before the first step. Buffers that no exported weights hold, but every checkpoint."""

    moments: Tensor
    """(2, D): running sums of weights times the mean and the mean square of a step's rows."""
    weight: Tensor
    """() the sum of those weights; 0 before the first step."""

    def __init__(self, width: int, *, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("moments", torch.zeros(2, width), persistent=False)
        self.register_buffer("weight", torch.zeros(()), persistent=False)

    @torch.no_grad()
    def follow(self, features: Tensor, *, is_valid: Tensor) -> None:
        """Take a step's features (B, ..., D), of all ranks, into account: of the windows that `is_valid`, (B,) bool, names.
        A step without any changes nothing. Collective."""
        rows_BMD = features.detach().flatten(1, -2).to(self.moments.dtype)
        rows_BMD = rows_BMD.masked_fill(~is_valid[:, None, None], 0)
        sums = mean_over_ranks(torch.stack([rows_BMD.sum(dim=(0, 1)), rows_BMD.square().sum(dim=(0, 1))]))
        count = mean_over_ranks(is_valid.sum().to(sums) * rows_BMD.shape[1])
        share = (1 - self.momentum) * (count > 0)
        self.moments.lerp_(sums / torch.where(count > 0, count, 1), share)
        self.weight.lerp_(torch.ones_like(self.weight), share)

    def forward(self, features: Tensor) -> Tensor:
        """(..., D) less the mean, divided by the standard deviation, in fp32 at least: in half precision the mean would be rounded
        by more than features differ. No gradient passes through those two."""
        is_known = self.weight > 0
        mean, square = self.moments / torch.where(is_known, self.weight, 1)
        deviation = (square - mean.square()).clamp(min=LEAST_VARIANCE).sqrt()
        deviation = torch.where(is_known, deviation, 1)
        return (features - mean) / deviation
