"""Files that are there whole or not at all: written beside their place, then renamed into it.

A reader, or a run that starts again, sees the old file or the whole new one, whenever the writer was stopped. Any number
of processes may write the same path; the last one wins.
"""

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a temporary name in the same folder (made if missing), and rename it to `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
    try:
        write(partial)
        with partial.open("rb+") as stream:
            os.fsync(
                stream.fileno()
            )  # else a crash of the machine may leave the new name with nothing behind it
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file atomically."""
    write_atomically(path, lambda partial: partial.write_bytes(content))


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically, line ends as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any, *, indent: int | None = 1) -> None:
    """Write JSON (ASCII) atomically. NaN and infinity are refused (ValueError): other programs cannot read them."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")
