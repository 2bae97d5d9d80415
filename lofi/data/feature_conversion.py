"""Other tools' feature files -> an ordinary feature directory, checked against the annotations.

What is right is converted; what is wrong is left out and listed (CONVERSION_NAME beside the features, and failures.json, so
that a recipe with `data.on_decode_error: skip` trains on the rest). Started again, files that are there are left alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from lofi.data.annotations import AnnotatedVideo, Annotations
from lofi.data.feature_failures import record_failures
from lofi.data.feature_files import FeatureFiles
from lofi.data.feature_layout import KnownLayout, Layout, find_layout
from lofi.data.feature_store import (
    FeatureDirectory,
    FeatureManifest,
    create_feature_directory,
    remove_unfinished,
    write_feature,
)
from lofi.data.feature_times import RowTimes, interpolate_to, with_times
from lofi.files import write_json
from lofi.progress import say, track

CONVERSION_NAME = "conversion.json"

DENSE_SNIPPETS = 128
"""Rows of a window of dense features, where nobody says; a recipe's own grid.window_sec decides in training."""

_NUM_SHOWN = 5
_NUM_TRIED = 20
"""Videos whose names are looked for inside the files' names, for a hint."""

KINDS = ("missing", "unreadable", "wrong width", "wrong length", "not finite")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was found and done."""

    num_annotated: int
    num_converted: int
    """Now; where nothing is written, those that are right."""
    num_whole: int
    """There already."""
    layout: str
    width: int
    problems: dict[str, dict[str, str]] = field(default_factory=dict)
    """One of KINDS -> video -> what is wrong, of those that have any."""
    not_annotated: tuple[str, ...] = ()
    """Names in the source that no annotated video has; left out."""
    interpolated: tuple[str, ...] = ()
    """Videos whose rows had times of their own."""

    @property
    def num_wrong(self) -> int:
        return sum(len(videos) for videos in self.problems.values())

    def lines(self) -> list[str]:
        """A table of what was found, to be printed; CONVERSION_NAME has all of it."""
        lines = [
            f"{self.num_annotated} annotated videos: {self.num_converted} are right, {self.num_whole} were whole already, "
            f"{self.num_wrong} are wrong ({self.layout}, width {self.width})"
        ]
        for kind, videos in self.problems.items():
            for index, (video, problem) in enumerate(videos.items()):
                if index == _NUM_SHOWN:
                    lines.append(f"  {'':12}  ... and {len(videos) - _NUM_SHOWN} more")
                    break
                lines.append(f"  {kind:12}  {video}: {problem}")
        if self.interpolated:
            lines.append(
                f"of another frame rate, so their rows were interpolated to the common stride: {len(self.interpolated)}"
            )
        if self.not_annotated:
            shown = ", ".join(self.not_annotated[:_NUM_SHOWN]) + (
                ", ..." if len(self.not_annotated) > _NUM_SHOWN else ""
            )
            lines.append(
                f"left out, since no annotated video is called so: {len(self.not_annotated)} ({shown})"
            )
        return lines


def convert_features(
    files: FeatureFiles,
    annotations: Annotations,
    *,
    times: RowTimes,
    own_times: Mapping[str, RowTimes] | None = None,
    name: str,
    output: str | Path | None,
    layout: Layout | None = None,
    width: int | None = None,
    num_snippets: int | None = None,
    file_name: str = "{video}",
    dtype: str = "float32",
) -> Conversion:
    """Check the features of every annotated video, and write those that are right.

    Args:
        files: of another tool.
        annotations: whose videos are wanted.
        times: of the rows.
        own_times: of the videos whose rows lie otherwise, such as those of another frame rate: their rows are interpolated
            to `times`, since a feature directory has one stride.
        name: of what made the features, for the manifest.
        output: the new feature directory; None only checks.
        layout, width: see `feature_layout.find_layout`.
        num_snippets: rows of a window. None: of dense features DENSE_SNIPPETS; else the number of rows that all videos have.
        file_name: what a video is called in `files`, with {video} for its annotated name.
        dtype: of the new files.

    Raises:
        ValueError: names, shapes or an output that do not fit, before anything is written.
    """
    stored = _stored_names(files, annotations, file_name=file_name)
    found = {video: stored[video] for video in sorted(stored) if stored[video] in files.names}
    problems: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    for video in sorted(stored.keys() - found.keys()):
        problems["missing"][video] = f"there is no {stored[video]} in {files.path}."
    shapes = _read_shapes(files, found, unreadable=problems["unreadable"])
    known = find_layout(list(shapes.values()), layout=layout, width=width)
    say(f"layout {known.reason}")
    manifest = FeatureManifest(
        encoder={"name": name},
        feature_width=known.width,
        fidelity={
            "num_snippets": num_snippets or _snippets_of(shapes, known, times),
            "frames": times.frames or 1,
            "height": 1,
            "width": 1,
        },
        grid={"mode": "rescale"},
        dtype=dtype,
        parent=f"{files.path.name} ({known.layout})",
    )
    manifest = with_times(manifest, times)
    directory = None if output is None else create_feature_directory(output, manifest)
    whole: set[str] = set()
    if directory is not None:
        remove_unfinished(directory)
        whole = directory.existing_videos()
    num_converted = 0
    interpolated: list[str] = []
    with track(
        "features checked" if directory is None else "features converted", total=len(shapes)
    ) as advance:
        for video in shapes:
            advance(1)
            if video in whole:
                continue
            try:
                features = files.read(found[video])
            except ValueError as error:
                problems["unreadable"][video] = str(error)
                continue
            features = features if known.layout == "LD" else features.T
            own = (own_times or {}).get(video, times)
            own_manifest = with_times(manifest, own)
            problem = _problem_of(features, annotations.videos[video], own_manifest, dtype=dtype)
            if problem is not None:
                problems[problem[0]][video] = problem[1]
                continue
            if own != times:
                features = interpolate_to(features, own=own_manifest, common=manifest)
                interpolated.append(video)
            num_converted += 1
            if directory is not None:
                write_feature(directory, video, features, dtype=dtype)
    result = Conversion(
        num_annotated=len(stored),
        num_converted=num_converted,
        num_whole=len(whole & stored.keys()),
        layout=known.layout,
        width=known.width,
        problems={kind: videos for kind, videos in problems.items() if videos},
        not_annotated=tuple(sorted(files.names - set(stored.values()))),
        interpolated=tuple(interpolated),
    )
    if directory is not None:
        _write_findings(directory, result)
    return result


def _stored_names(files: FeatureFiles, annotations: Annotations, *, file_name: str) -> dict[str, str]:
    """Video -> its name in the files."""
    if "{video}" not in file_name:
        raise ValueError(
            f"the file name {file_name!r} must hold {{video}}, in whose place a video's name is put."
        )
    stored = {video: file_name.replace("{video}", video) for video in annotations.videos}
    if not files.names & set(stored.values()):
        there, wanted = sorted(files.names), sorted(stored.values())
        hint = next(
            (
                name.replace(video, "{video}")
                for video in annotations.videos
                for name in there
                if video in name
            ),
            "v_{video}",
        )
        raise ValueError(
            f"none of the {len(stored)} annotated videos is in {files.path}: it has {', '.join(there[:2])}, and wanted are "
            f"{', '.join(wanted[:2])}. Say what the files are called (--file-name), such as {hint!r}."
        )
    return stored


def _read_shapes(
    files: FeatureFiles, found: Mapping[str, str], *, unreadable: dict[str, str]
) -> dict[str, tuple[int, int]]:
    shapes = {}
    with track("shapes read", total=len(found)) as advance:
        for video, name in found.items():
            try:
                shapes[video] = files.shape(name)
            except ValueError as error:
                unreadable[video] = str(error)
            advance(1)
    if not shapes:
        raise ValueError(f"not one of {len(found)} files can be read: {next(iter(unreadable.values()))}")
    return shapes


def _snippets_of(shapes: Mapping[str, tuple[int, int]], known: KnownLayout, times: RowTimes) -> int:
    if times.stride_sec is not None:
        return DENSE_SNIPPETS
    lengths = sorted({shape[0 if known.layout == "LD" else 1] for shape in shapes.values()})
    if len(lengths) > 1:
        raise ValueError(
            f"the videos have {lengths[0]} to {lengths[-1]} rows, spread over each video; say to how many snippets they are "
            "interpolated when they are read (--snippets; 100 is the habit), or the stride if they are one even sequence."
        )
    return lengths[0]


def _problem_of(
    features: np.ndarray, video: AnnotatedVideo, manifest: FeatureManifest, *, dtype: str
) -> tuple[str, str] | None:
    """(kind, what is wrong) of one video's (L, D) array, or None."""
    num_rows, width = features.shape
    if width != manifest.feature_width:
        return (
            "wrong width",
            f"it is {width} wide; the others are {manifest.feature_width} (shape {features.shape}).",
        )
    length = manifest.wrong_length(num_rows=num_rows, duration_sec=video.duration_sec)
    if length is not None:
        return "wrong length", f"{length}."
    with np.errstate(over="ignore"):
        is_bad = ~np.isfinite(features.astype(dtype)).all(axis=1)
    if is_bad.any():
        return (
            "not finite",
            f"{int(is_bad.sum())} of {num_rows} rows hold NaN or infinity as {dtype}, the first is row {int(is_bad.argmax())}.",
        )
    return None


def _write_findings(directory: FeatureDirectory, result: Conversion) -> None:
    write_json(directory.path / CONVERSION_NAME, asdict(result))
    record_failures(
        directory,
        {
            video: f"{kind}: {problem}"
            for kind, videos in result.problems.items()
            for video, problem in videos.items()
        },
    )
