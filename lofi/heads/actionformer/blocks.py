"""Masked convolution, local self-attention and the transformer block of ActionFormer.

Source: Zhang, Wu and Li, "ActionFormer: Localizing Moments of Actions with Transformers", ECCV 2022, section 3.2
(local multi-head self-attention, channel-wise scaling of both branches, downsampling by a strided depthwise convolution);
relative position biases as its code has them (`use_rel_pe`, in local attention alone). What differs: positions are
masked before each operator that mixes positions instead of after it, so that whatever stands at a masked position, NaN
included, cannot reach a valid one, and a window padded to a greater length gives the features of the unpadded one.

Shapes: x is (B, C, L) float, mask is (B, L) bool, True where valid. A stride of 2 makes L into ceil(L / 2).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lofi.heads.masking import masked

DENSE_MAX_LENGTH = 128
"""Up to this L the whole (L, L) score matrix with a band mask is faster than blocks of queries."""
QUERY_BLOCK = 64
"""Queries that share one stretch of keys when L is greater: memory is L x (64 + window), not L x L."""


def local_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor,
    window: int | None,
    bias: Tensor | None = None,
) -> Tensor:
    """Multi-head attention of each position to the valid positions at most (window - 1) / 2 away.

    Args:
        query: (B, H, L, d), and key and value of the same shape; H heads.
        mask: (B, L) bool. A masked key is seen by nobody, except by itself, so that every row has a finite result.
        window: odd number of positions; None is full attention.
        bias: (H, window) added to the scaled products of query i and key j, number j - i + (window - 1) / 2 of its head; only
            with a window.

    Returns:
        (B, H, L, d). What stands at masked positions is finite and means nothing.
    """
    length = query.shape[2]
    if window is None or (bias is None and window >= 2 * length - 1):
        allowed = mask[:, None, :] | torch.eye(length, dtype=torch.bool, device=mask.device)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed[:, None])
    if length <= DENSE_MAX_LENGTH:
        index = torch.arange(length, device=mask.device)
        distance = (index[:, None] - index[None, :]).abs()
        allowed = ((mask[:, None, :] & (distance <= window // 2)) | (distance == 0))[:, None]
        if bias is not None:
            allowed = _biased(allowed, bias, reach=window // 2, ahead=0)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
    return _block_attention(query, key, value, mask=mask, reach=window // 2, bias=bias)


def _biased(allowed: Tensor, bias: Tensor, *, reach: int, ahead: int) -> Tensor:
    """(N, 1, Q, S) bool, bias (H, 2 reach + 1) -> (N, H, Q, S): the bias of each query and key, -inf where it is not allowed.

    The first key lies `ahead` positions before the first query.
    """
    queries, keys = allowed.shape[2:]
    # By distance from 1 - Q - ahead to S - 1 - ahead, then a stretch of it for each query. No index, whose backward adds in
    # no fixed order.
    by_distance = F.pad(bias, (queries - 1 + ahead - reach, keys - 1 - ahead - reach))
    return torch.where(allowed, by_distance.unfold(1, keys, 1).flip(1), -torch.inf)


def _block_attention(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor, reach: int, bias: Tensor | None
) -> Tensor:
    """The same as the band mask, computed for blocks of queries, each with the keys that it can reach."""
    batch, heads, length, width = query.shape
    num_blocks = -(-length // QUERY_BLOCK)
    tail = num_blocks * QUERY_BLOCK - length
    span = QUERY_BLOCK + 2 * reach

    def blocks_of_keys(x: Tensor) -> Tensor:
        spans = F.pad(x, (0, 0, reach, reach + tail)).unfold(2, span, QUERY_BLOCK)  # (B, H, blocks, d, span)
        return spans.permute(0, 2, 1, 4, 3).reshape(batch * num_blocks, heads, span, width)

    queries = (
        F.pad(query, (0, 0, 0, tail)).unflatten(2, (num_blocks, QUERY_BLOCK)).transpose(1, 2).flatten(0, 1)
    )
    valid = F.pad(mask, (reach, reach + tail), value=False).unfold(1, span, QUERY_BLOCK)  # (B, blocks, span)
    offset = (
        torch.arange(span, device=mask.device)
        - torch.arange(QUERY_BLOCK, device=mask.device)[:, None]
        - reach
    )
    allowed = ((valid[:, :, None, :] & (offset.abs() <= reach)) | (offset == 0)).flatten(0, 1)[:, None]
    if bias is not None:
        allowed = _biased(allowed, bias, reach=reach, ahead=reach)
    out = F.scaled_dot_product_attention(
        queries, blocks_of_keys(key), blocks_of_keys(value), attn_mask=allowed
    )
    return out.unflatten(0, (batch, num_blocks)).transpose(1, 2).flatten(2, 3)[:, :, :length]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B, C, L), each position by itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class MaskedConv(nn.Module):
    """Convolution over valid positions: masked ones count as zero. Keeps L (or halves it: `stride`)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias
        )
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.conv(masked(x, mask))


