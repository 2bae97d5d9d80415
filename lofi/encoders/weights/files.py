"""A file of weights, opened: what it is by its first bytes, and its tensors.

Files are read with `weights_only=True`, which runs no code. Of Python's own types, `argparse.Namespace` is let through
besides: VideoMAE and TSP keep their command line beside the weights, and a namespace does nothing but hold values.
"""

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

WRAPPERS = ("state_dict", "model", "module", "model_state_dict", "model_state", "net")
"""Keys under which projects keep the state dict of a checkpoint, in the order in which they are tried."""

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
"""First bytes of what torch.save writes, now and before version 1.6."""

PROTOCOL = 2
"""Of the pickles that torch.save writes unless told otherwise, and that `weights_only` reads; the byte after PICKLE."""

MOST_HEADER_BYTES = 2**40
"""A .safetensors file begins with its header's length, and the header, JSON, with a brace. (The first letters of a text, taken as
a length, are far more.)"""

NO_WEIGHTS = (
    (
        r"version https://git-lfs",
        "a git-lfs pointer in place of the file: fetch the file with `git lfs pull`",
    ),
    (
        r"(?i)\s*<(!doctype|html|\?xml|head|body|script)",
        "a web page, not what it links to: download the file itself",
    ),
    (
        r"(?=(sys_info|pickle|storages|tensors)\0).{257}ustar",
        "a checkpoint in the tar format of PyTorch's first versions: if you trust it, open it once with "
        "torch.load(..., weights_only=False) and save it again with torch.save",
    ),
    (r"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|.{257}ustar", "an archive: unpack it and name the file inside"),
    (
        r"\x89HDF",
        "an HDF5 file, which other libraries than PyTorch write: save its state dict with torch.save",
    ),
)
"""Patterns of first bytes, read as Latin-1 -> what people have in place of weights, and what to do."""


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a .safetensors file or of a PyTorch checkpoint, on the CPU, and the metadata of the former.

    Raises:
        ValueError: for a file that is damaged, unsafe, or something else.
    """
    if file_format(path) == "safetensors":
        try:
            with safe_open(path, framework="pt") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118
        except (SafetensorError, OSError, RuntimeError, ValueError) as error:
            raise _damaged(path, error) from error
    try:
        # As an open file: of a path, torch.load looks at what its name ends in.
        with (
            path.open("rb") as file,
            torch.serialization.safe_globals([argparse.Namespace]),
            warnings.catch_warnings(action="ignore", category=UserWarning),  # of what the errors below say
        ):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (MemoryError, OSError):  # of the machine, not of the file
        raise
    except Exception as error:  # on damaged bytes an unpickler fails with whatever its operations fail with
        unsafe = _unsafe_content(error)
        if unsafe is None:
            what = _whole_but_not_read(path, error)
            if what is not None:
                raise ValueError(f"encoder.weights: {path} is no weights file but {what}.") from error
            raise _damaged(path, error) from error
        raise ValueError(
            f"encoder.weights: {path} holds more than tensors and plain values ({unsafe}), and reading it could run code. "
            "If you trust it, open it once with torch.load(..., weights_only=False) and save its state dict alone: "
            "torch.save(checkpoint['state_dict'], NEW)."
        ) from error
    return _tensors_of(content, path), {}


def file_format(path: Path) -> Literal["safetensors", "torch"]:
    """By the first bytes, whatever the name ends in. Raises ValueError for files that are neither."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise ValueError(f"encoder.weights: {path} cannot be read ({error.strerror}).") from error
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < MOST_HEADER_BYTES:
        return "safetensors"  # asked first: a length may begin with PICKLE
    if start.startswith((ZIP, PICKLE)):
        return "torch"
    if not start:
        raise ValueError(f"encoder.weights: {path} is empty; was its download cut off?")
    text = start.decode("latin-1")
    what = next((what for pattern, what in NO_WEIGHTS if re.match(pattern, text, re.DOTALL)), None)
    if what is not None:
        raise ValueError(f"encoder.weights: {path} is no weights file but {what}.")
    raise ValueError(
        f"encoder.weights: {path} is no weights file; it must be a .safetensors file or a PyTorch checkpoint, and begins as "
        f"neither does ({start[:16]!r})."
    )


def _unsafe_content(error: Exception) -> str | None:
    """What `weights_only` refused, where it refused something and the file was not merely unreadable."""
    if not isinstance(error, pickle.UnpicklingError):
        return None
    found = re.search(r"GLOBAL ([\w.]+)|(?:got|function) (<(?:class|function) [^>]+>)", str(error))
    return None if found is None else found[1] or found[2]


def _whole_but_not_read(path: Path, error: Exception) -> str | None:
    """What a file that begins as weights do is, and what to do; None where it is merely damaged."""
    with path.open("rb") as file:
        start = file.read(2)
    if start.startswith(PICKLE):
        if "Invalid magic number" in str(error):
            return "a pickle that torch.save did not write: save its state dict with torch.save"
        return _other_protocol(start)
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.partition("/")[2]: name for name in archive.namelist()}
            if "constants.pkl" in inside:
                return "a TorchScript program: save its weights alone, torch.save(torch.jit.load(FILE).state_dict(), NEW)"
            if "data.pkl" not in inside:
                return (
                    "a zip archive that torch.save did not write: unpack it and name the file inside; of arrays, such as "
                    "an .npz file's, save a state dict with torch.save"
                )
            with archive.open(inside["data.pkl"]) as file:
                return _other_protocol(file.read(2))
    except (zipfile.BadZipFile, RuntimeError, EOFError):
        return None


def _other_protocol(start: bytes) -> str | None:
    """`start`: a pickle's first two bytes."""
    if len(start) < 2 or not PROTOCOL < start[1] <= pickle.HIGHEST_PROTOCOL:
        return None
    return (
        f"a pickle of protocol {start[1]}, which is not read: if you trust it, open it once as it was saved (torch.load, "
        "pickle.load) and save its state dict again with torch.save"
    )


def _damaged(path: Path, error: Exception) -> ValueError:
    """Of a file that begins as weights do."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, (KeyError, IndexError, AssertionError, pickle.UnpicklingError)):
        reason = "its pickle makes no sense"
    return ValueError(f"encoder.weights: {path} cannot be read ({reason}); it is damaged or cut off.")


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Unwrap the dictionaries that projects put around a state dict."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    is_state = isinstance(content, Mapping) and len(content) > 0
    if not is_state or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(
            f"encoder.weights: {path} holds no state dict; it must map names to tensors, directly or under "
            f"{', '.join(WRAPPERS[:-1])} or {WRAPPERS[-1]}."
        )
    return {str(key): value for key, value in content.items()}
