"""Feature directories: one VIDEO.npy of shape (L, D) for each video, and a manifest.json that says how they were made.

A failures.json beside them says of which videos there can be none: `{VIDEO: REASON}`, those that an extraction could not
decode and was told to skip.

The .npy files are what the field's other tools read. How row i of a file lies in its video follows from the manifest's grid:

rescale   the L rows are spread evenly over the whole video: row i stands for the time (i + 0.5) * duration / L.
sliding   the rows are one even sequence from the start of the video, `snippet_stride_sec` apart: row i stands for the time
          (i + 0.5) * snippet_stride_sec, and there is a row for each such time inside the video (at least one). The stride
          is grid.window_sec / fidelity.num_snippets, so a window of any place is a slice (between rows: interpolated).

Features from elsewhere need VIDEO.npy files (float32 or float16) and the least manifest, whose other keys are information:

    {"format_version": 1, "feature_width": 512,
     "fidelity": {"num_snippets": 100, "frames": 16, "height": 112, "width": 112},
     "grid": {"mode": "rescale"}}                     or {"mode": "sliding", "window_sec": 8.0}

Files are written beside their place and renamed into it: a file that is there is whole, so an extraction resumes by leaving
out `existing_videos`.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from lofi.fidelity import Fidelity
from lofi.files import write_atomically, write_json

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
FAILURES_NAME = "failures.json"

_NUM_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class FeatureManifest:
    """How every file of a feature directory was made. Plain JSON values; what has a default may be missing."""

    fidelity: dict[str, int]
    """num_snippets, frames, height, width at extraction."""
    grid: dict[str, Any]
    """The recipe's grid block: mode, window_sec, frame_rate, ..."""
    feature_width: int
    """D."""
    encoder: dict[str, Any] = field(default_factory=dict)
    """The encoder's recipe block, its name in it."""
    weights_sha256: str | None = None
    """Of the encoder's weights and buffers as they were used, whatever file they came from."""
    resize: str | None = None
    """How frames became height x width: data.resize of the recipe."""
    dtype: str | None = None
    """Of the files: float32 or float16."""
    versions: dict[str, str] = field(default_factory=dict)
    """Library name -> version."""
    adapter: dict[str, Any] = field(default_factory=dict)
    """What changed the encoder's features: its name, options and the hash of its weights; empty where nothing did."""
    parent: str | None = None
    """What these features were made from, where that is other features: that directory's manifest, as a hash or a path."""
    format_version: int = FORMAT_VERSION

    @property
    def snippet_stride_sec(self) -> float | None:
        """Seconds from one row to the next (sliding); None where each video has its own (rescale)."""
        if self.grid["mode"] == "rescale":
            return None
        return float(self.grid["window_sec"]) / self.fidelity["num_snippets"]


@dataclass(frozen=True, kw_only=True)
class FeatureDirectory:
    """A feature directory whose manifest has been read."""

    path: Path
    manifest: FeatureManifest

    def file(self, video: str) -> Path:
        if not video or "/" in video or "\\" in video:
            raise ValueError(f"{video!r} cannot name a feature file; it must not be empty or hold a slash.")
        return self.path / f"{video}.npy"

    def existing_videos(self) -> set[str]:
        """The names of the videos whose features are there."""
        return {file.name.removesuffix(".npy") for file in self.path.glob("*.npy")}