class ConvNormRelu(nn.Module):
    """Masked convolution, layer norm over channels, ReLU: the layer of the input projection and of both heads."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int) -> None:
        super().__init__()
        self.conv = MaskedConv(in_channels, out_channels, kernel=kernel, bias=False)
        self.norm = ChannelNorm(out_channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x, mask)))


class LocalAttention(nn.Module):
    """Self-attention whose queries, keys and values come from depthwise convolutions, strided to downsample."""

    relative_positions: nn.Parameter | None

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        window: int | None,
        stride: int,
        dropout: float,
        relative_positions: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads, self.window, self.stride = num_heads, window, stride
        self.convs = nn.ModuleList(
            MaskedConv(width, width, kernel=3, stride=stride, groups=width, bias=False) for _ in range(3)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.projections = nn.ModuleList(_linear(width, width) for _ in range(3))
        self.output = _linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.relative_positions = None
        if relative_positions and window is not None:
            self.relative_positions = nn.Parameter(torch.empty(num_heads, window))
            nn.init.trunc_normal_(self.relative_positions, std=(2.0 / width) ** 0.5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, C, L), mask (B, L) -> (B, C, ceil(L / stride))."""
        query, key, value = (
            project(norm(conv(x, mask).transpose(1, 2))).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for conv, norm, project in zip(self.convs, self.norms, self.projections, strict=True)
        )
        out = local_attention(
            query,
            key,
            value,
            mask=mask[:, :: self.stride],
            window=self.window,
            bias=self.relative_positions,
        )
        return self.dropout(self.output(out.transpose(1, 2).flatten(2))).transpose(1, 2)


class ScaledPath(nn.Module):
    """A residual branch, scaled per channel (from nearly nothing at first) and in training dropped for whole samples."""

    def __init__(self, width: int, *, drop: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((width, 1), 1e-4))
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale
        if not self.training or self.drop == 0.0:
            return x
        kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.drop
        return x * kept.to(x.dtype) / (1.0 - self.drop)


def downsampled(x: Tensor, mask: Tensor, *, stride: int) -> tuple[Tensor, Tensor]:
    """Greatest valid value around every `stride`-th position: x (B, C, L) -> (B, C, ceil(L / stride)), and its mask."""
    if stride == 1:
        return x, mask
    lowest = x.masked_fill(~mask[:, None, :], torch.finfo(x.dtype).min)
    pooled = F.max_pool1d(lowest, stride + 1, stride=stride, padding=(stride + 1) // 2)
    return pooled, mask[:, ::stride]


class TransformerBlock(nn.Module):
    """Pre-norm block: local attention (with the downsampling), then a two-layer perceptron."""

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        window: int | None,
        stride: int = 1,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        relative_positions: bool = False,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.attention_norm = ChannelNorm(width)
        self.attention = LocalAttention(
            width,
            num_heads=num_heads,
            window=window,
            stride=stride,
            dropout=dropout,
            relative_positions=relative_positions,
        )
        self.attention_path = ScaledPath(width, drop=drop_path)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width),
            _linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            _linear(4 * width, width),
            nn.Dropout(dropout),
        )
        self.perceptron_path = ScaledPath(width, drop=drop_path)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, L), mask (B, L) -> the same at ceil(L / stride); the result is zero where masked."""
        x = masked(x, mask)
        out = self.attention(self.attention_norm(x), mask)
        x, mask = downsampled(x, mask, stride=self.stride)
        x = masked(x, mask) + self.attention_path(out)
        x = x + self.perceptron_path(self.perceptron(x.transpose(1, 2)).transpose(1, 2))
        return masked(x, mask), mask


def _linear(in_width: int, out_width: int) -> nn.Linear:
    linear = nn.Linear(in_width, out_width)
    nn.init.zeros_(linear.bias)
    return linear
