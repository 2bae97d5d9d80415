"""Frames by decord, which counts them by packets; the only module that imports decord.

decord's own errors (C++ messages with source paths, at opening and at reading) become `DecodeError`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lofi.data.video_info import DecodeError

CHUNK_FRAMES = 32
"""Frames per request to decord, which holds a whole request in memory beside our copy."""

WIDTHS_REFUSED = frozenset({4, 6, 8, 12, 16, 24, 48, 72})
"""Widths at which decord 0.6 fails (its padded rows are then as long as rows of four channels); all others work."""


class DecordFrames:
    """One open video at one size."""

    def __init__(self, path: Path, *, height: int, width: int) -> None:
        self.size = (height, width)
        self._path = path
        self._factor = _oversampling(width)
        with _decord_errors(path):
            import decord  # here, not above: a process that reads features needs no decoder

            decord.logging.set_level(decord.logging.QUIET)
            self._decoder: Any = decord.VideoReader(
                str(path), width=width * self._factor, height=height * self._factor, num_threads=1
            )
            self.num_frames = len(self._decoder)

    def read(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Args: wanted: (n,) int, rising. Yields: the first row, and (k, height, width, 3) uint8 for k rows from there."""
        for first in range(0, len(wanted), CHUNK_FRAMES):
            with _decord_errors(self._path):
                chunk = self._decoder.get_batch(wanted[first : first + CHUNK_FRAMES].tolist()).asnumpy()
            yield first, _averaged(chunk, self._factor)


@contextmanager
def _decord_errors(path: Path) -> Iterator[None]:
    """Turn what decord raises (DECORDError, RuntimeError, IndexError) into a DecodeError of one line."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"decord cannot be imported ({error}); `pip install decord`, or read videos with data.decoder: pyav."
        ) from error
    except Exception as error:
        raise DecodeError(str(path), _reason(error)) from None


def _reason(error: Exception) -> str:
    text = str(error)
    if "cannot find video stream" in text:
        return "decord knows no video stream in it."
    if text.startswith("Error reading"):
        return "decord cannot open it."
    return "decord failed."


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
