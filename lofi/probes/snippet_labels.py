"""Feature directories and annotations -> labelled snippets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lofi.data.annotations import AnnotatedVideo
from lofi.data.feature_store import FeatureDirectory, num_feature_rows, read_feature
from lofi.progress import track

BACKGROUND = -1


@dataclass(frozen=True, kw_only=True)
class Snippets:
    """N snippets of some videos."""

    features: Tensor
    """(N, D) float32."""
    labels: Tensor
    """(N,) int64: the class of the segment in which the snippet's time lies (the first one's), or BACKGROUND."""


def snippet_labels(video: AnnotatedVideo, times_sec: np.ndarray, *, classes: Sequence[str]) -> np.ndarray:
    """(L,) int64. Args: times_sec (L,), the times that the video's snippets stand for."""
    labels = np.full(len(times_sec), BACKGROUND, dtype=np.int64)
    for segment in reversed(video.segments):
        inside = (segment.start_sec <= times_sec) & (times_sec < segment.end_sec)
        labels[inside] = list(classes).index(segment.label)
    return labels


def read_labelled(
    videos: Sequence[AnnotatedVideo],
    directory: FeatureDirectory,
    *,
    classes: Sequence[str],
    max_snippets: int,
    seed: int = 0,
) -> Snippets:
    """The snippets of the videos, or `max_snippets` of them drawn by `seed`; of each file only the drawn rows stay in memory."""
    counts = [num_feature_rows(directory, video.name) for video in videos]
    total = sum(counts)
    drawn = np.arange(total)
    if total > max_snippets:
        drawn = np.sort(np.random.default_rng(seed).choice(total, size=max_snippets, replace=False))
    features, labels = [], []
    first = 0
    with track(f"features labelled, {directory.path.name}", total=len(videos)) as advance:
        for video, count in zip(videos, counts, strict=True):
            rows = drawn[(drawn >= first) & (drawn < first + count)] - first
            first += count
            advance(1)
            if not len(rows):
                continue
            times_sec = directory.manifest.row_times_sec(count, duration_sec=video.duration_sec)
            features.append(read_feature(directory, video.name)[rows])
            labels.append(snippet_labels(video, times_sec, classes=classes)[rows])
    return Snippets(
        features=torch.from_numpy(np.concatenate(features)), labels=torch.from_numpy(np.concatenate(labels))
    )
