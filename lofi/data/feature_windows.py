"""Windows -> samples of features from a feature directory: rows, or what lies between them, at the snippets' centres."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from lofi.data.crops import crop_generator, crop_video, whole_video
from lofi.data.feature_failures import failed_videos, refuse_failed_videos
from lofi.data.feature_store import (
    FeatureDirectory,
    FeatureManifest,
    check_features,
    num_feature_rows,
    read_feature,
)
from lofi.data.grid import GridConfig, snippet_centres_sec
from lofi.data.packed_windows import PackedWindows
from lofi.data.samples import SampleKey, WindowSample, failed_sample, window_mask
from lofi.segments import Window, window_targets

_POSITION_TOLERANCE = 1e-6


class FeatureWindows(Dataset[WindowSample]):
    """Windows of features from disk. Indexed by `SampleKey`, of whose fidelity only the number of snippets counts."""

    def __init__(
        self,
        windows: Sequence[Window],
        directory: FeatureDirectory,
        *,
        grid: GridConfig,
        seed: int = 0,
        on_decode_error: Literal["stop", "skip"] = "stop",
    ) -> None:
        """Windows of features.

        Args:
            windows: one sample each.
            directory: where the features are.
            grid: of the windows. With training: crops and prediction: videos, `windows` are whole videos, and the samples in
                training and elsewhere are what `data.crops` makes of them; then, with mode: sliding, a snippet is a row.
            seed: of the crops.
            on_decode_error: of videos that have no features since making them failed (failures.json): stop raises
                ValueError; skip gives an empty, masked sample with the failure in it.

        Raises:
            ValueError: the features lie on another kind of grid than the windows, a file is wrong (shape, number of rows,
                NaN), or a video's features could not be made (with stop).
            FileNotFoundError: videos without features, all in one message.
        """
        mode = directory.manifest.grid["mode"]
        if mode != grid.mode:
            raise ValueError(
                f"grid.mode is {grid.mode}, but the features in {directory.path} were extracted with mode: {mode}; "
                f"set grid.mode: {mode}, or extract them again."
            )
        videos = sorted({window.video for window in windows})
        known = failed_videos(directory)
        self._failures = {video: known[video] for video in videos if video in known}
        if on_decode_error == "stop":
            refuse_failed_videos(directory, videos)
        durations_sec = {window.video: window.video_duration_sec for window in windows}
        there = [video for video in videos if video not in self._failures]
        check_features(directory, there, durations_sec=durations_sec)
        self.windows = PackedWindows(windows)
        self._directory = directory
        self._grid = grid
        self._seed = seed

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: SampleKey) -> WindowSample:
        window = self.windows[key.index]
        num_snippets = key.fidelity.num_snippets
        if window.video in self._failures:
            features = torch.zeros(num_snippets, self._directory.manifest.feature_width)
            return failed_sample(window, self._failures[window.video], features=features)
        num_rows = num_feature_rows(self._directory, window.video)
        if key.training and self._grid.training == "crops":
            window = self._crop(window, key, num_rows=num_rows)
        elif not key.training and self._grid.prediction == "videos":
            window, num_snippets = rows_window(window, self._directory.manifest, num_rows=num_rows), num_rows
        positions = snippet_rows(
            window, self._directory.manifest, num_rows=num_rows, num_snippets=num_snippets
        )
        first = int(np.floor(positions[0] + _POSITION_TOLERANCE))
        last = int(np.ceil(positions[-1] - _POSITION_TOLERANCE))
        rows = read_feature(self._directory, window.video, rows=(first, last + 1))
        return WindowSample(
            window=window,
            targets=window_targets(window, num_snippets=num_snippets),
            mask=window_mask(window, num_snippets=num_snippets),
            features=torch.from_numpy(interpolate_rows(rows, positions - first)),
        )

    def _crop(self, video: Window, key: SampleKey, *, num_rows: int) -> Window:
        num_snippets = key.fidelity.num_snippets
        if self._grid.mode == "rescale":
            origin_sec, step_sec, num_rows = 0.0, video.video_duration_sec / num_snippets, num_snippets
        else:
            origin_sec, step_sec = first_cell_sec(self._directory.manifest)
        return crop_video(
            video,
            origin_sec=origin_sec,
            step_sec=step_sec,
            num_snippets=num_rows,
            window_snippets=num_snippets,
            share=self._grid.crop_share,
            visible=self._grid.crop_visible,
            generator=crop_generator(self._seed, epoch=key.epoch, index=key.index),
        )


def rows_window(video: Window, manifest: FeatureManifest, *, num_rows: int) -> Window:
    """A video, [0, duration], as one window whose snippets are its rows."""
    origin_sec, step_sec = first_cell_sec(manifest)
    return whole_video(video, origin_sec=origin_sec, step_sec=step_sec, num_snippets=num_rows)


def first_cell_sec(manifest: FeatureManifest) -> tuple[float, float]:
    """Of dense features: the start of the cell around row 0, and the length of a cell."""
    step_sec = manifest.snippet_stride_sec
    assert step_sec is not None
    return float(manifest.row_times_sec(1)[0]) - step_sec / 2, step_sec


def snippet_rows(
    window: Window, manifest: FeatureManifest, *, num_rows: int, num_snippets: int
) -> np.ndarray:
    """(L,) where a window's snippets lie among its video's rows, in row index, 0 to num_rows - 1."""
    centres_sec = snippet_centres_sec(window.start_sec, window.end_sec, num_snippets=num_snippets)
    positions = manifest.row_positions(centres_sec, num_rows=num_rows, duration_sec=window.video_duration_sec)
    clipped: np.ndarray = np.clip(positions, 0, num_rows - 1)
    return clipped


def interpolate_rows(rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rows at positions between them, linearly; at a whole position (to 1e-6) exactly that row.

    Args:
        rows: (N, D) float32.
        positions: (L,) float, 0 to N - 1 (beyond: the row at the end).

    Returns:
        (L, D) float32.
    """
    nearest = np.round(positions)
    is_whole = np.abs(positions - nearest) < _POSITION_TOLERANCE
    positions = np.clip(np.where(is_whole, nearest, positions), 0, len(rows) - 1)
    below = np.floor(positions).astype(np.int64)
    above = np.minimum(below + 1, len(rows) - 1)
    weight = (positions - below).astype(np.float32)[:, None]
    result: np.ndarray = rows[below] * (1 - weight) + rows[above] * weight
    return result
