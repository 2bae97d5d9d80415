"""The feature pyramid: input projection, stem at full rate, then levels at half the rate each, laid end to end.

Source: ActionFormer (ECCV 2022), section 3.2. The levels lie in one sequence, a few masked positions between them, so
that the shared heads run once over all levels; a masked convolution cannot carry anything over such a gap, hence the
result equals running the heads level by level.

Shapes: level p of L snippets has ceil(L / 2^p) positions; M is the length of all of them with the gaps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lofi.heads.actionformer.blocks import ChannelNorm, ConvNormRelu, MaskedConv
from lofi.heads.masking import masked


@dataclass(frozen=True, kw_only=True)
class Locations:
    """The M positions of a pyramid, the same for every window of a batch.

    centre: (M,) time of the position, in snippet index (the middle of a snippet i is i + 0.5). stride: (M,) the level's
    stride, snippets. lower, upper: (M,) the level regresses boundary distances in [lower, upper), snippets. level: (M,)
    int64. In a gap between levels the numbers are those of the level before it; the mask is False there.
    """

    centre: Tensor
    stride: Tensor
    lower: Tensor
    upper: Tensor
    level: Tensor


def pyramid_locations(
    num_snippets: int,
    *,
    ranges: Sequence[tuple[float, float]],
    gap: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Locations:
    """The locations of a pyramid over `num_snippets`; `ranges` are its levels' [lower, upper)."""
    centres, level_of, lowers, uppers = [], [], [], []
    for number, (lower, upper) in enumerate(ranges):
        count = -(-num_snippets // 2**number) + (gap if number < len(ranges) - 1 else 0)
        centres.append(torch.arange(count, device=device, dtype=dtype) * 2**number + 0.5)
        level_of.append(torch.full((count,), number, device=device))
        lowers.append(torch.full((count,), lower, device=device, dtype=dtype))
        uppers.append(torch.full((count,), upper, device=device, dtype=dtype))
    level = torch.cat(level_of)
    return Locations(
        centre=torch.cat(centres),
        stride=2.0 ** level.to(dtype),
        lower=torch.cat(lowers),
        upper=torch.cat(uppers),
        level=level,
    )


def sine_positions(x: Tensor) -> Tensor:
    """The sine table of Vaswani et al. (2017, section 3.5) by snippet index, divided by sqrt(C): (C, L) for x (B, C, L)."""
    width, length = x.shape[1:]
    pair = torch.arange(width, device=x.device) // 2
    angle = torch.arange(length, device=x.device) / 10000.0 ** (2.0 * pair / width)[:, None]
    is_even = (torch.arange(width, device=x.device) % 2 == 0)[:, None]
    return (torch.where(is_even, angle.sin(), angle.cos()) / width**0.5).to(x.dtype)


class StreamProjections(nn.Module):
    """Features side by side, each projected by itself: (B, D, L) -> (B, C, L), position by position."""

    def __init__(self, streams: Sequence[Sequence[int]], *, feature_width: int) -> None:
        """`streams` are [width, channels] of each; raises ValueError where the widths are not `feature_width` together."""
        super().__init__()
        self.widths = [width for width, _ in streams]
        if sum(self.widths) != feature_width:
            raise ValueError(
                f"head.streams have widths {self.widths}, {sum(self.widths)} together, but the features have width "
                f"{feature_width}."
            )
        self.projections = nn.ModuleList(MaskedConv(width, channels, kernel=1) for width, channels in streams)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        streams = zip(self.projections, x.split(self.widths, dim=1), strict=True)
        return torch.cat([project(stream, mask) for project, stream in streams], dim=1)


class Pyramid(nn.Module):
    """(B, D, L) features -> (B, C, M) pyramid features and their (B, M) mask."""

    def __init__(
        self,
        *,
        feature_width: int,
        width: int,
        embed_layers: int,
        embed_kernel: int,
        streams: Sequence[Sequence[int]] | None,
        position_embedding: bool,
        stem_layers: int,
        levels: int,
        gap: int,
        make_block: Callable[[int, int], nn.Module],
    ) -> None:
        """`make_block(level, stride)` makes a block: (x, mask) -> the same at ceil(L / stride); others as in the config."""
        super().__init__()
        self.gap = gap
        self.position_embedding = position_embedding
        self.streams = None if streams is None else StreamProjections(streams, feature_width=feature_width)
        embedded = feature_width if streams is None else width
        self.embedding = nn.ModuleList(
            ConvNormRelu(embedded if layer == 0 else width, width, kernel=embed_kernel)
            for layer in range(embed_layers)
        )

        self.stem = nn.ModuleList(make_block(0, 1) for _ in range(stem_layers))
        self.downsampling = nn.ModuleList(make_block(level, 2) for level in range(1, levels))
        self.level_norms = nn.ModuleList(ChannelNorm(width) for _ in range(levels))

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = features if self.streams is None else self.streams(features, mask)
        for layer in self.embedding:
            x = layer(x, mask)
        if self.position_embedding:
            x = x + sine_positions(x)
        x = masked(x, mask)
        for block in self.stem:
            x, mask = block(x, mask)
        outputs, masks = [self.level_norms[0](x)], [mask]
        gap_x = x.new_zeros(*x.shape[:2], self.gap)
        gap_mask = mask.new_zeros(mask.shape[0], self.gap)
        for block, norm in zip(self.downsampling, list(self.level_norms)[1:], strict=True):
            x, mask = block(x, mask)
            outputs += [gap_x, norm(x)]
            masks += [gap_mask, mask]
        return torch.cat(outputs, dim=2), torch.cat(masks, dim=1)
