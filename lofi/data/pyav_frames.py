"""Frames by PyAV, found by their presentation time; counted from the first one where the file has none.

Decoding begins at the last keyframe shown before (or as) a frame that is asked for, so that open groups of pictures are right.
In H.264 and HEVC, frames that no other frame needs and nobody asked for are not decoded (FFmpeg's skip_frame), which saves a
good part of the work of a sparse reading. Frames are scaled as decord scales them (bilinear, by swscale).
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from lofi.data.packets import reason_of
from lofi.data.video_info import DecodeError, VideoInfo

SKIPS_EXACTLY = frozenset({"h264", "hevc"})
"""Codecs whose decoder drops precisely the packet that it is told to (libdav1d, which looks ahead, does not)."""

_NOWHERE = -(2**63)


class PyavFrames:
    """One open video."""

    def __init__(self, path: Path, info: VideoInfo, *, on_progress: Callable[[], None] | None = None) -> None:
        """Open it. on_progress: called for every frame that is decoded, asked for or not."""
        self._path = path
        self._info = info
        self._on_progress = on_progress
        self._reformatter = VideoReformatter()
        self._may_jump = info.keyframe_pts is not None and len(info.keyframe_pts) > 0
        self._container: Any = None
        with self._errors_named():
            self._begin()

    def close(self) -> None:
        """Give its memory back now; PyAV's own objects wait for the garbage collector."""
        if self._container is not None:
            self._container.close()

    def __del__(self) -> None:
        self.close()

    def read(self, wanted: np.ndarray, *, height: int, width: int) -> Iterator[tuple[int, np.ndarray]]:
        """Args: wanted: (n,) int, rising. Yields: row, and its frame (height, width, 3) uint8, row by row.

        Raises:
            DecodeError: a frame cannot be decoded.
        """
        with self._errors_named():
            found = self._by_count(wanted) if self._info.pts is None else self._by_time(wanted)
            for row, frame in found:
                yield row, self._scaled(frame, height=height, width=width)

    def _by_time(self, wanted: np.ndarray) -> Iterator[tuple[int, Any]]:
        assert self._info.pts is not None
        times = self._info.pts[wanted].tolist()
        needed = frozenset(times)
        for row, time in enumerate(times):
            keyframe = self._keyframe_of(time)
            lies_behind = row == 0 and time <= self._furthest_pts
            lies_past_keyframe = keyframe is not None and keyframe > self._furthest_pts
            if lies_behind or lies_past_keyframe:
                self._go_to(keyframe)
            frame = self._next_frame(needed)
            while frame is not None and (frame.pts is None or frame.pts < time):
                frame = self._next_frame(needed)
            if frame is None or frame.pts != time:
                at_sec = float((time - self._info.pts[0]) * self._stream.time_base)
                raise DecodeError(
                    str(self._path), f"the decoder failed: the frame at {at_sec:.2f} s is damaged or missing."
                )
            yield row, frame

    def _by_count(self, wanted: np.ndarray) -> Iterator[tuple[int, Any]]:
        if len(wanted) and wanted[0] < self._num_passed:
            self._begin()
        for row, index in enumerate(wanted.tolist()):
            frame = self._next_frame(None)
            while frame is not None and self._num_passed <= index:
                frame = self._next_frame(None)
            if frame is None:
                raise DecodeError(
                    str(self._path),
                    f"the decoder failed: it gives {self._num_passed} of {self._info.num_frames} frames.",
                )
            yield row, frame

    def _keyframe_of(self, time: int) -> int | None:
        """The last keyframe that is shown before this time, or then."""
        if not self._may_jump:
            return None
        assert self._info.keyframe_pts is not None
        place = int(np.searchsorted(self._info.keyframe_pts, time, side="right")) - 1
        return int(self._info.keyframe_pts[place]) if place >= 0 else None

    def _begin(self) -> None:
        """Open the file anew: not every form of file can be sought back to its start."""
        self.close()
        self._container = av.open(str(self._path))
        stream = self._container.streams.best("video")
        if stream is None:
            raise DecodeError(str(self._path), "it has no video stream (audio only?).")
        self._stream: Any = stream
        self._codec: Any = stream.codec_context
        self._codec.thread_type = "NONE"
        self._codec.thread_count = 1
        self._may_skip = self._codec.name in SKIPS_EXACTLY
        self._packets: Iterator[Any] = iter(self._container.demux(stream))
        self._forget()

    def _forget(self) -> None:
        self._pending: deque[Any] = deque()
        self._furthest_pts = _NOWHERE
        self._num_passed = 0

    def _go_to(self, keyframe: int | None) -> None:
        """Go on from this keyframe, or from an earlier one."""
        if self._may_jump and keyframe is not None:
            self._container.seek(keyframe, stream=self._stream, backward=True)
            packets = iter(self._container.demux(self._stream))
            first = next((packet for packet in packets if packet.size > 0), None)
            if first is not None and first.pts is not None and first.pts <= keyframe:
                self._forget()
                self._packets = chain([first], packets)
                return
            self._may_jump = False  # this file's index is no good
        self._begin()

    def _next_frame(self, needed: frozenset[int] | None) -> Any:
        """The next frame in order of display; None at the end. What is not needed may be left out; None: all is."""
        while not self._pending:
            packet = next(self._packets, None)
            if packet is None:
                return None
            if self._may_skip and needed is not None:
                is_needed = packet.pts is None or packet.pts in needed
                self._codec.skip_frame = "DEFAULT" if is_needed else "NONREF"
            if packet.pts is not None:
                self._furthest_pts = max(self._furthest_pts, packet.pts)
            self._pending.extend(self._codec.decode(packet))
            if self._on_progress is not None:
                self._on_progress()
        self._num_passed += 1
        return self._pending.popleft()

    def _scaled(self, frame: Any, *, height: int, width: int) -> np.ndarray:
        """A frame as displayed: turned as its rotation tag says. (height, width, 3) uint8."""
        is_on_its_side = frame.rotation % 180 != 0
        scaled = self._reformatter.reformat(
            frame,
            width=height if is_on_its_side else width,
            height=width if is_on_its_side else height,
            format="rgb24",
            interpolation="BILINEAR",
            threads=1,
        )
        turned: np.ndarray = np.rot90(scaled.to_ndarray(), frame.rotation // 90)
        return turned

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, ValueError, OSError) as error:
            raise DecodeError(str(self._path), reason_of(error)) from None
