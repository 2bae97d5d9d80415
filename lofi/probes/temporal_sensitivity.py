"""How much features change over time: the similarity of adjacent snippets against that of distant ones of the same video.

Features of an encoder that is blind to when are nearly as similar half a video apart as from one snippet to the next.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

LEAST_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class TemporalSensitivity:
    """Mean cosine similarities, over the pairs of a video and then over videos."""

    adjacent: float
    """Of snippets next to one another."""
    distant: float
    """Of snippets half a video apart."""
    difference: float
    """adjacent - distant: 0 where time makes no difference."""
    num_videos: int


def temporal_sensitivity(sequences: Iterable[np.ndarray]) -> TemporalSensitivity:
    """Args: (L, D) features of each video; those of fewer than LEAST_ROWS rows are left out. ValueError where none is left."""
    adjacent, distant = [], []
    for rows in sequences:
        if len(rows) < LEAST_ROWS:
            continue
        unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        half = len(unit) // 2
        adjacent.append(float((unit[1:] * unit[:-1]).sum(axis=1).mean()))
        distant.append(float((unit[half:] * unit[: len(unit) - half]).sum(axis=1).mean()))
    if not adjacent:
        raise ValueError(f"no video has {LEAST_ROWS} rows of features; there is no time to look at.")
    means = float(np.mean(adjacent)), float(np.mean(distant))
    return TemporalSensitivity(
        adjacent=means[0], distant=means[1], difference=means[0] - means[1], num_videos=len(adjacent)
    )
