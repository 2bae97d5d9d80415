"""Where windows, snippets and frames lie in a video: arithmetic on seconds, nothing else.

rescale   one window [0, duration] per video, L snippets spread evenly over it (ActivityNet's habit, as in G-TAD and LoFi).
          With fewer snippets (LoFi's T) the whole video is still covered: coarser, not a crop.
sliding   windows of `window_sec`, one every window_sec * (1 - overlap); the last one is moved back so that it ends with the
          video. A video that is shorter than a window gets one window, which reaches past its end.

A window of L snippets is cut into L equal cells; a snippet's T frames lie around the centre of its cell, one every
`frame_step_sec`, whatever the length of the cell; or with `spread_frames` evenly over the cell, each in the middle of a T-th.
A time stands for the frame that is on screen then.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

TIMESTAMP_TOLERANCE_SEC = 0.001
"""Containers round timestamps (Matroska to 1 ms, decord to float32); a frame may be stamped this much late."""

_EPSILON = 1e-6

ONLY_FOR_HEADS = ("overlap", "training", "crop_share", "crop_visible", "prediction")
"""Options of the grid that say what a head is trained on and predicts, and nothing of an extraction: its windows lie side by
side (`consecutive_windows`)."""


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """The recipe's `grid:` block: how a video becomes windows, and where a snippet's frames lie."""

    mode: Literal["rescale", "sliding"] = "rescale"
    """rescale: one window for the whole video; sliding: windows of one length, for long videos."""
    window_sec: float | None = None
    """Length of a window, seconds. Only with mode: sliding, where it must be given."""
    overlap: float = 0.5
    """Part of a window that the next one covers too, 0 <= overlap < 1. Only with mode: sliding."""
    training: Literal["windows", "crops"] = "windows"
    """What a head is trained on: all windows of a video; or one random crop of it per epoch, at most a window long (`data.crops`);
    with mode: rescale some of the snippets that the whole video has."""
    crop_share: float = 0.9
    """A video that is shorter than a window gives a crop of at least this part of it, in (0, 1]. Only with training: crops."""
    crop_visible: float = 0.5
    """An instance counts where at least this part of it is in the crop, in (0, 1]. Only with training: crops."""
    prediction: Literal["windows", "videos"] = "windows"
    """What a head predicts: all windows of a video; or all rows of its features at once, whatever their number. videos only with
    mode: sliding and data.features."""
    frame_rate: float | None = None
    """Frames per second at which a snippet's frames are taken; null takes each video's own rate."""
    frame_stride: int = 1
    """Frames of the video from one frame of a snippet to the next (1: consecutive). Only with frame_rate: null."""
    spread_frames: bool = False
    """Spread a snippet's frames evenly over its share of the window, so that snippets touch one another, in place of
    frame_rate and frame_stride."""

    def __post_init__(self) -> None:
        if self.mode not in ("rescale", "sliding"):
            raise ValueError(f"grid.mode is {self.mode!r}; it must be rescale or sliding.")
        if self.mode == "sliding" and self.window_sec is None:
            raise ValueError(
                "grid.window_sec is missing; mode: sliding needs the length of a window in seconds."
            )
        if self.mode == "rescale" and self.window_sec is not None:
            raise ValueError(
                f"grid.window_sec is {self.window_sec} but has no effect with mode: rescale, whose window is the "
                "whole video; remove it or set grid.mode: sliding."
            )
        if self.mode == "rescale" and self.overlap != 0.5:
            raise ValueError(
                f"grid.overlap is {self.overlap} but has no effect with mode: rescale; remove it or set "
                "grid.mode: sliding."
            )
        for key, allowed in (("training", ("windows", "crops")), ("prediction", ("windows", "videos"))):
            value = getattr(self, key)
            if value not in allowed:
                raise ValueError(f"grid.{key} is {value!r}; it must be {allowed[0]} or {allowed[1]}.")
        if self.prediction == "videos" and self.mode != "sliding":
            raise ValueError(
                "grid.prediction: videos is only for mode: sliding: a rescaled video is one window anyway; remove it."
            )
        for key, default in (("crop_share", 0.9), ("crop_visible", 0.5)):
            value = getattr(self, key)
            if value != default and self.training != "crops":
                raise ValueError(
                    f"grid.{key} is {value} but has no effect without training: crops; remove it."
                )
            if not 0 < value <= 1:
                raise ValueError(f"grid.{key} is {value}; it must be above 0 and at most 1.")
        if self.training == "crops" and self.prediction == "videos" and self.overlap != 0.5:
            raise ValueError(
                f"grid.overlap is {self.overlap} but has no effect with training: crops and prediction: videos; remove it."
            )
        if self.window_sec is not None and not (math.isfinite(self.window_sec) and self.window_sec > 0):
            raise ValueError(
                f"grid.window_sec is {self.window_sec}; it must be a positive number of seconds."
            )
        if not 0 <= self.overlap < 1:
            raise ValueError(f"grid.overlap is {self.overlap}; it must be at least 0 and less than 1.")
        if self.frame_rate is not None and not (math.isfinite(self.frame_rate) and self.frame_rate > 0):
            raise ValueError(f"grid.frame_rate is {self.frame_rate}; it must be positive, or null.")
        if self.frame_stride < 1:
            raise ValueError(f"grid.frame_stride is {self.frame_stride}; it must be at least 1.")
        if self.frame_rate is not None and self.frame_stride != 1:
            raise ValueError(
                f"grid.frame_stride is {self.frame_stride} but has no effect with frame_rate: {self.frame_rate}; "
                "set one of the two."
            )
        if self.spread_frames and (self.frame_rate is not None or self.frame_stride != 1):
            key = "frame_stride" if self.frame_rate is None else "frame_rate"
            raise ValueError(
                f"grid.{key} is {getattr(self, key)} but has no effect with spread_frames: true; remove one of the two."
            )


def video_windows(duration_sec: float, config: GridConfig) -> list[tuple[float, float]]:
    """(start_sec, end_sec) of every window of a video, in time's order; together they cover [0, duration_sec]."""
    if not (math.isfinite(duration_sec) and duration_sec > 0):
        raise ValueError(f"a video's duration is {duration_sec}; it must be a positive number of seconds.")
    if config.mode == "rescale":
        return [(0.0, duration_sec)]
    assert config.window_sec is not None
    window_sec = config.window_sec
    last_start_sec = duration_sec - window_sec
    if last_start_sec <= _EPSILON * window_sec:
        return [(0.0, window_sec)]
    hop_sec = window_sec * (1 - config.overlap)
    num_before_last = math.ceil(last_start_sec / hop_sec - _EPSILON)
    starts = [index * hop_sec for index in range(num_before_last)] + [last_start_sec]
    return [(start, start + window_sec) for start in starts]


