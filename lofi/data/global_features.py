"""Global video features: one vector per video, the maximum over time of its features on disk (TSP, section 3.2).

They are those of the frozen initial encoder, from a feature directory that launch/extract.py has made. A video's file is read
once, when it is first asked for.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lofi.data.feature_store import MANIFEST_NAME, FeatureDirectory, open_feature_directory, read_feature


class GlobalFeatures:
    """Vectors of width D by the name of a video."""

    def __init__(self, path: str | Path, *, assumed_width: int) -> None:
        """Args: path of a feature directory; assumed_width: D where it is not there, as in planning."""
        self._directory: FeatureDirectory | None = None
        self.width = assumed_width
        """D."""
        if (Path(path) / MANIFEST_NAME).is_file():
            self._directory = open_feature_directory(path)
            self.width = self._directory.manifest.feature_width
        self._found: dict[str, np.ndarray] = {}

    def of(self, videos: Sequence[str]) -> Tensor:
        """(B, D) float32 on the CPU. A video without features has zeros: only the made-up ones of planning and profiling, since
        training and validation check theirs beforehand (`feature_store.check_features`)."""
        return torch.tensor(np.stack([self._vector(video) for video in videos]))

    def _vector(self, video: str) -> np.ndarray:
        if video not in self._found:
            if self._directory is None or not self._directory.file(video).is_file():
                return np.zeros(self.width, dtype=np.float32)
            self._found[video] = read_feature(self._directory, video).max(axis=0)
        return self._found[video]
