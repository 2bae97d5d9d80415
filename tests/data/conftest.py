"""Tiny videos whose frame number can be read back from the pixels, so that tests say WHICH frames were decoded."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

BIT_ROWS, BIT_COLUMNS = 2, 5  # ten bits, each a black or white block


def draw_number(number: int, *, height: int, width: int) -> np.ndarray:
    bits = [(number >> bit) & 1 for bit in range(BIT_ROWS * BIT_COLUMNS)]
    blocks = np.array(bits, dtype=np.uint8).reshape(BIT_ROWS, BIT_COLUMNS) * 200 + 25
    rows = np.arange(height) * BIT_ROWS // height
    columns = np.arange(width) * BIT_COLUMNS // width
    return np.repeat(blocks[rows][:, columns, None], 3, axis=2)


def read_numbers(frames: np.ndarray) -> list[int]:
    """(n, H, W, 3) uint8 -> the number drawn on each frame."""
    _, height, width, _ = frames.shape
    rows = [int((row + 0.5) * height / BIT_ROWS) for row in range(BIT_ROWS)]
    columns = [int((column + 0.5) * width / BIT_COLUMNS) for column in range(BIT_COLUMNS)]
    bits = (frames[:, rows][:, :, columns].mean(axis=-1) > 125).reshape(len(frames), -1)
    return [int(sum(1 << bit for bit in np.flatnonzero(row))) for row in bits]


def write_numbered_video(
    path: Path,
    *,
    num_frames: int,
    fps: int = 10,
    height: int = 48,
    width: int = 80,
    gop: int = 7,
    step: Callable[[int], int] | None = None,
    x264: str | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Args: step: (frame number) -> 1 / fps units to the next frame, where the rate varies. x264: its own options."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.options = {"crf": "18", "preset": "ultrafast"}
        if x264 is not None:
            stream.options = {"crf": "18", "preset": "fast", "x264-params": x264}
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, fps)
        time = 0
        for number in range(num_frames):
            image = draw_number(number, height=height, width=width)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, fps)
            time += 1 if step is None else step(number)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def numbered_videos(tmp_path_factory) -> dict[str, Path]:
    """40 frames of 10 per second (4 s), 23 frames (2.3 s), and 30 frames whose second half is four times slower."""
    folder = tmp_path_factory.mktemp("numbered")
    return {
        "long": write_numbered_video(folder / "long.mp4", num_frames=40),
        "short": write_numbered_video(folder / "short.mp4", num_frames=23),
        "uneven": write_numbered_video(
            folder / "uneven.mp4", num_frames=30, step=lambda number: 1 if number < 15 else 4
        ),
    }


@pytest.fixture(scope="session")
def numbers_in() -> Callable[[np.ndarray], list[int]]:
    return read_numbers


@pytest.fixture(scope="session")
def write_numbered() -> Callable[..., Path]:
    return write_numbered_video
