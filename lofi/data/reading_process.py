"""Videos read in a process of their own, which may crash or hang without harm: it is ended, and the video named.

A decoder is a library in C that meets whatever people have on their disks. Here it lives in a child process, one for each
process that reads (a training process, or each of its workers). Where nothing comes of the child for `timeout_sec`, it is
killed; where it dies, that is seen at once; either is a `DecodeError` of the video that it was reading, like any other
failure, and the next reading starts a new child. Whatever else goes wrong in the child over a file, memory that does not
suffice included, is a `DecodeError` too. Frames come back through a socket, as they are; what decoders print is dropped.

The child loads numpy and the decoders, no torch: 60 MiB with a short video open, 90 once decord has read frames of 112 x 112
(65 by PyAV). A video of 324,000 frames, three hours, takes 40 MiB more to open, and up to 100 more while it is read. The
child ends with its parent, however that one ends.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np

from lofi.data.decode import VideoReader, open_video
from lofi.data.video_info import DecodeError, DecoderChoice, Resize, VideoInfo

START_SEC = 120.0
"""How long a child may take to start, on a machine that is busy with other things."""

SIGN_OF_LIFE_SEC = 0.5
"""A child that decodes says so this often, at most."""


class ReadingProcess:
    """A child that reads videos, started when it is first needed. Of one process; it does not travel to another."""

    def __init__(self, *, timeout_sec: float, decoder: DecoderChoice = "auto") -> None:
        """timeout_sec: how long the child may go without decoding a frame (or up to 32, by decord)."""
        self._timeout_sec = timeout_sec
        self._decoder = decoder
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any] | None = None

    @property
    def pid(self) -> int | None:
        """The child's, where one runs."""
        return None if self._child is None else self._child.pid

    def open(self, path: str | Path, *, info: VideoInfo | None = None) -> "RemoteReader":
        """As `lofi.data.decode.open_video`."""
        path = Path(path)
        if info is None:
            (info,) = self._ask(path, "open", path, self._decoder)
        return RemoteReader(self, path, info)

    def read(
        self, path: Path, info: VideoInfo, indices: np.ndarray, **size: Any
    ) -> tuple[np.ndarray, VideoInfo, int]:
        """Frames (n, H, W, 3), what is known of the video now, and how many distinct frames were decoded."""
        shape, info, num_decoded = self._ask(path, "read", path, self._decoder, info, indices, size)
        frames = np.empty(shape, dtype=np.uint8)
        if frames.size:
            assert self._pipe is not None
            self._pipe.recv_bytes_into(frames.data.cast("B"))
        return frames, info, num_decoded

    def close(self) -> None:
        """End the child, where there is one."""
        child, pipe, self._child, self._pipe = self._child, self._pipe, None, None
        if pipe is not None:
            pipe.close()  # a child that waits sees this and ends
        if child is not None:
            try:
                child.wait(1)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_child": None, "_pipe": None}

    def _ask(self, path: Path, *request: Any) -> tuple[Any, ...]:
        if self._child is not None and self._child.poll() is not None:
            self.close()  # it has died since, of nothing that is known
        if self._child is None:
            self._child, self._pipe = _start_child()
        assert self._pipe is not None
        try:
            self._pipe.send(request)
            while True:
                if not self._pipe.poll(self._timeout_sec):
                    self._child.kill()
                    self.close()
                    raise DecodeError(
                        str(path),
                        f"nothing has come of it for {self._timeout_sec:g} s (data.decode_timeout_sec); the process that "
                        "read it was ended.",
                    )
                kind, *answer = self._pipe.recv()
                if kind == "answer":
                    return tuple(answer)
                if kind == "refused":
                    raise DecodeError(*answer)
                if kind == "fault":
                    raise RuntimeError(f"reading {path} failed:\n{answer[0]}")
        except (EOFError, ConnectionError):
            raise DecodeError(str(path), f"the process that read it {self._how_it_ended()}.") from None

    def _how_it_ended(self) -> str:
        child = self._child
        assert child is not None
        self.close()
        code = child.returncode
        if code is None or code >= 0:
            return f"ended with code {code}"
        name = signal.Signals(-code).name
        return f"died of {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


class RemoteReader:
    """A video that a child reads: used as a `VideoReader` is."""

    def __init__(self, process: ReadingProcess, path: Path, info: VideoInfo) -> None:
        self.path = path
        self.info = info
        self.num_frames_decoded = 0
        self._process = process

    def read(self, indices: np.ndarray, *, height: int, width: int, resize: Resize = "crop") -> np.ndarray:
        """As `VideoReader.read`."""
        frames, self.info, num_decoded = self._process.read(
            self.path, self.info, np.asarray(indices), height=height, width=width, resize=resize
        )
        self.num_frames_decoded += num_decoded
        return frames


def _start_child() -> tuple["subprocess.Popen[bytes]", "Connection[Any, Any]"]:
    """Not by multiprocessing: a loader's workers may have no children of that kind."""
    ours, theirs = Pipe()
    number = theirs.fileno()
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from lofi.data.reading_process import serve; serve({number}, {os.getpid()})",
        ],
        stdin=subprocess.DEVNULL,
        pass_fds=(number,),
        env={**os.environ, "PYTHONPATH": paths},
    )
    theirs.close()
    if not ours.poll(START_SEC):
        child.kill()
        raise RuntimeError(f"a process that reads videos has not started within {START_SEC:g} s.")
    try:
        ours.recv()
    except EOFError:
        raise RuntimeError(f"a process that reads videos cannot start (code {child.wait()}).") from None
    return child, ours


def serve(number: int, parent: int) -> None:
    """The child: answer requests until the parent is gone. Args: number: of the socket's file; parent: its process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    pipe: Connection[Any, Any] = Connection(number)
    pipe.send("ready")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)  # decoders print what they think of a file
    last_sign = time.monotonic()

    def on_progress() -> None:
        nonlocal last_sign
        now = time.monotonic()
        if now - last_sign > SIGN_OF_LIFE_SEC:
            last_sign = now
            pipe.send(("alive",))

    reader: VideoReader | None = None
    while True:
        try:
            kind, path, decoder, *request = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            if kind == "open":
                reader = None  # close the old one first
                reader = open_video(path, decoder=decoder, on_progress=on_progress)
                pipe.send(("answer", reader.info))
                continue
            info, indices, size = request
            if reader is None or reader.path != path:
                reader = None
                reader = open_video(path, info=info, decoder=decoder, on_progress=on_progress)
            before = reader.num_frames_decoded
            frames = reader.read(indices, **size)
            pipe.send(("answer", frames.shape, reader.info, reader.num_frames_decoded - before))
            if frames.size:
                pipe.send_bytes(np.ascontiguousarray(frames).data.cast("B"))
        except DecodeError as error:
            reader = None
            pipe.send(("refused", error.video, error.reason))
        except (
            ImportError,
            ValueError,
        ):  # no decoder, or frames asked for that there are not: no file's fault
            reader = None
            pipe.send(("fault", traceback.format_exc()))
        except Exception as error:
            reader = None
            pipe.send(("refused", str(path), _reason(error)))


def _reason(error: Exception) -> str:
    """One line for what nobody foresaw: a file that is damaged in a way of its own, or too large."""
    if isinstance(error, MemoryError):
        return "there is not enough memory to read it."
    place = traceback.extract_tb(error.__traceback__)[-1]
    told = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
    return f"reading it failed: {told} ({Path(place.filename).name}, line {place.lineno})."


def _end_with(parent: int) -> None:
    """A thread of a child that may never look at its socket again: end it when the parent is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
