"""Features of every proposal at once, and the first layer over them, without ever holding those features.

Sources: the boundary-matching layer of BMN (Lin et al., ICCV 2019, section 3.3: points sampled evenly in a proposal and its
surroundings, by a product with a constant matrix) and SGAlign of G-TAD (Xu et al., CVPR 2020, algorithm 1: RoIAlign in one
dimension). Both read a sequence at N bins per proposal, by linear interpolation, and then run a layer over all (C x N) values
of a proposal. Both steps are linear, so the layer may come first, on L snippets in place of D x L proposals:

    out[o, cell] = sum_{c,n} W[o,c,n] sum_l A[n,l,cell] x[c,l] = sum_{n,l} (sum_c W[o,c,n] x[c,l]) A[n,l,cell]

The same numbers up to rounding, and (O x N x L) + (O x D x L) values per window in place of (C x N x D x L): for G-TAD at
L = D = 100, 27 MB in place of 328 MB. A is made anew at every call: no state depends on L.

What differs from the published code: a snippet's feature stands at its middle, i + 0.5, and counts as 0 from one snippet
beyond either end, so that a window padded to a greater length gives the same features.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sampling_weights(
    num_snippets: int,
    *,
    max_duration: int,
    bins: int,
    samples_per_bin: int | None,
    context: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """How much of each snippet every bin of every proposal reads.

    Args:
        num_snippets: L.
        max_duration: D.
        bins: N, over the proposal with its context.
        samples_per_bin: points whose mean a bin is; None takes as many as the bin has snippets (RoIAlign's rule).
        context: how far the bins reach beyond either end, as a share of the proposal's length.
        dtype: of the result.
        device: of the result.

    Returns:
        (N, L, D, L): weight of snippet l (second) for bin n of the proposal of duration d + 1 that starts at s (last).
    """
    weights = _mirrored_weights(
        num_snippets,
        max_duration=max_duration,
        bins=bins,
        samples_per_bin=samples_per_bin,
        context=context,
        dtype=dtype,
        device=device,
    )
    return weights.flip(3).permute(0, 3, 1, 2)


class AlignedLinear(nn.Module):
    """A linear layer over the aligned (C x N) features of every proposal: (B, C, L) -> (B, O, D, L).

    Masked snippets must be zero in the input.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, bins: int, samples_per_bin: int | None, context: float
    ) -> None:
        super().__init__()
        self.bins, self.samples_per_bin, self.context = bins, samples_per_bin, context
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, bins))
        self.bias = nn.Parameter(torch.empty(out_channels))
        bound = 1.0 / math.sqrt(in_channels * bins)  # torch's own for a linear layer
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, max_duration: int) -> Tensor:
        out_channels, in_channels, bins = self.weight.shape
        length = x.shape[2]
        by_bin = self.weight.transpose(1, 2).reshape(out_channels * bins, in_channels, 1)
        y = F.conv1d(x.flip(2), by_bin).unflatten(1, (out_channels, bins)).flatten(2)  # (B, O, N x L)
        weights = _mirrored_weights(
            length,
            max_duration=max_duration,
            bins=bins,
            samples_per_bin=self.samples_per_bin,
            context=self.context,
            dtype=y.dtype if y.dtype == torch.float64 else torch.float32,
            device=x.device,
        )
        weights = weights.permute(0, 3, 1, 2).reshape(bins * length, max_duration * length)
        out = torch.matmul(y, weights).unflatten(2, (max_duration, length))
        return out + self.bias[:, None, None].to(out.dtype)


def _mirrored_weights(
    num_snippets: int,
    *,
    max_duration: int,
    bins: int,
    samples_per_bin: int | None,
    context: float,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    """`sampling_weights` as (N, D, L, L): of the start, then of snippet L - 1, L - 2, ... 0.

    What a bin reads depends on the snippet's offset from the start alone, so this is a view of (N, D, 2 L - 1) values.
    """
    length = torch.arange(1, max_duration + 1, dtype=torch.float64)
    width = (1.0 + 2.0 * context) * length / bins  # (D,) of a bin, snippets
    most = samples_per_bin or max(1, math.ceil((1.0 + 2.0 * context) * max_duration / bins - 1e-9))
    count = torch.full_like(width, most) if samples_per_bin else (width - 1e-9).ceil().clamp(min=1.0)
    sample = torch.arange(most, dtype=torch.float64)
    inside = (sample + 0.5) / count[:, None]  # (D, samples) place in its bin
    begin = (
        -context * length[:, None] + torch.arange(bins) * width[:, None]
    )  # (D, N) from the proposal's start
    place = (
        begin[:, :, None] + (inside * width[:, None])[:, None, :] - 0.5
    )  # (D, N, samples) as snippet index
    share = torch.where(sample < count[:, None], 1.0 / count[:, None], 0.0)[
        :, None, :, None
    ]  # (D, 1, samples, 1)
    place, share = place.to(device, dtype), share.to(device, dtype)
    offset = torch.arange(1 - num_snippets, num_snippets, device=device)  # of a snippet from the start
    read = (1.0 - (place[..., None] - offset).abs()).clamp(min=0.0)  # (D, N, samples, 2 L - 1)
    by_offset = (read * share).sum(dim=2).transpose(0, 1)  # (N, D, 2 L - 1)
    return by_offset.flip(2).unfold(2, num_snippets, 1)
