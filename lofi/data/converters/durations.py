"""Durations (and frame rates) of videos from files that others have made, for datasets that do not say them.

    CSV     a header with a column of names (video, video_id, filename, ...) and one of seconds (duration, video-duration, ...)
    JSON    {VIDEO: SECONDS}, {VIDEO: {"duration": SECONDS, "fps": RATE}}, or a file in ActivityNet's form

A name may carry its extension: "video_test_0000004.mp4".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lofi.data.annotations import VIDEO_EXTENSIONS
from lofi.data.converters.official import Official
from lofi.data.converters.source_files import positive_or_none, read_object, read_rows

NAME_COLUMNS = ("video", "video_id", "video-name", "video_name", "filename", "name", "id")
DURATION_COLUMNS = ("duration", "video-duration", "duration_sec", "duration_second", "seconds", "length")
FPS_COLUMNS = ("fps", "frame-rate", "frame_rate")
DIFFERENCE_SEC = 1.0
"""Two files may differ this much about a video's duration."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """What a file says of one video."""

    duration_sec: float
    fps: float | None = None


def read_durations(paths: Iterable[Path]) -> dict[str, Length]:
    """Video -> its length, from one or more files.

    Raises:
        ValueError: a file cannot be read, has none of the columns, or two differ by more than a second about a video.
    """
    lengths: dict[str, Length] = {}
    for path in paths:
        found = _read_json(path) if path.suffix.lower() == ".json" else _read_csv(path)
        if not found:
            raise ValueError(f"{path}: says no duration of any video.")
        for name, length in found.items():
            known = lengths.setdefault(name, length)
            if abs(known.duration_sec - length.duration_sec) > DIFFERENCE_SEC:
                raise ValueError(
                    f'{path}: video "{name}" lasts {length.duration_sec:g} s, in another file {known.duration_sec:g} s.'
                )
    return lengths


def with_lengths(official: Official, lengths: Mapping[str, Length]) -> Official:
    """The dataset with the durations and frame rates that its own files lack."""
    videos = {
        name: replace(
            video,
            duration_sec=video.duration_sec or lengths[name].duration_sec,
            fps=video.fps or lengths[name].fps,
        )
        if name in lengths
        else video
        for name, video in official.videos.items()
    }
    return replace(official, videos=videos)


def without_duration(official: Official) -> list[str]:
    """Names of the videos whose duration is not known."""
    return [name for name, video in official.videos.items() if video.duration_sec is None]


def _read_json(path: Path) -> dict[str, Length]:
    content = read_object(path)
    database = content.get("database", content)
    if not isinstance(database, dict):
        raise ValueError(f'{path}: "database" must be an object.')
    lengths = {}
    for name, value in database.items():
        entry = value if isinstance(value, dict) else {"duration": value}
        duration_sec = positive_or_none(entry.get("duration"))
        if duration_sec is not None:
            lengths[_stem(name)] = Length(duration_sec=duration_sec, fps=positive_or_none(entry.get("fps")))
    return lengths


def _read_csv(path: Path) -> dict[str, Length]:
    lengths = {}
    for where, row in read_rows(path, columns=()):
        name, duration = _cell(row, NAME_COLUMNS), _cell(row, DURATION_COLUMNS)
        if name is None or duration is None:
            raise ValueError(
                f"{path}: needs a column of names ({', '.join(NAME_COLUMNS)}) and one of seconds "
                f"({', '.join(DURATION_COLUMNS)}); the first line has {', '.join(row)[:200]}."
            )
        duration_sec = positive_or_none(duration)
        if duration_sec is None:
            raise ValueError(
                f"{where}: the duration is {duration!r}; it must be a positive number of seconds."
            )
        lengths[_stem(name)] = Length(
            duration_sec=duration_sec, fps=positive_or_none(_cell(row, FPS_COLUMNS))
        )
    return lengths


def _cell(row: Mapping[str, str], columns: Iterable[str]) -> str | None:
    return next((row[column] for column in columns if column in row), None)


def _stem(name: str) -> str:
    return name[: -len(Path(name).suffix)] if name.lower().endswith(VIDEO_EXTENSIONS) else name
