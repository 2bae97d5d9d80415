"""Segments of time: annotations and detections in seconds, windows of a video, and temporal IoU.

Nothing here knows of files, tensors on devices or models; every other room may use these values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # importing torch takes seconds, and scoring files needs none of it
    from torch import Tensor

UNLABELLED = -1
"""Label of a detection without a class: a proposal, whose class a video-level classifier says (`heads.postprocess`)."""


@dataclass(frozen=True, kw_only=True)
class LabelledSegment:
    """One annotated action instance of a video."""

    start_sec: float
    end_sec: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One scored and labelled segment of a video, in seconds."""

    start_sec: float
    end_sec: float
    label: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of one video: one sample for training, or one part of a video for prediction.

    `segments` holds the annotated instances that overlap the window, as (start_sec, end_sec, class index), in the
    video's own seconds, clipped to the window. A window may reach past the end of its video: what lies there is padding.
    """

    video: str
    start_sec: float
    end_sec: float
    video_duration_sec: float
    segments: tuple[tuple[float, float, int], ...] = ()
    valid_end_sec: float | None = None
    """What lies after it is padding too, though it may be inside the video (a crop shorter than its window); None: nothing."""

    @property
    def length_sec(self) -> float:
        return self.end_sec - self.start_sec


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The instances of one window, as a head wants them.

    segments: (N, 2) float32, start and end in snippet index of this step's number of snippets (0 is the start of the
    first snippet, L the end of the last). labels: (N,) int64 class index.
    """

    segments: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class Detections:
    """What a head finds in one window.

    segments: (N, 2) float, in snippet index (from a head) or seconds (after `heads.postprocess`). scores: (N,) between 0
    and 1. labels: (N,) int64 class index, or `UNLABELLED`.
    """

    segments: Tensor
    scores: Tensor
    labels: Tensor

    def to_cpu(self) -> Detections:
        return Detections(
            segments=self.segments.float().cpu(), scores=self.scores.float().cpu(), labels=self.labels.cpu()
        )


def tiou_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Temporal IoU of every pair.

    Args:
        first: (N, 2) start and end.
        second: (M, 2) start and end, same unit.

    Returns:
        (N, M) float64 between 0 and 1; 0 where the union is empty.
    """
    start = np.maximum(first[:, None, 0], second[None, :, 0])
    end = np.minimum(first[:, None, 1], second[None, :, 1])
    intersection = np.clip(end - start, 0.0, None)
    union = (first[:, 1] - first[:, 0])[:, None] + (second[:, 1] - second[:, 0])[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def seconds_to_snippets(times_sec: Tensor, window: Window, *, num_snippets: int) -> Tensor:
    """Map seconds of the video to snippet index in the window at this number of snippets. Any shape."""
    return (times_sec - window.start_sec) * (num_snippets / window.length_sec)


def snippets_to_seconds(positions: Tensor, window: Window, *, num_snippets: int) -> Tensor:
    """The inverse of `seconds_to_snippets`. Any shape."""
    return positions * (window.length_sec / num_snippets) + window.start_sec


def window_targets(window: Window, *, num_snippets: int) -> Targets:
    """The window's instances in snippet index; rebuilt for every number of snippets that a schedule asks for."""
    import torch

    rows = torch.tensor([segment[:2] for segment in window.segments], dtype=torch.float64).reshape(-1, 2)
    labels = torch.tensor([segment[2] for segment in window.segments], dtype=torch.int64)
    segments = seconds_to_snippets(rows, window, num_snippets=num_snippets).float()
    return Targets(segments=segments, labels=labels)
