"""GCNeXt: a block that mixes each snippet with its neighbours in time and with the snippets most like it.

Source: Xu et al., "G-TAD: Sub-Graph Localization for Temporal Action Detection", CVPR 2020, section 3.3, and its code (the
anet branch): k = 3 nearest neighbours by Euclidean distance, the snippet itself among them; edges join neighbour and snippet.
The first layer on an edge is linear, so it runs on the snippets and its outputs are gathered: the same numbers from a k-th of
the memory. What differs: masked snippets are nobody's neighbours.

Shapes: x (B, C, L) float, mask (B, L) bool, k neighbours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lofi.heads.float_range import at_least_float32
from lofi.heads.masking import masked


@torch.no_grad()
def nearest_snippets(x: Tensor, mask: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """The valid snippets most like each snippet, itself among them.

    Returns:
        index (B, L, k) and whether it counts (B, L, k) bool. Where a window has fewer than k valid snippets the rest are the
        snippet itself and do not count; k is at most L.
    """
    with torch.autocast(x.device.type, enabled=False):
        features = at_least_float32(masked(x, mask))
        square = (features**2).sum(dim=1)
        distance = square[:, :, None] + square[:, None, :] - 2.0 * features.transpose(1, 2) @ features
        distance = distance.masked_fill(~mask[:, None, :], torch.inf)
        index = distance.topk(min(k, x.shape[2]), dim=2, largest=False).indices
    counts = mask[:, None, :].expand(-1, x.shape[2], -1).gather(2, index)
    itself = torch.arange(x.shape[2], device=x.device)[:, None]
    return torch.where(counts, index, itself), counts


def gather_snippets(x: Tensor, index: Tensor) -> Tensor:
    """x (B, C, L), index (B, L, k) -> (B, C, L, k). By a product, whose backward adds in a fixed order."""
    length = x.shape[2]
    is_taken = index.flatten(1)[:, None, :] == torch.arange(length, device=x.device)[:, None]  # (B, L, L x k)
    return torch.matmul(x, is_taken.to(x.dtype)).unflatten(2, (length, -1))


def neighbour_mean(x: Tensor, mask: Tensor, *, k: int) -> Tensor:
    """The mean of each snippet's neighbours: (B, C, L), zero where masked."""
    index, counts = nearest_snippets(x, mask, k=k)
    weight = counts / counts.sum(dim=2, keepdim=True).clamp(min=1)  # (B, L, k)
    return masked((gather_snippets(masked(x, mask), index) * weight[:, None].to(x.dtype)).sum(dim=3), mask)


class GraphBlock(nn.Module):
    """GCNeXt: ReLU(temporal stream + semantic stream + x), both of `groups` paths."""

    def __init__(self, width: int, *, groups: int, path_width: int, k: int) -> None:
        super().__init__()
        self.k = k
        inner = groups * path_width
        self.temporal_in = nn.Conv1d(width, inner, 1)
        self.temporal_mix = nn.Conv1d(inner, inner, 3, padding=1, groups=groups)
        self.temporal_out = nn.Conv1d(inner, width, 1)
        self.neighbour_in = nn.Conv1d(width, inner, 1, bias=False)
        self.self_in = nn.Conv1d(width, inner, 1)
        self.semantic_mix = nn.Conv2d(inner, inner, 1, groups=groups)
        self.semantic_out = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, L) -> (B, C, L), zero where masked."""
        x = masked(x, mask)
        temporal = masked(F.relu(self.temporal_in(x)), mask)
        temporal = self.temporal_out(F.relu(self.temporal_mix(temporal)))
        index, _ = nearest_snippets(x, mask, k=self.k)
        edges = gather_snippets(self.neighbour_in(x), index) + self.self_in(x)[..., None]  # (B, C', L, k)
        semantic = self.semantic_out(F.relu(self.semantic_mix(F.relu(edges)))).amax(dim=3)
        return masked(F.relu(temporal + semantic + x), mask)
