"""What the maps and sequences of a proposal head learn, rebuilt for every L.

Sources: BMN (ICCV 2019, section 3.4) and G-TAD (CVPR 2020, section 3.4): tIoU of every proposal with its best instance; how
much of a snippet's boundary region lies within 1.5 snippets of an instance's start (or end).
What differs from the published code: the end score of snippet i speaks of the end of snippet i, at i + 1, where the code lets
both scores speak of its beginning and so has no proposal that ends with the window.

Shapes: B windows, L snippets, D longest duration.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lofi.heads.padded_targets import PaddedTargets, pad_targets
from lofi.segments import Targets

BOUNDARY_SNIPPETS = 3.0
"""Length of the region around a boundary, snippets."""


@dataclass(frozen=True, kw_only=True)
class ProposalTargets:
    """tiou: (B, D, L) with the best instance, 0 without any. label: (B, D, L) int64 of that instance. start, end: (B, L)
    between 0 and 1. None of them takes account of masks."""

    tiou: Tensor
    label: Tensor
    start: Tensor
    end: Tensor


def longest_duration(num_snippets: int, *, share: float) -> int:
    """D: the longest proposal of a window of L snippets, at least 1."""
    return max(1, min(num_snippets, round(share * num_snippets)))


def valid_cells(mask: Tensor, *, max_duration: int) -> Tensor:
    """mask (B, L) -> (B, D, L) bool: every snippet of the proposal is there and valid."""
    length = mask.shape[1]
    before = torch.nn.functional.pad(mask.to(torch.int64).cumsum(dim=1), (1, 0))  # (B, L + 1)
    start = torch.arange(length, device=mask.device)
    duration = torch.arange(1, max_duration + 1, device=mask.device)
    end = start + duration[:, None]  # (D, L), exclusive
    num_valid = before[:, end.clamp(max=length)] - before[:, start][:, None, :]
    return (end <= length) & (num_valid == duration[:, None])


def proposal_targets(
    targets: Sequence[Targets],
    *,
    num_snippets: int,
    max_duration: int,
    dtype: torch.dtype,
    device: torch.device,
) -> ProposalTargets:
    """Targets of B windows. Instances shorter than a snippet have targets like any other."""
    padded = pad_targets(targets, dtype=dtype, device=device)
    tiou, label = _best_tiou(padded, num_snippets=num_snippets, max_duration=max_duration)
    place = torch.arange(num_snippets, device=device, dtype=dtype)
    return ProposalTargets(
        tiou=tiou,
        label=label,
        start=_near(padded.segments[..., 0], padded.exists, place=place),
        end=_near(padded.segments[..., 1], padded.exists, place=place + 1.0),
    )


def _best_tiou(padded: PaddedTargets, *, num_snippets: int, max_duration: int) -> tuple[Tensor, Tensor]:
    """One instance of all windows at a time: memory does not grow with their number."""
    segments = padded.segments
    start = torch.arange(num_snippets, device=segments.device, dtype=segments.dtype)
    duration = torch.arange(1, max_duration + 1, device=segments.device, dtype=segments.dtype)[:, None]
    best = segments.new_zeros(len(segments), max_duration, num_snippets)
    label = torch.zeros_like(best, dtype=torch.int64)
    for number in range(segments.shape[1]):
        first, last = segments[:, number, 0, None, None], segments[:, number, 1, None, None]
        shared = (torch.minimum(start + duration, last) - torch.maximum(start, first)).clamp(min=0.0)
        tiou = shared / (duration + (last - first) - shared)
        tiou = torch.where(padded.exists[:, number, None, None], tiou, 0.0)
        is_better = tiou > best
        best = torch.where(is_better, tiou, best)
        label = torch.where(is_better, padded.labels[:, number, None, None], label)
    return best, label


def _near(boundary: Tensor, exists: Tensor, *, place: Tensor) -> Tensor:
    """boundary (B, N), place (L,) -> (B, L): how much of [place - 0.5, place + 0.5] lies in the nearest region."""
    reach = (BOUNDARY_SNIPPETS + 1.0) / 2.0
    shared = (reach - (boundary[:, :, None] - place).abs()).clamp(min=0.0, max=1.0)
    return torch.where(exists[:, :, None], shared, 0.0).amax(dim=1)
