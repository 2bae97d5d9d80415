"""Feature directories: one VIDEO.npy of shape (L, D) for each video, and a manifest.json that says how they were made.

A failures.json beside the manifest, not in it, says of which videos there can be none (`lofi.data.feature_failures`).

The .npy files are what the field's other tools read. How row i of a file lies in its video follows from the manifest's grid:

rescale   the L rows are spread evenly over the whole video: row i stands for the time (i + 0.5) * duration / L.
sliding   the rows are one even sequence from the start of the video, `snippet_stride_sec` apart: row i stands for the time
          (i + 0.5) * snippet_stride_sec, and there is a row for each such time inside the video (at least one). The stride
          is grid.window_sec / fidelity.num_snippets, so a window of any place is a slice (between rows: interpolated).

Features from elsewhere need VIDEO.npy files (float32 or float16) and the least manifest, whose other keys are information:

    {"format_version": 1, "feature_width": 512,
     "fidelity": {"num_snippets": 100, "frames": 16, "height": 112, "width": 112},
     "grid": {"mode": "rescale"}}                     or {"mode": "sliding", "window_sec": 8.0}

Where a sliding manifest has `"first_row_sec": T`, row i stands for the time T + i * snippet_stride_sec: tools that cut a
video into snippets of 16 frames from its first frame on have their first row at 8 frames, whatever the stride.

Files are written beside their place and renamed into it: a file that is there is whole, so an extraction resumes by leaving
out `existing_videos`. What a killed writer leaves is a hidden .VIDEO.npy.*.partial, which `remove_unfinished` clears away.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lofi.data.feature_manifest import (
    MANIFEST_NAME,
    FeatureManifest,
    deciding_values,
    read_manifest,
    write_manifest,
)
from lofi.files import write_atomically, write_json
from lofi.progress import is_main_rank, track

__all__ = [
    "CHECKED_NAME",
    "MANIFEST_NAME",
    "FeatureDirectory",
    "FeatureManifest",
    "check_features",
    "check_length",
    "create_feature_directory",
    "num_feature_rows",
    "open_feature_directory",
    "read_feature",
    "remove_unfinished",
    "write_feature",
]

CHECKED_NAME = "checked.json"
"""`{VIDEO: [SIZE, TIME]}`, the files whose values were read and are finite. It may be removed at any time."""

_NUM_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class FeatureDirectory:
    """A feature directory whose manifest has been read."""

    path: Path
    manifest: FeatureManifest
    parts: "tuple[FeatureDirectory, ...]" = ()
    """Of several directories read as one (`joined_features`): all of them. `path` is the first one's."""

    def file(self, video: str) -> Path:
        if not video or "/" in video or "\\" in video:
            raise ValueError(f"{video!r} cannot name a feature file; it must not be empty or hold a slash.")
        return self.path / f"{video}.npy"

    def existing_videos(self) -> set[str]:
        """The names of the videos whose features are there."""
        if self.parts:
            return set.intersection(*(part.existing_videos() for part in self.parts))
        return {file.name.removesuffix(".npy") for file in self.path.glob("*.npy")}


def create_feature_directory(
    path: str | Path, manifest: FeatureManifest, *, encoder_defaults: Mapping[str, Any] | None = None
) -> FeatureDirectory:
    """Make a feature directory, or go on with one that was begun with the same manifest.

    The same: in all that changes features. Library versions may differ, and so may the path of the encoder's weights, of
    which weights_sha256 says whether they are the same. An option that the older manifest does not know is at its default.

    Args:
        path: of the folder.
        manifest: of the features that will be written.
        encoder_defaults: option -> default, of the manifest's encoder.

    Raises:
        ValueError: the folder's manifest differs (names the keys), or the folder has feature files but no manifest.
    """
    path = Path(path)
    directory = FeatureDirectory(path=path, manifest=manifest)
    if (path / MANIFEST_NAME).exists():
        before = read_manifest(path)
        is_same_encoder = before.encoder.get("name") == manifest.encoder.get("name")
        there = deciding_values(before, encoder_defaults=encoder_defaults if is_same_encoder else None)
        differing = [
            f"{key} ({json.dumps(there[key])} there, {json.dumps(value)} now)"
            for key, value in deciding_values(manifest).items()
            if there[key] != value
        ]
        if differing:
            raise ValueError(
                f"{path} holds features that were made otherwise: {'; '.join(differing)}. "
                "Name another folder, or remove this one."
            )
        return directory
    if directory.existing_videos():
        raise ValueError(
            f"{path} holds .npy files but no {MANIFEST_NAME}, so how they were made is unknown; name another folder."
        )
    write_manifest(path / MANIFEST_NAME, manifest)
    return directory


