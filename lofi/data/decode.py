"""Frames of a video file, decoded at the size that is asked for; the only module that imports decord.

Open a video in the process that reads it: a decord handle that was opened before a fork returns wrong frames now and
then, without an error. decord's own errors (C++ messages with source paths, at opening and at reading) become
`DecodeError`. Its timestamps are checked before use, since those of some AVI files are nonsense.

Files in which decord would return other frames than asked for, without an error, are found by their packets
(`lofi.data.packets`) and read from their first frame on: slow, but right. decord 0.6 has no AV1.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lofi.data.packets import scan_packets

Resize = Literal["crop", "stretch"]

CHUNK_FRAMES = 32
"""Frames per request to the decoder, which holds a whole request in memory beside our copy."""

LARGEST_TIME_SEC = 1e6
"""No sane timestamp lies further from 0 (eleven days)."""


WIDTHS_REFUSED = frozenset({4, 6, 8, 12, 16, 24, 48, 72})
"""Widths at which decord 0.6 fails (its padded rows are then as long as rows of four channels); all others work."""


class DecodeError(Exception):
    """A video that cannot be decoded: which one, and why in one line."""

    def __init__(self, video: str, reason: str) -> None:
        super().__init__(video, reason)
        self.video = video
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.video} cannot be decoded: {self.reason}"


DURATION_TOLERANCE_SEC = 1.0
DURATION_TOLERANCE = 0.02
"""A video may be this much shorter than annotated, the larger of the two (seconds, and part of the annotated duration)."""


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
    """False where frames must be read from the first one on (see `lofi.data.packets`)."""


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


class VideoReader:
    """One open video of one process. Made by `open_video`."""

    def __init__(self, path: Path, info: VideoInfo, *, decoder: Any = None) -> None:
        self.path = path
        self.info = info
        self.num_frames_decoded = 0
        """Distinct frames handed out so far; what the codec must decode to get at them is not counted."""
        self._decoder = decoder
        self._decoder_size = (info.height, info.width)
        self._process = os.getpid()

    @property
    def num_frames(self) -> int:
        return self.info.num_frames

    @property
    def fps(self) -> float:
        return self.info.fps

    @property
    def duration_sec(self) -> float:
        return self.info.duration_sec

    @property
    def timestamps_sec(self) -> np.ndarray | None:
        return self.info.timestamps_sec

    def read(self, indices: np.ndarray, *, height: int, width: int, resize: Resize = "crop") -> np.ndarray:
        """Decode frames at the given size.

        Args:
            indices: (n,) int, between 0 and num_frames - 1, in any order, repeats allowed.
            height, width: size of the result, pixels.
            resize: crop scales the frame until it covers height x width and cuts its centre out; stretch scales both
                sides on their own.

        Returns:
            (n, height, width, 3) uint8 RGB, contiguous.

        Raises:
            DecodeError: the decoder fails, or gives fewer frames.
        """
        if os.getpid() != self._process:
            raise RuntimeError(
                f"{self.path} was opened in another process; open it in the one that reads it."
            )
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= self.num_frames):
            raise ValueError(
                f"{self.path}: frames {indices.min()} to {indices.max()} were asked for; it has {self.num_frames}."
            )
        scaled_height, scaled_width = _scaled_size(self.info, height=height, width=width, resize=resize)
        top, left = (scaled_height - height) // 2, (scaled_width - width) // 2
        wanted, inverse = np.unique(indices, return_inverse=True)
        frames = np.empty((len(wanted), height, width, 3), dtype=np.uint8)
        factor = _oversampling(scaled_width)
        with _decord_errors(self.path):
            decoder = self._decoder_at(scaled_height * factor, scaled_width * factor)
            for rows, chunk in _read_chunks(decoder, wanted, seeks_exactly=self.info.seeks_exactly):
                frames[rows] = _averaged(chunk, factor)[:, top : top + height, left : left + width]
        self.num_frames_decoded += len(wanted)
        return frames if np.array_equal(wanted, indices) else frames[inverse]

    def _decoder_at(self, height: int, width: int) -> Any:
        if self._decoder is None or self._decoder_size != (height, width):
            self._decoder = None  # close the old one first
            self._decoder = _open_decord(self.path, height=height, width=width)
            self._decoder_size = (height, width)
        return self._decoder


def open_video(path: str | Path, *, info: VideoInfo | None = None) -> VideoReader:
    """Open a video file; `info`, where it is known from an earlier opening, saves half of the work.

    Raises:
        DecodeError: there is no such file, no video stream, or no frame that can be decoded.
    """
    path = Path(path)
    if info is not None:
        return VideoReader(path, info)
    if not path.is_file():
        raise DecodeError(str(path), "there is no such file.")
    if path.stat().st_size == 0:
        raise DecodeError(str(path), "the file is empty.")
    with _decord_errors(path):
        decoder = _open_decord(path)
        num_frames = len(decoder)
        if num_frames == 0:
            raise DecodeError(str(path), "it has no frames.")
        height, width, _ = decoder[0].shape
        fps = float(decoder.get_avg_fps())
        spans = np.asarray(decoder.get_frame_timestamp(np.arange(num_frames)), dtype=np.float64)
    scan = scan_packets(path)
    if scan is not None and len(scan.is_shown) == num_frames and scan.is_shown.any():
        spans = spans[scan.is_shown]
        num_frames = len(spans)
    timestamps_sec, duration_sec = _sane_times(spans, fps=fps)
    if timestamps_sec is None and not (math.isfinite(fps) and fps > 0):
        raise DecodeError(str(path), f"neither its timestamps nor its frame rate ({fps}) make sense.")
    if not (math.isfinite(fps) and fps > 0):
        fps = num_frames / duration_sec
    info = VideoInfo(
        num_frames=num_frames,
        fps=fps,
        duration_sec=duration_sec,
        height=int(height),
        width=int(width),
        timestamps_sec=timestamps_sec,
        seeks_exactly=scan is None or scan.seeks_exactly,
    )
    return VideoReader(path, info, decoder=decoder)


def _read_chunks(
    decoder: Any, wanted: np.ndarray, *, seeks_exactly: bool
) -> Iterator[tuple[slice, np.ndarray]]:
    """Read frames in chunks. Args: wanted: rising. Yields: rows of the result, (n, H, W, 3) for them."""
    if seeks_exactly:
        for first in range(0, len(wanted), CHUNK_FRAMES):
            chunk = wanted[first : first + CHUNK_FRAMES]
            yield slice(first, first + len(chunk)), decoder.get_batch(chunk.tolist()).asnumpy()
        return
    num_read = int(wanted[-1]) + 1 if len(wanted) else 0
    for first in range(0, num_read, CHUNK_FRAMES):
        passing = decoder.get_batch(list(range(first, min(first + CHUNK_FRAMES, num_read))))
        begin, end = np.searchsorted(wanted, [first, first + CHUNK_FRAMES])
        if begin < end:
            yield slice(int(begin), int(end)), passing.asnumpy()[wanted[begin:end] - first]


def _open_decord(path: Path, *, height: int = -1, width: int = -1) -> Any:
    import decord  # here, not above: a process that reads features needs no decoder

    decord.logging.set_level(decord.logging.QUIET)
    return decord.VideoReader(str(path), width=width, height=height, num_threads=1)


@contextmanager
def _decord_errors(path: Path) -> Iterator[None]:
    """Turn what decord raises (DECORDError, RuntimeError, IndexError) into a DecodeError of one line."""
    try:
        yield
    except DecodeError:
        raise
    except ImportError as error:
        raise ImportError(
            f"decord cannot be imported ({error}); `pip install decord` is needed to read videos."
        ) from error
    except Exception as error:
        raise DecodeError(str(path), _reason(error)) from None


def _reason(error: Exception) -> str:
    text = str(error)
    if "cannot find video stream" in text:
        return "no video stream that the decoder knows (audio only, or a codec such as AV1)."
    if text.startswith("Error reading"):
        return "it is not a video file, or its header is damaged."
    if "Failed to seek" in text or "avcodec_send_packet" in text or "Fail" in text:
        return "the data are damaged or encrypted (the decoder failed)."
    return "the decoder failed; the file is damaged, encrypted or in an unknown form."


def _sane_times(spans: np.ndarray, *, fps: float) -> tuple[np.ndarray | None, float]:
    """Check (n, 2) start and end of each frame; (start of each frame or None, duration of the video).

    A first frame that comes late counts as the start, as players do; frames before 0 stay there, since they are never shown.
    """
    starts, ends = spans[:, 0], spans[:, 1]
    is_sane = (
        bool(np.isfinite(spans).all())
        and bool((np.abs(spans) < LARGEST_TIME_SEC).all())
        and bool((np.diff(starts) >= 0).all())
        and bool(ends[-1] > max(starts[0], 0.0))
        and (len(starts) == 1 or bool(starts[-1] > starts[0]))
    )
    if not is_sane:
        return None, (len(spans) / fps if fps > 0 else math.nan)
    offset_sec = max(float(starts[0]), 0.0)
    return starts - offset_sec, float(ends[-1]) - offset_sec


def _scaled_size(info: VideoInfo, *, height: int, width: int, resize: Resize) -> tuple[int, int]:
    """(height, width) of the whole frame as it is decoded."""
    if resize == "stretch":
        return height, width
    scale = max(height / info.height, width / info.width)
    return max(height, round(info.height * scale)), max(width, round(info.width * scale))


def _oversampling(width: int) -> int:
    """How many times larger to decode, so that the width is one that decord takes; 1 for nearly all."""
    factor = 1
    while width * factor in WIDTHS_REFUSED:
        factor += 1
    return factor


def _averaged(frames: np.ndarray, factor: int) -> np.ndarray:
    """(n, H * factor, W * factor, 3) uint8 -> (n, H, W, 3), the mean of each square, rounded."""
    if factor == 1:
        return frames
    count, height, width, _ = frames.shape
    squares = frames.reshape(count, height // factor, factor, width // factor, factor, 3)
    averaged: np.ndarray = (squares.mean(axis=(2, 4)) + 0.5).astype(np.uint8)
    return averaged
