"""Mean and standard deviation of features on disk, element by element."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lofi.data.feature_store import FeatureDirectory, read_feature
from lofi.progress import track

LEAST_DEVIATION = 1e-6
"""Elements that never change are divided by this, and stay 0."""


def feature_moments(directory: FeatureDirectory, videos: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Read the features of videos once, one video at a time.

    Args:
        directory: holds them.
        videos: names; one at least.

    Returns:
        Mean and standard deviation over all their rows: (D,) float32 each.
    """
    width = directory.manifest.feature_width
    count, mean, squares = 0, np.zeros(width), np.zeros(width)
    with track("features read for their mean and deviation", total=len(videos)) as advance:
        for video in videos:
            rows = read_feature(directory, video).astype(np.float64)
            # Chan's update of mean and sum of squared differences: large means cost no digits.
            shift = rows.mean(axis=0) - mean
            total = count + len(rows)
            squares += ((rows - rows.mean(axis=0)) ** 2).sum(axis=0) + shift**2 * count * len(rows) / total
            mean += shift * len(rows) / total
            count = total
            advance(1)
    deviation = np.maximum(np.sqrt(squares / count), LEAST_DEVIATION)
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()
