"""What a video's packets and first frame say: size, times, which frames are shown, where decoding may begin.

A frame is named by its presentation time (pts), so that a variable rate, a start that is not zero, frames that an edit list
hides, and frames stored in another order than shown are all right by construction. AVI stores no presentation times (those
that FFmpeg makes up are nonsense where frames are reordered): there, the decoding times, in order, are the times of the
frames, in order, and a frame is found by counting.

decord counts frames by packets. It gives other frames than asked for, without an error, in these kinds of files:
- open groups of pictures (x265's default; x264 and broadcast encoders on request): frames shown before a keyframe are stored
  after it, so that the frame found after a jump to this keyframe is not the one that was counted;
- edit lists that hide frames (`ffmpeg -ss ... -c copy`): the decoder drops them, and every count is off;
- AVI with frames stored in another order than shown: each jump lands on the wrong one;
- MPEG transport streams: the first frames are lost, and every count is off.
All are seen before any frame is read. Containers that nobody has tried with decord count as such, too.
"""

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lofi.data.video_info import DURATION_TOLERANCE, DURATION_TOLERANCE_SEC, DecodeError

CODECS_UNKNOWN_TO_DECORD = frozenset({"av1", "vvc"})
"""decord 0.6 has the codecs of FFmpeg 4."""

CONTAINERS_FIT_FOR_DECORD = frozenset({"mov", "mp4", "matroska", "webm", "avi"})
"""As FFmpeg names them; in others decord has not been tried, or fails in silence (mpegts)."""

VP8_IS_SHOWN = 0x10
"""The bit of a VP8 frame's first byte (RFC 6386, section 9.1) that is 0 for frames that only serve others."""

PACKETS_TRIED = 300
"""A video is refused where nothing comes of so many packets."""

NO_TIME = -(2**63)
"""In place of a time that a packet does not say."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PacketScan:
    """The shown frames of the best video stream."""

    height: int
    """Pixels, as displayed (a rotation tag is applied)."""
    width: int
    fps: float
    """The container's average; nan where it says none."""
    num_frames: int
    starts_sec: np.ndarray | None = None
    """(num_frames,) float64, rising; None where the file has no times."""
    end_sec: float = math.nan
    """When the last frame ends; nan without times."""
    pts: np.ndarray | None = None
    """(num_frames,) int64, rising; None where frames can only be counted."""
    keyframe_pts: np.ndarray | None = None
    """(k,) int64, rising."""
    decord_misses: str | None = None
    """Why decord would fail, or give other frames than asked for; None where it should not."""

    @property
    def seeks_exactly(self) -> bool:
        """Whether a decoder that counts packets finds the frames that it is asked for."""
        return self.decord_misses is None


@dataclass(frozen=True, kw_only=True)
class _Packets:
    """Columns of plain numbers, in the order of storage: a video may have a million packets."""

    pts: "array[int]" = field(default_factory=lambda: array("q"))
    """NO_TIME where the file says none; dts too."""
    dts: "array[int]" = field(default_factory=lambda: array("q"))
    durations: "array[int]" = field(default_factory=lambda: array("q"))
    is_keyframe: bytearray = field(default_factory=bytearray)
    is_hidden: bytearray = field(default_factory=bytearray)

    def append(self, packet: Any) -> None:
        self.pts.append(NO_TIME if packet.pts is None else packet.pts)
        self.dts.append(NO_TIME if packet.dts is None else packet.dts)
        self.durations.append(packet.duration or 0)
        self.is_keyframe.append(packet.is_keyframe)
        self.is_hidden.append(packet.is_discard)

    def __len__(self) -> int:
        return len(self.pts)