def open_feature_directory(path: str | Path, *, videos: Iterable[str] = ()) -> FeatureDirectory:
    """Read the manifest, and check the files of `videos` as `check_features` does.

    Raises:
        FileNotFoundError: no folder, no manifest, or videos without a file.
        ValueError: a manifest or a file that is wrong, by name.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"the feature directory {path} does not exist; extract features first.")
    directory = FeatureDirectory(path=path, manifest=read_manifest(path))
    check_features(directory, videos)
    return directory


def check_features(
    directory: FeatureDirectory,
    videos: Iterable[str],
    *,
    durations_sec: Mapping[str, float] | None = None,
) -> None:
    """Check that each video has a file of the right shape and type, whose values are finite.

    Values are read once: CHECKED_NAME in the directory remembers the files (by size and time of change) that were found
    right. Of several ranks the main one reads them.

    Args:
        directory: of the files.
        videos: their names.
        durations_sec: of these videos, as annotated; the number of rows is checked against it.

    Raises:
        FileNotFoundError: videos without a file, all in one message.
        ValueError: a file that is wrong, and how many more are.
    """
    videos = list(videos)
    if directory.parts:
        for part in directory.parts:
            check_features(part, videos, durations_sec=durations_sec)
        _check_each(videos, lambda video: num_feature_rows(directory, video))
        return
    missing = [video for video in videos if not directory.file(video).is_file()]
    if missing:
        shown = ", ".join(missing[:_NUM_NAMES_SHOWN]) + (", ..." if len(missing) > _NUM_NAMES_SHOWN else "")
        raise FileNotFoundError(
            f"{len(missing)} of {len(videos)} videos have no features in {directory.path}: {shown}. Extract them (an "
            "extraction goes on where it stopped), or remove them from the annotations."
        )

    def check_form(video: str) -> None:
        num_rows = len(_open_array(directory, video))
        if durations_sec is not None:
            check_length(directory, video, num_rows=num_rows, duration_sec=durations_sec[video])

    _check_each(videos, check_form)
    if is_main_rank():
        _check_values(directory, videos)


def check_length(directory: FeatureDirectory, video: str, *, num_rows: int, duration_sec: float) -> None:
    """Raise ValueError where a file has too few or too many rows for its video."""
    problem = directory.manifest.wrong_length(num_rows=num_rows, duration_sec=duration_sec)
    if problem is not None:
        raise ValueError(
            f"{directory.file(video)} has {problem}; the annotations' duration or the features are of another video. "
            "Extract them again."
        )


def remove_unfinished(directory: FeatureDirectory) -> None:
    """Clear away what a killed writer left. Not beside a writer in the same directory, whose file would go too."""
    for file in directory.path.glob(".*.npy.*.partial"):
        file.unlink(missing_ok=True)


def write_feature(
    directory: FeatureDirectory, video: str, features: np.ndarray, *, dtype: str = "float32"
) -> None:
    """Write one video's features atomically. Args: features: (L, D), finite. dtype: float32 or float16, on disk."""
    file = directory.file(video)
    if dtype not in ("float32", "float16"):
        raise ValueError(f"features are stored as float32 or float16, not as {dtype}.")
    _check_shape(features.shape, directory=directory, file=file)
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(features, dtype=dtype)
    if not np.isfinite(stored).all():
        raise ValueError(
            f"the features of {video} hold NaN or infinity as {dtype}; {file} was not written. Check the encoder's "
            "weights and precision" + (", or store float32." if dtype == "float16" else ".")
        )
    write_atomically(file, lambda partial: _save_array(partial, stored))


