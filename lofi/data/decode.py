"""Frames of a video file, decoded at the size that is asked for: decord first, PyAV where decord would be wrong.

    reader = open_video("a.mp4")
    frames = reader.read(np.array([0, 8, 16]), height=112, width=112)

The packets say what is in a file (`lofi.data.packets`), whichever decoder reads it. With decoder: auto, PyAV takes over where
decord does not know the codec, would give other frames than asked for, fails, counts other frames than there are, or gives
one frame for two (which it does, without an error, where data are damaged). `VideoReader.info` says which decoder and why.

Open a video in the process that reads it: a decord handle that was opened before a fork returns wrong frames now and then,
without an error. `lofi.data.reading_process` reads in a process that may crash or hang.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from lofi.data.decord_frames import DecordFrames
from lofi.data.packets import PacketScan, scan_packets
from lofi.data.pyav_frames import PyavFrames
from lofi.data.video_info import DecodeError, Decoder, DecoderChoice, Resize, VideoInfo, check_duration

__all__ = ["DecodeError", "Resize", "VideoInfo", "VideoReader", "check_duration", "open_video"]

LARGEST_TIME_SEC = 1e6
"""No sane timestamp lies further from 0 (eleven days)."""

LEAST_DIFFERENCE = 0.5
"""Levels of 256, on average, by which frames must differ to be two (scaling alone may hide less)."""


class VideoReader:
    """One open video of one process. Made by `open_video`."""

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        *,
        may_take_over: bool = False,
        on_progress: Callable[[], None] | None = None,
    ) -> None:
        self.path = path
        self.info = info
        """Its `decoder` changes when PyAV takes over."""
        self.num_frames_decoded = 0
        """Distinct frames handed out so far; what the codec must decode to get at them is not counted."""
        self._may_take_over = may_take_over
        self._on_progress = on_progress
        self._decord: DecordFrames | None = None
        self._pyav: PyavFrames | None = None
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
        for first, chunk in self._chunks(wanted, height=scaled_height, width=scaled_width):
            frames[first : first + len(chunk)] = chunk[:, top : top + height, left : left + width]
        self.num_frames_decoded += len(wanted)
        return frames if np.array_equal(wanted, indices) else frames[inverse]

    def _chunks(self, wanted: np.ndarray, *, height: int, width: int) -> Iterator[tuple[int, np.ndarray]]:
        """Args: wanted: rising. Yields: the first row, and (k, H, W, 3) for k rows from there; a row may come twice."""
        if self.info.decoder == "decord":
            try:
                yield from self._by_decord(wanted, height=height, width=width)
                return
            except DecodeError as error:
                if not self._may_take_over:
                    raise
                self.info = replace(self.info, decoder="pyav", decoder_reason=error.reason.rstrip("."))
        self._decord = None
        for row, frame in self._by_pyav(wanted, height=height, width=width):
            yield row, frame[None]

    def _by_decord(self, wanted: np.ndarray, *, height: int, width: int) -> Iterator[tuple[int, np.ndarray]]:
        if self._decord is None or self._decord.size != (height, width):
            self._decord = None  # close the old one first
            self._decord = DecordFrames(self.path, height=height, width=width)
            if self._decord.num_frames != self.num_frames:
                raise DecodeError(
                    str(self.path),
                    f"decord counts {self._decord.num_frames} frames, its packets are {self.num_frames}.",
                )
        last = None
        for first, chunk in self._decord.read(wanted):
            if self._on_progress is not None:
                self._on_progress()
            yield first, chunk
            self._check_repeats(wanted, first, chunk, before=last)
            last = chunk[-1]

    def _check_repeats(
        self, wanted: np.ndarray, first: int, chunk: np.ndarray, *, before: np.ndarray | None
    ) -> None:
        """decord fills in for frames that it cannot decode with the one before; still pictures look the same. PyAV knows."""
        shown = chunk if before is None else np.concatenate([before[None], chunk])
        offset = first if before is None else first - 1
        for row in range(len(shown) - 1):
            if np.array_equal(shown[row], shown[row + 1]):
                _, height, width, _ = chunk.shape
                pair = wanted[offset + row : offset + row + 2]
                one, other = (frame for _, frame in self._by_pyav(pair, height=height, width=width))
                if np.abs(one.astype(np.int16) - other).mean() >= LEAST_DIFFERENCE:
                    raise DecodeError(
                        str(self.path), f"decord gives the same frame for {pair[0]} and {pair[1]}."
                    )
                return

    def _by_pyav(self, wanted: np.ndarray, *, height: int, width: int) -> Iterator[tuple[int, np.ndarray]]:
        if self._pyav is None:
            self._pyav = PyavFrames(self.path, self.info, on_progress=self._on_progress)
        return self._pyav.read(wanted, height=height, width=width)


def open_video(
    path: str | Path,
    *,
    info: VideoInfo | None = None,
    decoder: DecoderChoice = "auto",
    on_progress: Callable[[], None] | None = None,
) -> VideoReader:
    """Open a video file.

    Args:
        path: of the file.
        info: where it is known from an earlier opening (with the same `decoder`), saves half of the work.
        decoder: auto is decord, and PyAV where decord would be wrong; decord refuses such files.
        on_progress: called while packets are read and frames decoded.

    Raises:
        DecodeError: there is no such file, no video stream, or no frame that can be decoded.
    """
    path = Path(path)
    if info is None:
        if not path.is_file():
            raise DecodeError(str(path), "there is no such file.")
        if path.stat().st_size == 0:
            raise DecodeError(str(path), "the file is empty.")
        scan = scan_packets(path, on_progress=on_progress)
        chosen, reason = _choose(path, scan, decoder=decoder)
        info = _info_of(path, scan, decoder=chosen, decoder_reason=reason)
    return VideoReader(path, info, may_take_over=decoder == "auto", on_progress=on_progress)


def _choose(path: Path, scan: PacketScan, *, decoder: DecoderChoice) -> tuple[Decoder, str | None]:
    """What reads the video, and why, where that is of note."""
    if decoder == "pyav" or scan.decord_misses is None:
        return ("pyav" if decoder == "pyav" else "decord"), None
    if decoder == "decord":
        raise DecodeError(
            str(path),
            f"decord would not read it rightly ({scan.decord_misses}); data.decoder: auto or pyav does.",
        )
    return "pyav", scan.decord_misses


def _info_of(path: Path, scan: PacketScan, *, decoder: Decoder, decoder_reason: str | None) -> VideoInfo:
    has_fps = math.isfinite(scan.fps) and scan.fps > 0
    timestamps_sec, duration_sec = _sane_times(scan)
    if timestamps_sec is None and not has_fps:
        raise DecodeError(str(path), f"neither its timestamps nor its frame rate ({scan.fps}) make sense.")
    return VideoInfo(
        num_frames=scan.num_frames,
        fps=scan.fps if has_fps else scan.num_frames / duration_sec,
        duration_sec=duration_sec,
        height=scan.height,
        width=scan.width,
        timestamps_sec=timestamps_sec,
        seeks_exactly=scan.seeks_exactly,
        pts=scan.pts,
        keyframe_pts=scan.keyframe_pts,
        decoder=decoder,
        decoder_reason=decoder_reason,
    )


def _sane_times(scan: PacketScan) -> tuple[np.ndarray | None, float]:
    """(start of each frame or None, duration of the video).

    A first frame that comes late counts as the start, as players do; frames before 0 stay there, since they are never shown.
    """
    starts, end_sec = scan.starts_sec, scan.end_sec
    is_sane = (
        starts is not None
        and math.isfinite(end_sec)
        and bool((np.abs(starts) < LARGEST_TIME_SEC).all())
        and end_sec > max(starts[0], 0.0)
        and (len(starts) == 1 or bool(starts[-1] > starts[0]))
    )
    if not is_sane:
        return None, (scan.num_frames / scan.fps if scan.fps > 0 else math.nan)
    assert starts is not None
    offset_sec = max(float(starts[0]), 0.0)
    return starts - offset_sec, end_sec - offset_sec


def _scaled_size(info: VideoInfo, *, height: int, width: int, resize: Resize) -> tuple[int, int]:
    """(height, width) of the whole frame as it is decoded."""
    if resize == "stretch":
        return height, width
    scale = max(height / info.height, width / info.width)
    return max(height, round(info.height * scale)), max(width, round(info.width * scale))
