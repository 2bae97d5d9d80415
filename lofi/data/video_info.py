"""What is known of a video file before its frames are read, and the error for one that cannot be read."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Resize = Literal["crop", "stretch"]
Decoder = Literal["decord", "pyav"]
DecoderChoice = Literal["auto", "decord", "pyav"]

DURATION_TOLERANCE_SEC = 1.0
DURATION_TOLERANCE = 0.02
"""A video may be this much shorter than annotated, the larger of the two (seconds, and part of the annotated duration)."""


class DecodeError(Exception):
    """A video that cannot be decoded: which one, and why in one line."""

    def __init__(self, video: str, reason: str) -> None:
        super().__init__(video, reason)
        self.video = video
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.video} cannot be decoded: {self.reason}"


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoInfo:
    """What is known of a video before any frame is read. Plain values: it may be stored and sent to other processes."""

    num_frames: int
    fps: float
    """Frames per second, the average where the rate varies."""
    duration_sec: float
    height: int
    """Pixels, as displayed (a rotation tag is applied)."""
    width: int
    timestamps_sec: np.ndarray | None
    """(num_frames,) float64, when each frame appears; None where the file's own are nonsense."""
    seeks_exactly: bool
    """False where a decoder that counts packets finds other frames than asked for (see `lofi.data.packets`)."""
    pts: np.ndarray | None = None
    """(num_frames,) int64, rising: the file's own name of each frame, by which PyAV finds it; None where it must count."""
    keyframe_pts: np.ndarray | None = None
    """(k,) int64, rising: where decoding may begin."""
    decoder: Decoder = "decord"
    """What reads it."""
    decoder_reason: str | None = None
    """Why PyAV reads a video that decord was to read; None: nothing of note."""


def check_duration(video: str, info: VideoInfo, *, annotated_sec: float) -> None:
    """Raise DecodeError where a video ends well before its annotated duration: cut off, or another video.

    Public files end up to a second or so before the duration of their container (a longer audio track, rounding), so that
    much is allowed; and where the frame rate varies, the longest gap between two frames, since how long the last frame
    stays is not known. A video without sane timestamps has no duration that one could trust, and is not checked.
    """
    if info.timestamps_sec is None:
        return
    missing_sec = annotated_sec - info.duration_sec
    excess_sec = missing_sec - max(DURATION_TOLERANCE_SEC, DURATION_TOLERANCE * annotated_sec)
    if excess_sec > 0 and excess_sec > np.diff(info.timestamps_sec).max(initial=0.0):
        raise DecodeError(
            video,
            f"it ends after {info.duration_sec:.2f} s, but its annotated duration is {annotated_sec:.2f} s; it is cut off, "
            "another video, or annotated wrongly.",
        )