def consecutive_windows(
    duration_sec: float, config: GridConfig, *, num_snippets: int
) -> list[tuple[float, float]]:
    """Windows for feature extraction: as `video_windows`, but side by side where they slide.

    The snippets of these windows, one window after the other, are one even sequence over the video, with one snippet
    every window_sec / L. Every window but the first has the centre of a snippet inside the video: a rest of
    up to half a snippet at the end gets none.
    """
    if config.mode == "rescale":
        return video_windows(duration_sec, config)
    assert config.window_sec is not None
    window_sec = config.window_sec
    num_windows = max(1, math.ceil(duration_sec / window_sec))
    windows = [(index * window_sec, (index + 1) * window_sec) for index in range(num_windows)]
    while (
        len(windows) > 1 and snippet_centres_sec(*windows[-1], num_snippets=num_snippets)[0] >= duration_sec
    ):
        windows.pop()
    return windows


def snippet_centres_sec(start_sec: float, end_sec: float, *, num_snippets: int) -> np.ndarray:
    """(L,) float64: the centres of the window's L equal cells."""
    return start_sec + (np.arange(num_snippets) + 0.5) * ((end_sec - start_sec) / num_snippets)


def snippet_mask(centres_sec: np.ndarray, *, duration_sec: float) -> np.ndarray:
    """(L,) bool: True where the snippet's centre lies inside the video.

    Where none does (a video shorter than half a cell), the snippet nearest to the video counts, so that a mask without
    any True always means a video that could not be decoded.
    """
    mask = (centres_sec >= 0) & (centres_sec < duration_sec)
    if not mask.any():
        outside_sec = np.maximum(-centres_sec, centres_sec - duration_sec)
        mask[int(np.argmin(outside_sec))] = True
    return mask


def frame_step_sec(config: GridConfig, *, fps: float, cell_sec: float, frames: int) -> float:
    """Seconds from one frame of a snippet to the next, in a video of `fps` frames per second, where the snippet's cell is
    `cell_sec` long and has T = `frames`."""
    if config.spread_frames:
        return cell_sec / frames
    return config.frame_stride / fps if config.frame_rate is None else 1 / config.frame_rate


def snippet_frame_times_sec(
    start_sec: float, end_sec: float, *, num_snippets: int, frames: int, step_sec: float
) -> np.ndarray:
    """(L, T) float64: the times of each snippet's frames, centred in its cell, `step_sec` apart."""
    centres = snippet_centres_sec(start_sec, end_sec, num_snippets=num_snippets)
    return centres[:, None] + (np.arange(frames) - (frames - 1) / 2) * step_sec


def frame_indices(
    times_sec: np.ndarray, *, num_frames: int, fps: float, timestamps_sec: np.ndarray | None = None
) -> np.ndarray:
    """The frame on screen at each time; before the first frame the first, after the last the last.

    Args:
        times_sec: any shape, seconds since the start of the video.
        num_frames: how many frames the video has.
        fps: frame i is on screen from i / fps to (i + 1) / fps; not used where there are timestamps.
        timestamps_sec: (num_frames,) when each frame appears, never falling: right where the frame rate varies.

    Returns:
        int64 between 0 and num_frames - 1, the shape of `times_sec`.
    """
    if timestamps_sec is None:
        indices = np.floor(np.asarray(times_sec) * fps + _EPSILON)
    else:
        late_sec = np.asarray(times_sec) + TIMESTAMP_TOLERANCE_SEC
        indices = np.searchsorted(timestamps_sec, late_sec, side="right") - 1
    return np.clip(indices, 0, num_frames - 1).astype(np.int64)
