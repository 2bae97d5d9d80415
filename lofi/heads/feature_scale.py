"""Features on the scale that a head expects: each element less its mean, divided by its standard deviation.

Snippet encoders leave features that share a large mean and differ by little (cosines of 0.99 and more between any two); a linear
probe standardises them and sees what they hold, a head that is trained for few steps does not. The moments are those of the
training videos' features, and are part of the weights, so that evaluation and prediction use them unchanged.
"""

import torch
from torch import Tensor, nn


class FeatureScale(nn.Module):
    """(..., D) -> the same shape; the identity until `set_moments`."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    @torch.no_grad()
    def set_moments(self, mean: Tensor, deviation: Tensor) -> None:
        """(D,) each."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation
