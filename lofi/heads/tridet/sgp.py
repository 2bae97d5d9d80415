"""The scalable-granularity perception block: convolutions in place of self-attention.

Source: Shi et al., "TriDet: Temporal Action Detection with Relative Boundary Modeling", CVPR 2023, section 3.2, with the order
of operations of its code. An instant branch fc(x) phi(mean of x over time) and a window branch (conv_w(x) + conv_kw(x)) psi(x),
all depthwise, then a perceptron under group norm.
What differs: means and norms are over valid positions alone, so that a padded window gives the features of the unpadded one.

Shapes: x is (B, C, L) float, mask is (B, L) bool, True where valid. A stride of 2 makes L into ceil(L / 2).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lofi.heads.actionformer.blocks import ChannelNorm, MaskedConv, ScaledPath, downsampled
from lofi.heads.float_range import at_least_float32
from lofi.heads.masking import masked


class MaskedGroupNorm(nn.Module):
    """Group norm over the channels of a group and the valid positions of a window."""

    def __init__(self, groups: int, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """What stands at masked positions of the result means nothing."""
        grouped = at_least_float32(masked(x, mask)).unflatten(1, (self.groups, -1))  # (B, G, C / G, L)
        count = (mask.sum(dim=1) * grouped.shape[2]).clamp(min=1)[:, None, None, None]
        mean = grouped.sum(dim=(2, 3), keepdim=True) / count
        centred = (grouped - mean) * mask[:, None, None, :]
        variance = centred.square().sum(dim=(2, 3), keepdim=True) / count
        normed = (centred * torch.rsqrt(variance + self.eps)).flatten(1, 2)
        return (normed * self.weight[:, None] + self.bias[:, None]).to(x.dtype)


class SgpBlock(nn.Module):
    """Downsampling, then both branches, then the perceptron, each with a scaled residual path."""

    def __init__(
        self,
        width: int,
        *,
        window: int,
        window_scale: float,
        perceptron_width: int,
        norm_groups: int,
        stride: int,
        drop_path: float,
        init_std: float,
    ) -> None:
        super().__init__()
        self.stride = stride
        wide = round((window + 1) * window_scale)
        wide += 1 - wide % 2  # odd, and greater than the window
        self.norm = ChannelNorm(width)

        def depthwise(kernel: int) -> MaskedConv:
            conv = MaskedConv(width, width, kernel=kernel, groups=width)
            nn.init.normal_(conv.conv.weight, std=init_std)
            return conv

        self.gate, self.instant, self.instant_gate = depthwise(window), depthwise(1), depthwise(1)
        self.narrow, self.wide = depthwise(window), depthwise(wide)
        self.branch_path = ScaledPath(width, drop=drop_path)
        self.perceptron_norm = MaskedGroupNorm(norm_groups, width)
        self.perceptron_in = nn.Conv1d(width, perceptron_width, 1)
        self.perceptron_out = nn.Conv1d(perceptron_width, width, 1)
        self.perceptron_path = ScaledPath(width, drop=drop_path)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, L), mask (B, L) -> the same at ceil(L / stride); the result is zero where masked."""
        x, mask = downsampled(masked(x, mask), mask, stride=self.stride)
        x = masked(x, mask)
        normed = masked(self.norm(x), mask)
        mean = normed.sum(dim=2, keepdim=True) / mask.sum(dim=1).clamp(min=1)[:, None, None].to(x.dtype)
        everywhere = torch.ones_like(mask[:, :1])
        instant = self.instant(normed, mask) * F.relu(self.instant_gate(mean, everywhere))
        window = (self.narrow(normed, mask) + self.wide(normed, mask)) * self.gate(normed, mask)
        x = x + self.branch_path(instant + window + normed)
        out = self.perceptron_out(F.gelu(self.perceptron_in(self.perceptron_norm(x, mask))))
        return masked(x + self.perceptron_path(out), mask), mask
