"""Layers over the map of proposals (B, C, D, L), blind to proposals that do not exist."""

import torch.nn.functional as F
from torch import Tensor, nn


class MapConv(nn.Module):
    """Convolution over the map with proposals that are not valid counting as zero; keeps its size."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, cells: Tensor) -> Tensor:
        """x (B, C, D, L), cells (B, D, L) bool -> (B, C', D, L)."""
        if self.conv.kernel_size[0] > 1:
            x = x.masked_fill(~cells[:, None], 0.0)
        return self.conv(x)


class MapHead(nn.Module):
    """aligned features -> convolutions with ReLU -> regression, classification and perhaps label logits.

    The first of `kernels` narrows to the map's width.
    """

    def __init__(self, in_channels: int, width: int, *, kernels: tuple[int, ...], num_labels: int) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.layers = nn.ModuleList(
            MapConv(in_channels if place == 0 else width, width, kernel=kernel)
            for place, kernel in enumerate(kernels)
        )
        self.output = nn.Conv2d(width, 2 + num_labels, 1)

    def forward(self, aligned: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """aligned (B, O, D, L), cells (B, D, L) -> logits (B, D, L), (B, D, L) and (B, K, D, L) or None."""
        x = F.relu(aligned)
        for layer in self.layers:
            x = F.relu(layer(x, cells))
        out = self.output(x)
        return out[:, 0], out[:, 1], out[:, 2:] if self.num_labels else None