def create_feature_directory(path: str | Path, manifest: FeatureManifest) -> FeatureDirectory:
    """Make a feature directory, or go on with one that was begun with the same manifest.

    The same: in all that changes features. Library versions may differ, and so may the path of the encoder's weights, of
    which weights_sha256 says whether they are the same.

    Raises:
        ValueError: the folder's manifest differs (names the keys), or the folder has feature files but no manifest.
    """
    path = Path(path)
    directory = FeatureDirectory(path=path, manifest=manifest)
    if (path / MANIFEST_NAME).exists():
        there = _deciding_values(_read_manifest(path))
        differing = [
            f"{key} ({json.dumps(there[key])} there, {json.dumps(value)} now)"
            for key, value in _deciding_values(manifest).items()
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
    write_json(path / MANIFEST_NAME, _manifest_values(manifest))
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
    directory = FeatureDirectory(path=path, manifest=_read_manifest(path))
    check_features(directory, videos)
    return directory


def check_features(directory: FeatureDirectory, videos: Iterable[str]) -> None:
    """Check that each video has a file of the right shape and type (its values are checked when it is read).

    Raises:
        FileNotFoundError: videos without a file, all in one message.
        ValueError: a file that is wrong.
    """
    videos = list(videos)
    missing = [video for video in videos if not directory.file(video).is_file()]
    if missing:
        shown = ", ".join(missing[:_NUM_NAMES_SHOWN]) + (", ..." if len(missing) > _NUM_NAMES_SHOWN else "")
        raise FileNotFoundError(
            f"{len(missing)} of {len(videos)} videos have no features in {directory.path}: {shown}. Extract them (an "
            "extraction goes on where it stopped), or remove them from the annotations."
        )
    for video in videos:
        _open_array(directory, video)


def record_failures(directory: FeatureDirectory, failures: Mapping[str, str]) -> None:
    """Add videos that could not be decoded (video -> reason); a video whose features are there now is taken out."""
    file = directory.path / FAILURES_NAME
    known = {**_read_failures(directory), **failures}
    left = {video: reason for video, reason in sorted(known.items()) if not directory.file(video).is_file()}
    if left or file.is_file():
        write_json(file, left)


def failed_videos(directory: FeatureDirectory) -> dict[str, str]:
    """Video -> reason, of those that have no features because they could not be decoded.

    Raises:
        ValueError: a failures.json that is wrong.
    """
    failures = _read_failures(directory)
    return {video: reason for video, reason in failures.items() if not directory.file(video).is_file()}


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
    array = _open_array(directory, video)
    features = np.array(array if rows is None else array[rows[0] : rows[1]], dtype=np.float32)
    if not np.isfinite(features).all():
        bad_row = (rows[0] if rows else 0) + int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
        raise ValueError(
            f"{directory.file(video)} holds NaN or infinity (first in row {bad_row}); extract it again."
        )
    return features


def num_feature_rows(directory: FeatureDirectory, video: str) -> int:
    """L of one video's file."""
    return int(_open_array(directory, video).shape[0])


def _read_failures(directory: FeatureDirectory) -> dict[str, str]:
    file = directory.path / FAILURES_NAME
    try:
        failures = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{file}: not JSON: {error}. Remove it and extract again.") from None
    if not isinstance(failures, dict) or not all(isinstance(reason, str) for reason in failures.values()):
        raise ValueError(f"{file}: it must be an object of video -> reason. Remove it and extract again.")
    return failures


def _read_manifest(path: Path) -> FeatureManifest:
    file = path / MANIFEST_NAME
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} has no {MANIFEST_NAME}, so it is no feature directory (or its extraction never started)."
        ) from None
    except ValueError as error:
        raise ValueError(f"{file}: not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file}: the top level is no object.")
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{file}: format_version is {version!r}; this program reads {FORMAT_VERSION}. Extract the features again."
        )
    known = {each.name for each in fields(FeatureManifest)}
    needed = {
        each.name
        for each in fields(FeatureManifest)
        if each.default is MISSING and each.default_factory is MISSING
    }
    missing, unknown = sorted(needed - values.keys()), sorted(values.keys() - known)
    if missing or unknown:
        raise ValueError(f"{file}: missing keys: {missing or 'none'}; unknown keys: {unknown or 'none'}.")
    manifest = FeatureManifest(**values)
    _check_manifest(manifest, file)
    return manifest


def _check_manifest(manifest: FeatureManifest, file: Path) -> None:
    if not _is_count(manifest.feature_width):
        raise ValueError(
            f"{file}: feature_width is {manifest.feature_width!r}; it must be a positive whole number."
        )
    fidelity = manifest.fidelity
    names = {each.name for each in fields(Fidelity)}
    if (
        not isinstance(fidelity, dict)
        or fidelity.keys() != names
        or not all(map(_is_count, fidelity.values()))
    ):
        raise ValueError(
            f"{file}: fidelity is {fidelity!r}; it must be an object of the positive whole numbers num_snippets, frames, "
            "height and width."
        )
    grid = manifest.grid
    if not isinstance(grid, dict) or grid.get("mode") not in ("rescale", "sliding"):
        raise ValueError(f"{file}: grid is {grid!r}; it must be an object whose mode is rescale or sliding.")
    window_sec = grid.get("window_sec")
    if grid["mode"] == "sliding" and not _is_length(window_sec):
        raise ValueError(
            f"{file}: grid.window_sec is {window_sec!r}; sliding needs a positive number of seconds."
        )
    for key, wanted in _INFORMATION.items():
        value = getattr(manifest, key)
        if not isinstance(value, wanted):
            allowed = "an object" if wanted is dict else "a text or null"
            raise ValueError(f"{file}: {key} is {value!r}; it must be {allowed}.")


_INFORMATION: dict[str, Any] = {
    "encoder": dict,
    "versions": dict,
    "adapter": dict,
    "weights_sha256": str | None,
    "resize": str | None,
    "dtype": str | None,
    "parent": str | None,
}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _deciding_values(manifest: FeatureManifest) -> dict[str, Any]:
    """What two manifests of the same features have in common."""
    values = _manifest_values(manifest)
    del values["versions"]
    values["encoder"].pop("weights", None)
    return values


def _manifest_values(manifest: FeatureManifest) -> dict[str, Any]:
    """As they come back from JSON, so that tuples equal lists."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(manifest)))
    return values


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