def read_feature(
    directory: FeatureDirectory, video: str, *, rows: tuple[int, int] | None = None
) -> np.ndarray:
    """One video's features, or the rows from rows[0] up to rows[1], checked.

    Returns:
        (L, D) float32.

    Raises:
        FileNotFoundError, ValueError: the file is missing, of another shape, or holds NaN or infinity.
    """
    if directory.parts:
        num_feature_rows(directory, video)
        return np.concatenate([read_feature(part, video, rows=rows) for part in directory.parts], axis=1)
    array = _open_array(directory, video)
    features = np.array(array if rows is None else array[rows[0] : rows[1]], dtype=np.float32)
    if not np.isfinite(features).all():
        bad_row = (rows[0] if rows else 0) + int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
        raise ValueError(
            f"{directory.file(video)} holds NaN or infinity (first in row {bad_row}); extract it again."
        )
    return features


def num_feature_rows(directory: FeatureDirectory, video: str) -> int:
    """L of one video's file. Raises ValueError where joined directories differ."""
    if directory.parts:
        counts = {str(part.path): num_feature_rows(part, video) for part in directory.parts}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"the features of {video} have {', '.join(f'{count} rows in {path}' for path, count in counts.items())}; joined "
                "features need a row of each for the same time. Extract them again on one grid."
            )
        return next(iter(counts.values()))
    return int(_open_array(directory, video).shape[0])


def _check_each(videos: Iterable[str], check: Callable[[str], object]) -> None:
    """One ValueError for all that raise one: the first, and how many more there are."""
    problems = []
    for video in videos:
        try:
            check(video)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        further = f" ({len(problems) - 1} further files are wrong.)" if len(problems) > 1 else ""
        raise ValueError(problems[0] + further)


def _check_values(directory: FeatureDirectory, videos: list[str]) -> None:
    """Read the files that are new since they were last read."""
    checked = _read_checked(directory)
    stamps = {video: _stamp(directory.file(video)) for video in videos}
    new = [video for video in videos if checked.get(video) != stamps[video]]
    if not new:
        return
    passed: dict[str, list[int]] = {}
    with track(f"features read through, {directory.path.name}", total=len(new)) as advance:

        def check(video: str) -> None:
            advance(1)
            read_feature(directory, video)
            passed[video] = stamps[video]

        try:
            _check_each(new, check)
        finally:
            with suppress(OSError):  # a directory that may not be written is read through each time
                write_json(directory.path / CHECKED_NAME, checked | passed)


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _read_checked(directory: FeatureDirectory) -> dict[str, Any]:
    """Whatever is wrong with the list only means that files are read again."""
    try:
        checked = json.loads((directory.path / CHECKED_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return checked if isinstance(checked, dict) else {}


def _open_array(directory: FeatureDirectory, video: str) -> np.ndarray:
    file = directory.file(video)
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} does not exist; extract the features of {video}.") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{file} is not a whole .npy file ({error}); extract it again.") from None
    if array.dtype not in (np.float32, np.float16):
        raise ValueError(f"{file} holds {array.dtype}; features are float32 or float16.")
    _check_shape(array.shape, directory=directory, file=file)
    return array


def _check_shape(shape: tuple[int, ...], *, directory: FeatureDirectory, file: Path) -> None:
    width = directory.manifest.feature_width
    if len(shape) != 2 or shape[0] < 1 or shape[1] != width:
        raise ValueError(
            f"{file}: the shape is {shape}; it must be (L, {width}), L at least 1 and {width} the manifest's "
            "feature_width."
        )


def _save_array(file: Path, array: np.ndarray) -> None:
    with file.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
