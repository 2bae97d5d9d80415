"""What a video file is in truth: opened, and a few frames decoded. Plain values, so that another process may ask.

A file that opens may still be cut off or damaged further on, so frames are read all over it, the last one included.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lofi.data.decode import DecodeError, open_video

PROBE_SIZE = 32
"""Height and width at which frames are decoded, pixels."""


def probe_video(path: Path, *, num_frames: int) -> dict[str, Any]:
    """Open a video and decode `num_frames` frames spread over it, first and last included (0: none).

    Returns:
        JSON values. "error": why it cannot be decoded, and nothing else; or "duration" (seconds), "fps", "frames",
        "height", "width" (pixels), "drift" (seconds that the time of a frame differs at most from its index at a constant
        rate; null where the file's own times are nonsense).
    """
    try:
        reader = open_video(path)
        if num_frames:
            indices = np.linspace(0, reader.info.num_frames - 1, num_frames).round().astype(np.int64)
            reader.read(np.unique(indices), height=PROBE_SIZE, width=PROBE_SIZE, resize="stretch")
    except DecodeError as error:
        return {"error": error.reason}
    info = reader.info
    return {
        "duration": round(float(info.duration_sec), 6),
        "fps": round(float(info.fps), 6),
        "frames": int(info.num_frames),
        "height": int(info.height),
        "width": int(info.width),
        "drift": drift_sec(info.timestamps_sec),
    }


def drift_sec(timestamps_sec: np.ndarray | None) -> float | None:
    """How far frames lie from where a constant rate would have them, at most, in seconds. None where no time is known."""
    if timestamps_sec is None:
        return None
    even_sec = np.linspace(timestamps_sec[0], timestamps_sec[-1], len(timestamps_sec))
    return round(float(np.abs(timestamps_sec - even_sec).max()), 6)
