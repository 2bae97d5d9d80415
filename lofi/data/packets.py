"""What a video's packets say before any is decoded: which frames are shown, and whether a decoder may jump into them.

decord counts frames by packets. That goes wrong, without an error, in two kinds of files:
- open groups of pictures (x265's default; x264 and broadcast encoders on request): frames shown before a keyframe are stored
  after it, so that the frame found after a jump to this keyframe is not the one that was counted;
- edit lists that hide the first frames (`ffmpeg -ss ... -c copy`): the decoder drops them, and every count is off.
Both are seen in the packets' times alone. Such a video must be read from its first frame on, which is slow and right.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class PacketScan:
    """The packets of one video stream."""

    seeks_exactly: bool
    """False where a decoder that counts packets must not jump."""
    is_shown: np.ndarray
    """(n,) bool, in the order of display: False for frames that an edit list hides."""


def scan_packets(path: Path) -> PacketScan | None:
    """Read the packets of the best video stream; None where they have no times, or cannot be read."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.best("video")
            packets = [
                (packet.pts, packet.is_keyframe, packet.is_discard)
                for packet in container.demux(stream)
                if packet.size > 0
            ]
    except (av.FFmpegError, ValueError, OSError):
        return None
    if not packets or any(pts is None for pts, _, _ in packets):
        return None
    pts, is_keyframe, is_hidden = (np.array(column) for column in zip(*packets, strict=True))
    return PacketScan(
        seeks_exactly=keyframes_divide(pts, is_keyframe) and not _hides_before_it_shows(pts, is_hidden),
        is_shown=~is_hidden[np.argsort(pts, kind="stable")],
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


def _hides_before_it_shows(pts: np.ndarray, is_hidden: np.ndarray) -> bool:
    if not is_hidden.any():
        return False
    return bool(is_hidden.all() or pts[is_hidden].min() < pts[~is_hidden].max())
