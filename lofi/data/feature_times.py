"""What time each row of other tools' features stands for, said by their user; and rows moved to other times."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np

from lofi.data.annotations import Annotations
from lofi.data.feature_manifest import FeatureManifest
from lofi.data.feature_windows import interpolate_rows


@dataclass(frozen=True, kw_only=True)
class RowTimes:
    """What time each row stands for."""

    stride_sec: float | None
    """Seconds from row to row; None: the rows of a video are spread evenly over it."""
    first_row_sec: float | None = None
    """The time of row 0; None: half a stride."""
    frames: int | None = None
    """Frames of a snippet, where that is known."""

    def __post_init__(self) -> None:
        for name in ("stride_sec", "first_row_sec", "frames"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be positive.")
        if self.stride_sec is None and self.first_row_sec is not None:
            raise ValueError(
                f"first_row_sec is {self.first_row_sec} but has no effect on rows that are spread over their video; "
                "remove it, or say the stride."
            )


def row_times_of_frames(*, stride_frames: int, fps: float, frames: int) -> RowTimes:
    """The field's habit: snippet i is the `frames` frames from frame i * stride_frames on, and stands for their middle."""
    if not 0 < fps < math.inf:
        raise ValueError(f"the frame rate is {fps}; it must be a positive number of frames per second.")
    return RowTimes(stride_sec=stride_frames / fps, first_row_sec=frames / 2 / fps, frames=frames)


def read_frame_rates(annotations: Annotations) -> dict[str, float]:
    """Frames per second of every video, from the key "fps" of the annotation file.

    Raises:
        ValueError: videos without one.
    """
    database = json.loads(annotations.path.read_text(encoding="utf-8-sig"))["database"]
    rates = {video: database[video].get("fps") for video in annotations.videos}
    wrong = [
        video
        for video, rate in rates.items()
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate < math.inf
    ]
    if wrong:
        raise ValueError(
            f'{annotations.path} does not say the frame rate ("fps", a positive number) of {len(wrong)} of {len(rates)} '
            f"videos, such as {wrong[0]}; add it, or say one rate for all."
        )
    return rates


def with_times(manifest: FeatureManifest, times: RowTimes) -> FeatureManifest:
    """The manifest of rows at these times."""
    if times.stride_sec is None:
        return manifest
    window_sec = times.stride_sec * manifest.rows_per_window
    grid = {"mode": "sliding", "window_sec": window_sec}
    return replace(manifest, grid=grid, first_row_sec=times.first_row_sec)


def interpolate_to(features: np.ndarray, *, own: FeatureManifest, common: FeatureManifest) -> np.ndarray:
    """Rows at one stride -> rows at another, over the same stretch of the video. (L, D) -> (M, D) float32."""
    num_rows = len(features)
    last_sec = own.row_times_sec(num_rows)[-1]
    first_sec, second_sec = common.row_times_sec(2)
    num_wanted = max(1, math.floor((last_sec - first_sec) / (second_sec - first_sec) + 0.5) + 1)
    times_sec = common.row_times_sec(num_wanted)
    positions = own.row_positions(
        times_sec, num_rows=num_rows, duration_sec=math.nan
    )  # of no use at a stride
    return interpolate_rows(features.astype(np.float32), np.clip(positions, 0, num_rows - 1))
