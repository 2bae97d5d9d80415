"""Training samples of similarity matching: one stretch of consecutive features from a random place of each video per epoch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from lofi.data.feature_failures import refuse_failed_videos
from lofi.data.feature_store import FeatureDirectory, check_features, num_feature_rows, read_feature
from lofi.data.feature_windows import interpolate_rows
from lofi.data.samples import SampleKey, WindowSample
from lofi.progress import say
from lofi.segments import Targets, Window

NUM_NAMES_SHOWN = 5


class RandomStretches(Dataset[WindowSample]):
    """One sample per video that is long enough. Indexed by `SampleKey`; its epoch and the seed decide the place."""

    def __init__(
        self,
        videos: Sequence[Window],
        directory: FeatureDirectory,
        *,
        num_snippets: int,
        stride_jitter: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Look at every file's length.

        Args:
            videos: whole videos, one window each.
            directory: of their features.
            num_snippets: W, consecutive rows of a sample.
            stride_jitter: see `objective.SimilarityMatchingConfig`.
            seed: of the places.

        Raises:
            ValueError: no video is long enough, a file is wrong, or videos have none because making them failed.
            FileNotFoundError: videos without features.
        """
        refuse_failed_videos(directory, [video.video for video in videos])
        check_features(
            directory,
            [video.video for video in videos],
            durations_sec={video.video: video.video_duration_sec for video in videos},
        )
        self._num_rows = {video.video: num_feature_rows(directory, video.video) for video in videos}
        self.windows = [video for video in videos if self._num_rows[video.video] >= num_snippets]
        short = [video.video for video in videos if self._num_rows[video.video] < num_snippets]
        if not self.windows:
            raise ValueError(
                f"{directory.path}: none of the {len(videos)} training videos has {num_snippets} rows of features, which "
                f"objective.window asks for (the longest has {max(self._num_rows.values(), default=0)}). Lower "
                "objective.window, or extract with more snippets."
            )
        if short:
            shown = ", ".join(short[:NUM_NAMES_SHOWN]) + (", ..." if len(short) > NUM_NAMES_SHOWN else "")
            say(
                f"{len(short)} of {len(videos)} training videos are shorter than {num_snippets} rows and left out: {shown}"
            )
        self._directory = directory
        self._num_snippets = num_snippets
        self._stride_jitter = stride_jitter
        self._seed = seed

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: SampleKey) -> WindowSample:
        video = self.windows[key.index]
        num_rows = self._num_rows[video.video]
        generator = np.random.default_rng([self._seed, key.epoch, key.index])
        stretch = 1.0 + self._stride_jitter * generator.uniform(-1, 1)
        stretch = min(stretch, (num_rows - 1) / max(self._num_snippets - 1, 1))
        if self._stride_jitter:
            # At the greatest stretch there is one place; rounding may put the bound a hair below 0.
            last_first = max(0.0, num_rows - 1 - stretch * (self._num_snippets - 1))
            first = generator.uniform(0, last_first)
        else:
            first = float(generator.integers(0, num_rows - self._num_snippets + 1))
        positions = np.clip(first + stretch * np.arange(self._num_snippets), 0, num_rows - 1)
        begin, end = int(np.floor(positions[0])), int(np.ceil(positions[-1])) + 1
        rows = read_feature(self._directory, video.video, rows=(begin, end))
        manifest = self._directory.manifest
        stride_sec = manifest.snippet_stride_sec or video.video_duration_sec / num_rows
        first_sec = manifest.row_times_sec(1, duration_sec=video.video_duration_sec / num_rows)[0]
        start_sec = float(first_sec) + (first - 0.5 * stretch) * stride_sec
        return WindowSample(
            window=Window(
                video=video.video,
                start_sec=start_sec,
                end_sec=start_sec + stretch * self._num_snippets * stride_sec,
                video_duration_sec=video.video_duration_sec,
                segments=(),
            ),
            targets=Targets(segments=torch.zeros(0, 2), labels=torch.zeros(0, dtype=torch.int64)),
            mask=torch.ones(self._num_snippets, dtype=torch.bool),
            features=torch.from_numpy(interpolate_rows(rows, positions - begin)),
        )
