"""Decoded frames on disk, for data that are small enough: later epochs read them in place of the videos.

One .npy file for each reading of frames, named by a hash of what decides its content: the video file (path, size, time of
change), the frame indices, the height, the width, the resize and the decoder. Files are written beside their place and renamed into it,
so that any number of processes may share a folder, and are memory-mapped when read. A changed video gets new files; nothing
is ever deleted: remove the folder to get its space back.

What is known of each video (`VideoInfo`) is kept too, so that a cached window opens no video at all.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from lofi.data.video_info import DecoderChoice, Resize, VideoInfo
from lofi.fidelity import Fidelity
from lofi.files import write_atomically, write_json
from lofi.segments import Window

MAX_CACHED_CLIP_FRAMES = 512
"""A training clip whose place is drawn anew each epoch is cached with its whole segment, up to this many frames."""

ASSUMED_FPS = 30
"""Frames per second of a video, where a size is estimated before any is opened."""

_ARRAYS = ("timestamps_sec", "pts", "keyframe_pts")


class FrameCache:
    """A folder of decoded frames. Holds no open file, so it may be sent to other processes."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def frames(
        self,
        path: Path,
        indices: np.ndarray,
        *,
        height: int,
        width: int,
        resize: Resize,
        read: Callable[[], np.ndarray],
        decoder: DecoderChoice = "auto",
    ) -> np.ndarray:
        """(n, height, width, 3) uint8, read-only where it comes from disk; `read` decodes it where it is not there."""
        indices = np.ascontiguousarray(indices, dtype=np.int64)
        parts = (_identity(path), indices.tobytes(), f"{height}x{width} {resize} {decoder}".encode())
        file = self._file(parts, suffix=".npy")
        shape = (len(indices), height, width, 3)
        found = _load_array(file)
        if found is not None and found.shape == shape and found.dtype == np.uint8:
            return found
        frames = read()
        write_atomically(file, lambda partial: _save_array(partial, frames))
        return frames

    def video_info(
        self, path: Path, *, read: Callable[[], VideoInfo], decoder: DecoderChoice = "auto"
    ) -> VideoInfo:
        """What is known of the video; `read` opens it where it is not there."""
        file = self._file((_identity(path), f"info {decoder}".encode()), suffix=".json")
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            arrays = {name: None if values[name] is None else np.asarray(values[name]) for name in _ARRAYS}
            return VideoInfo(**{**values, **arrays})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        info = read()
        lists = {name: None if (array := vars(info)[name]) is None else array.tolist() for name in _ARRAYS}
        write_json(file, {**vars(info), **lists}, indent=None)
        return info

    def _file(self, parts: Iterable[bytes], *, suffix: str) -> Path:
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        name = digest.hexdigest()[:32]
        return self.folder / name[:2] / (name[2:] + suffix)


def estimate_cache_bytes(
    windows: Iterable[Window], fidelities: Iterable[Fidelity], *, jitter: bool = False
) -> int:
    """At most how many bytes the frames of these windows take, each at every one of the fidelities; copies of a window once.

    With `jitter` (clips whose place is drawn anew each epoch) a window is cached whole; its number of frames is taken at
    ASSUMED_FPS, since no video has been opened yet.
    """
    places = {(window.video, window.start_sec, window.end_sec): window.length_sec for window in windows}
    if not jitter:
        return sum(3 * fidelity.volume * len(places) for fidelity in set(fidelities))
    num_frames = 0
    for length_sec in places.values():
        frames = math.ceil(length_sec * ASSUMED_FPS)
        num_frames += frames if frames <= MAX_CACHED_CLIP_FRAMES else 0
    return sum(3 * fidelity.height * fidelity.width * num_frames for fidelity in set(fidelities))


def check_cache_room(folder: str | Path, *, num_bytes: int) -> int:
    """The free bytes on the disk of a cache.

    Raises:
        ValueError: `num_bytes` are more than these and what the cache holds already.
    """
    folder = Path(folder)
    free_bytes = shutil.disk_usage(folder).free
    if num_bytes > free_bytes:
        held_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if num_bytes > free_bytes + held_bytes:
            raise ValueError(
                f"data.frame_cache is {folder}, which needs up to {num_bytes / 2**30:.1f} GiB; its disk has "
                f"{free_bytes / 2**30:.1f} GiB free and the cache holds {held_bytes / 2**30:.1f} GiB. Make room, name a "
                "folder on another disk, or remove data.frame_cache."
            )
    return free_bytes


def _identity(path: Path) -> bytes:
    status = path.stat()
    return f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}".encode()


def _load_array(file: Path) -> np.ndarray | None:
    """The memory-mapped array; None where there is none, or no whole one."""
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None


def _save_array(file: Path, array: np.ndarray) -> None:
    with file.open("wb") as stream:  # np.save would add .npy to the partial file's name
        np.save(stream, array, allow_pickle=False)
