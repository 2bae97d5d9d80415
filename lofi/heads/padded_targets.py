"""Targets of several windows as tensors of one shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lofi.segments import Targets


@dataclass(frozen=True, kw_only=True)
class PaddedTargets:
    """segments: (B, N, 2), snippet index. labels: (B, N) int64. exists: (B, N) bool. N is the fullest window's, at least 1."""

    segments: Tensor
    labels: Tensor
    exists: Tensor


def pad_targets(
    targets: Sequence[Targets], *, dtype: torch.dtype, device: torch.device | str
) -> PaddedTargets:
    """B windows' targets, padded with segments that do not exist; built on the CPU and copied once."""
    size = max(1, *(len(target.labels) for target in targets))
    segments = torch.zeros(len(targets), size, 2, dtype=dtype)
    labels = torch.zeros(len(targets), size, dtype=torch.int64)
    exists = torch.zeros(len(targets), size, dtype=torch.bool)
    for row, target in enumerate(targets):
        count = len(target.labels)
        segments[row, :count] = target.segments.to(segments)
        labels[row, :count] = target.labels.to(labels)
        exists[row, :count] = True
    return PaddedTargets(segments=segments.to(device), labels=labels.to(device), exists=exists.to(device))