def scan_packets(path: Path, *, on_progress: Callable[[], None] | None = None) -> PacketScan:
    """Read all packets of the best video stream and decode its first frame.

    Args:
        path: of the file.
        on_progress: called for every packet.

    Raises:
        DecodeError: no video, no frame that can be decoded, or a file that is cut off.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise DecodeError(str(path), "it has no video stream (audio only?).")
            return _scan(path, container, stream, on_progress=on_progress)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise DecodeError(str(path), reason_of(error)) from None


def reason_of(error: Exception) -> str:
    """One line for what FFmpeg raises through PyAV."""
    import av

    if isinstance(error, av.DecoderNotFoundError):
        return "the decoder failed: its codec is not known."
    if isinstance(error, av.InvalidDataError) and "avcodec" in str(error):
        return "the decoder failed; the data are damaged or encrypted."
    return "it is not a video file, or its header is damaged."


def _scan(path: Path, container: Any, stream: Any, *, on_progress: Callable[[], None] | None) -> PacketScan:
    is_vp8 = stream.codec_context.codec.canonical_name == "vp8"
    packets = _Packets()
    first_frame: Any = None
    for packet in container.demux(stream):
        if on_progress is not None:
            on_progress()
        if first_frame is None and len(packets) < PACKETS_TRIED:
            first_frame = _try_to_decode(stream.codec_context, packet)
        if packet.size > 0 and not (is_vp8 and not memoryview(packet)[0] & VP8_IS_SHOWN):
            packets.append(packet)
    if not packets:
        raise DecodeError(str(path), "it has no frames.")
    if first_frame is None:
        raise DecodeError(str(path), "the decoder failed at its first frames: damaged or encrypted.")
    is_on_its_side = first_frame.rotation % 180 != 0
    known = {
        "height": first_frame.width if is_on_its_side else first_frame.height,
        "width": first_frame.height if is_on_its_side else first_frame.width,
        "fps": float(stream.average_rate or math.nan),
    }
    forms = frozenset(container.format.name.split(","))
    pts = np.frombuffer(packets.pts, dtype=np.int64)
    has_pts = not bool((pts == NO_TIME).any()) and "avi" not in forms
    times = pts if has_pts else np.frombuffer(packets.dts, dtype=np.int64)
    if (times == NO_TIME).any():
        return PacketScan(**known, num_frames=len(packets))
    is_key = np.frombuffer(packets.is_keyframe, dtype=bool)
    is_hidden = np.frombuffer(packets.is_hidden, dtype=bool)
    is_out_of_reach = _before_first_keyframe(times, is_key) if has_pts else np.zeros_like(is_key)
    shown = times[~(is_hidden | is_out_of_reach)]
    if not len(shown):
        raise DecodeError(str(path), "it has no frame that is shown.")
    shown = np.unique(shown) if has_pts else np.sort(shown)
    step_sec = float(stream.time_base)
    starts_sec = shown * step_sec
    last_duration = packets.durations[int(np.flatnonzero(times == shown[-1])[-1])]
    last_sec = last_duration * step_sec if last_duration > 0 else 1 / known["fps"]
    end_sec = float(starts_sec[-1] + last_sec)
    declared_end_sec = float(starts_sec[0]) + float(stream.duration or 0) * step_sec
    if starts_sec[-1] < declared_end_sec < end_sec:
        end_sec = declared_end_sec  # a packet's own duration may be that of another frame, stored after it
    if stream.duration is not None and len(packets) < stream.frames:
        _refuse_cut_off(path, starts_sec, end_sec, declared_sec=float(stream.duration) * step_sec)
    decord_misses = None
    codec = stream.codec_context.codec.canonical_name
    if codec in CODECS_UNKNOWN_TO_DECORD:
        decord_misses = f"decord does not know its codec, {codec}"
    elif forms.isdisjoint(CONTAINERS_FIT_FOR_DECORD):
        decord_misses = f"decord does not find its way in {'/'.join(sorted(forms))}"
    elif is_hidden.any():
        decord_misses = "an edit list hides some of its frames"
    elif is_out_of_reach.any():
        decord_misses = "it does not begin with a keyframe"
    elif has_pts and len(shown) < len(times):
        decord_misses = "several of its packets have the same time"
    elif has_pts and not keyframes_divide(times, is_key):
        decord_misses = "it has open groups of pictures"
    elif not has_pts and is_key.sum() > 1 and stream.codec_context.has_b_frames:
        decord_misses = "it is an AVI whose frames are stored in another order than shown"
    return PacketScan(
        **known,
        num_frames=len(shown),
        starts_sec=starts_sec,
        end_sec=end_sec,
        pts=shown if has_pts else None,
        keyframe_pts=np.unique(times[is_key]) if has_pts else None,
        decord_misses=decord_misses,
    )


def _try_to_decode(codec: Any, packet: Any) -> Any:
    """The first frame that comes of the packet, or None."""
    import av

    try:
        return next(iter(codec.decode(packet)), None)
    except av.FFmpegError:
        return None


def _before_first_keyframe(pts: np.ndarray, is_keyframe: np.ndarray) -> np.ndarray:
    """(n,) bool: stored or shown before it, so that a part of them is missing."""
    if not is_keyframe.any():
        return np.zeros_like(is_keyframe)
    first = int(np.argmax(is_keyframe))
    before: np.ndarray = (np.arange(len(pts)) < first) | (pts < pts[first])
    return before


def _refuse_cut_off(path: Path, starts_sec: np.ndarray, end_sec: float, *, declared_sec: float) -> None:
    """A header that lists more frames than there are, and a good deal more time."""
    missing_sec = declared_sec - (end_sec - max(float(starts_sec[0]), 0.0))
    allowed_sec = max(DURATION_TOLERANCE_SEC, DURATION_TOLERANCE * declared_sec)
    if missing_sec > max(allowed_sec, float(np.diff(starts_sec).max(initial=0.0))):
        raise DecodeError(
            str(path), f"it is cut off: {declared_sec:.2f} s by its header, data for {end_sec:.2f} s."
        )


def keyframes_divide(pts: np.ndarray, is_keyframe: np.ndarray) -> bool:
    """True where whatever is stored before a keyframe is shown before it, and whatever after it, after it.

    Args:
        pts: (n,) presentation times, in the order of storage.
        is_keyframe: (n,) bool.
    """
    earliest_from_here = np.minimum.accumulate(pts[::-1])[::-1]
    latest_before = np.maximum.accumulate(pts)[:-1]
    divides = earliest_from_here == pts
    divides[1:] &= latest_before < pts[1:]
    return bool(divides[is_keyframe].all())
