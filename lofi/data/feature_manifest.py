"""The manifest of a feature directory: how its files were made, and what time each of their rows stands for.

The forms are in `lofi.data.feature_store`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from lofi.data.grid import ONLY_FOR_HEADS, GridConfig
from lofi.fidelity import Fidelity
from lofi.files import write_json

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"

DURATION_TOLERANCE_SEC = 1.0
DURATION_TOLERANCE = 0.02
"""Features may be this much shorter or longer than the annotated duration, the larger of the two (seconds, and part of it):
what an extraction allows of videos too (`decode.check_duration`)."""


@dataclass(frozen=True, kw_only=True)
class FeatureManifest:
    """How every file of a feature directory was made. Plain JSON values; what has a default may be missing."""

    fidelity: dict[str, int]
    """num_snippets, frames, height, width at extraction; of features from elsewhere 1 where that is not known."""
    grid: dict[str, Any]
    """The recipe's grid block: mode, window_sec, frame_rate, ...; of an extraction without `grid.ONLY_FOR_HEADS`."""
    feature_width: int
    """D."""
    features_per_snippet: int = 1
    """R: rows that a snippet of `fidelity` gave, one after the other in time."""
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
    """What changed the encoder's features: its name, options, weights and their hash; `after`: what changed them before
    it, in the same form. Empty where nothing did."""
    parent: str | None = None
    """What these features were made from, where that is other features: that directory's manifest, as a hash or a path."""
    first_row_sec: float | None = None
    """Only with mode: sliding. The time that row 0 stands for; None: half a stride."""
    format_version: int = FORMAT_VERSION

    @property
    def rows_per_window(self) -> int:
        """Of a window at `fidelity`: L * R."""
        return self.fidelity["num_snippets"] * self.features_per_snippet

    @property
    def snippet_stride_sec(self) -> float | None:
        """Seconds from one row to the next (sliding); None where each video has its own (rescale)."""
        if self.grid["mode"] == "rescale":
            return None
        return float(self.grid["window_sec"]) / self.rows_per_window

    def row_positions(self, times_sec: np.ndarray, *, num_rows: int, duration_sec: float) -> np.ndarray:
        """Where times lie among a video's rows, in row index (0: on the first row); any shape, not clipped."""
        stride_sec = self.snippet_stride_sec
        if stride_sec is None:
            return times_sec * (num_rows / duration_sec) - 0.5
        positions: np.ndarray = (times_sec - self.row_times_sec(1)[0]) / stride_sec
        return positions

    def row_times_sec(self, num_rows: int, *, duration_sec: float | None = None) -> np.ndarray:
        """(L,) float64: the times that a video's rows stand for. duration_sec is needed with mode: rescale."""
        stride_sec = self.snippet_stride_sec
        if stride_sec is None:
            assert duration_sec is not None
            stride_sec = duration_sec / num_rows
        first_row_sec = stride_sec / 2 if self.first_row_sec is None else self.first_row_sec
        times_sec: np.ndarray = first_row_sec + np.arange(num_rows) * stride_sec
        return times_sec

    def wrong_length(self, *, num_rows: int, duration_sec: float) -> str | None:
        """What is wrong with the number of rows of a video of this duration; None where it may be right.

        One row more or less is rounding, and so is what DURATION_TOLERANCE_SEC and DURATION_TOLERANCE allow: published
        durations are of containers. Where rows are spread over the whole video, any number is right.
        """
        stride_sec = self.snippet_stride_sec
        if stride_sec is None:
            return None
        margin_sec = stride_sec if self.first_row_sec is None else 2 * self.first_row_sec
        expected = max(1, round((duration_sec - margin_sec) / stride_sec) + 1)
        tolerance_sec = max(DURATION_TOLERANCE_SEC, DURATION_TOLERANCE * duration_sec)
        if abs(num_rows - expected) <= max(1, math.floor(tolerance_sec / stride_sec)):
            return None
        return f"{num_rows} rows, but a video of {duration_sec:g} s has {expected} at one row every {stride_sec:g} s"


def read_manifest(path: Path) -> FeatureManifest:
    """Of the feature directory `path`. Raises FileNotFoundError where it has none, ValueError for a wrong one."""
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
    written_stride_sec = values.pop(_STRIDE_KEY, None)
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
    stride_sec = manifest.snippet_stride_sec
    if written_stride_sec is not None and not (
        _is_length(written_stride_sec)
        and stride_sec is not None
        and math.isclose(written_stride_sec, stride_sec, rel_tol=1e-6)
    ):
        raise ValueError(
            f"{file}: {_STRIDE_KEY} is {written_stride_sec!r}, but grid and fidelity give "
            f"{'none (mode: rescale)' if stride_sec is None else f'{stride_sec:g} (window_sec / rows)'}; one of them "
            "was changed by hand."
        )
    return manifest


def write_manifest(file: Path, manifest: FeatureManifest) -> None:
    """Atomically, with the stride that follows from it, for who reads it."""
    values = _manifest_values(manifest)
    if manifest.snippet_stride_sec is not None:
        values[_STRIDE_KEY] = manifest.snippet_stride_sec
    write_json(file, values)


def deciding_values(
    manifest: FeatureManifest, *, encoder_defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What two manifests of the same features have in common.

    Options of the grid and of the encoder that a manifest lacks were not there yet when it was written, and what was done
    then is their default.

    Args:
        manifest: of any age.
        encoder_defaults: option -> default, of the encoder that it names.
    """
    grid_defaults = {each.name: each.default for each in fields(GridConfig)}
    grid = {**grid_defaults, **manifest.grid}
    encoder = {**(encoder_defaults or {}), **manifest.encoder}
    values = _manifest_values(replace(manifest, grid=grid, encoder=encoder))
    for key in ONLY_FOR_HEADS:
        del values["grid"][key]
    del values["versions"]
    values["encoder"].pop(
        "weights", None
    )  # where they lay plays no part; weights_sha256 says which they were
    adapter: dict[str, Any] = values["adapter"]
    while adapter:
        adapter.pop("weights", None)
        adapter = adapter.get("after", {})
    if manifest.parent is not None:  # "NAME, manifest HASH": a directory may be moved
        values["parent"] = manifest.parent.rpartition(", manifest ")[2]
    return values


def _check_manifest(manifest: FeatureManifest, file: Path) -> None:
    for key in ("feature_width", "features_per_snippet"):
        if not _is_count(getattr(manifest, key)):
            raise ValueError(
                f"{file}: {key} is {getattr(manifest, key)!r}; it must be a positive whole number."
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
    first = manifest.first_row_sec
    if first is not None and (grid["mode"] != "sliding" or not _is_length(first)):
        raise ValueError(
            f"{file}: first_row_sec is {first!r}; it must be a positive number of seconds, and only with grid.mode sliding."
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


_STRIDE_KEY = "snippet_stride_sec"
"""Written for who reads a manifest; it follows from grid and fidelity, and must agree with them."""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _manifest_values(manifest: FeatureManifest) -> dict[str, Any]:
    """As they come back from JSON, so that tuples equal lists."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(manifest)))
    return values
