"""Read, check and write annotation files in ActivityNet's JSON form; no other module reads them.

    {"classes": [NAME, ...],                      optional: the order of the classes; sorted labels where absent
     "database": {VIDEO: {"subset": NAME, "duration": SECONDS, "file": PATH,      "file" is optional
                          "annotations": [{"segment": [START, END], "label": NAME}, ...]}}}

The form is ActivityNet's own (http://activity-net.org), with two keys more; any other key is allowed and ignored. A file
is taken whole or refused: one message names the first problem and counts the rest.

A segment may reach outside its video by SEGMENT_TOLERANCE_SEC, as many of the public files do because durations are
rounded; it is clipped to the video. Beyond that it is an error.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lofi.files import write_json
from lofi.segments import LabelledSegment

SEGMENT_TOLERANCE_SEC = 0.5
"""A segment may start this much before its video or end this much after it; it is clipped."""

VIDEO_EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts")
"""Tried in this order, in lower and in upper case, for a video without a "file" key."""

NUM_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class AnnotatedVideo:
    """One video of an annotation file."""

    name: str
    """The key in "database"; feature files carry it too."""
    subset: str
    duration_sec: float
    segments: tuple[LabelledSegment, ...]
    """In the file's order, clipped to [0, duration_sec]."""
    file: str | None = None
    """Path below the folder of videos, where it is not NAME with a known extension."""


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """One annotation file, checked."""

    path: Path
    videos: dict[str, AnnotatedVideo]
    """By name, in the file's order."""
    classes: tuple[str, ...]
    """Label of each class index."""

    def subset(self, name: str) -> list[AnnotatedVideo]:
        """The videos of one subset (never none), sorted by name."""
        chosen = sorted((video for video in self.videos.values() if video.subset == name), key=_name_of)
        if not chosen:
            counts = Counter(video.subset for video in self.videos.values())
            listed = ", ".join(f"{subset} ({count} videos)" for subset, count in sorted(counts.items()))
            raise ValueError(
                f'{self.path}: no video has subset "{name}"{_suggest(name, counts)}; the file has: {listed}.'
            )
        return chosen


def read_annotations(path: str | Path) -> Annotations:
    """Read and check an annotation file.

    Raises:
        ValueError: the file is missing, is no JSON, or is wrong somewhere: names file, video and key.
    """
    path = Path(path)
    document = _load(path)
    problems: list[str] = []
    allowed = _listed_classes(document, path)
    database = document.get("database")
    if not isinstance(database, dict):
        raise ValueError(f'{path}: no "database" object at the top level; the keys are {sorted(document)}.')
    if not database:
        raise ValueError(f'{path}: "database" is empty; it must hold at least one video.')
    videos = {
        name: video
        for name, entry in database.items()
        if (video := _read_video(name, entry, allowed=allowed, problems=problems)) is not None
    }
    if problems:
        further = f" ({len(problems) - 1} further problems in this file.)" if len(problems) > 1 else ""
        raise ValueError(f"{path}: {problems[0]}{further}")
    labels = {segment.label for video in videos.values() for segment in video.segments}
    return Annotations(path=path, videos=videos, classes=allowed or tuple(sorted(labels)))


def write_annotations(
    path: str | Path, database: Mapping[str, Any], *, classes: Iterable[str] | None = None
) -> None:
    """Write an annotation file atomically: readers see the old file or the whole new one.

    Args:
        path: the file; its folder is made.
        database: VIDEO -> entry, as in the module's docstring, plain JSON values.
        classes: the order of the classes; left out of the file where None.
    """
    document = {} if classes is None else {"classes": list(classes)}
    document["database"] = dict(database)  # type: ignore[assignment]
    write_json(path, document)


def find_video(video: AnnotatedVideo, folder: str | Path) -> Path:
    """The video's file in `folder`: its "file" key, else its name with the first known extension that exists.

    Raises:
        FileNotFoundError: there is none.
    """
    path = _existing_file(video, Path(folder))
    if path is None:
        wanted = (
            f'its "file" is {video.file}'
            if video.file
            else f"looked for {video.name} with {', '.join(VIDEO_EXTENSIONS)}"
        )
        raise FileNotFoundError(f'video "{video.name}" is not in {folder}: {wanted}.')
    return path


def missing_videos(videos: Iterable[AnnotatedVideo], folder: str | Path) -> list[AnnotatedVideo]:
    """Those of `videos` that have no file in `folder`, in the order given."""
    folder = Path(folder)
    return [video for video in videos if _existing_file(video, folder) is None]


def check_videos_exist(videos: Iterable[AnnotatedVideo], folder: str | Path) -> None:
    """Raise one FileNotFoundError for all the videos that have no file in `folder`."""
    videos = list(videos)
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"the folder of videos {folder} does not exist.")
    missing = missing_videos(videos, folder)
    if missing:
        shown = ", ".join(video.file or video.name for video in missing[:NUM_NAMES_SHOWN])
        more = ", ..." if len(missing) > NUM_NAMES_SHOWN else ""
        raise FileNotFoundError(
            f"{len(missing)} of {len(videos)} videos are not in {folder}: {shown}{more}. "
            'Add them, name them by their key (or give a "file" key), or remove them from the annotations.'
        )


def _name_of(video: AnnotatedVideo) -> str:
    return video.name


def _suggest(name: str, known: Iterable[str]) -> str:
    """A "did you mean", for another case or a near spelling (val, Validation, testing)."""
    by_lower = {subset.lower(): subset for subset in known}
    wanted = name.lower()
    close = [subset for subset in by_lower if subset.startswith(wanted) or wanted.startswith(subset)]
    close = close or get_close_matches(wanted, by_lower, n=1)
    return f'; did you mean "{by_lower[close[0]]}"?' if close else ""


def _load(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such annotation file.") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; an annotation file is wanted.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    try:
        document = json.loads(text, object_pairs_hook=_object_without_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not JSON: {error.msg}, line {error.lineno} column {error.colno}."
        ) from None
    except _RepeatedKeyError as error:
        raise ValueError(
            f'{path}: the key "{error}" appears twice in one object; one of them would be lost.'
        ) from None
    if not isinstance(document, dict):
        raise ValueError(
            f'{path}: the top level is a {type(document).__name__}; an object with "database" is wanted.'
        )
    return document


class _RepeatedKeyError(Exception):
    """JSON allows a key twice and keeps the last; here that would lose a video in silence."""


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _RepeatedKeyError(next(key for key, count in counts.items() if count > 1))
    return result


def _listed_classes(document: dict[str, Any], path: Path) -> tuple[str, ...] | None:
    if "classes" not in document:
        return None
    classes = document["classes"]
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError(f'{path}: "classes" is {classes!r}; it must be a list of at least one name.')
    repeated = [name for name, count in Counter(classes).items() if count > 1]
    if repeated:
        raise ValueError(f'{path}: "classes" lists "{repeated[0]}" twice; every class must be there once.')
    return tuple(classes)


def _read_video(
    name: str, entry: Any, *, allowed: tuple[str, ...] | None, problems: list[str]
) -> AnnotatedVideo | None:
    """One entry of the database; what is wrong with it is added to `problems`, and then the result is None."""
    count_before = len(problems)

    def report(problem: str) -> None:
        problems.append(f'video "{name}": {problem}')

    if not name or "/" in name or "\\" in name:
        report(
            'a video\'s name must not be empty or hold a slash, since files are named by it; use "file" for a path.'
        )
    if not isinstance(entry, dict):
        report(f"is {entry!r}; it must be an object with subset, duration and annotations.")
        return None
    subset = entry.get("subset")
    if not isinstance(subset, str) or not subset:
        report(f'"subset" is {_shown(entry, "subset")}; it must be a name such as training or validation.')
    duration_sec = _finite(entry.get("duration"))
    if duration_sec is None or duration_sec <= 0:
        report(f'"duration" is {_shown(entry, "duration")}; it must be a positive number of seconds.')
    file = entry.get("file")
    if file is not None and (not isinstance(file, str) or not file):
        report(f'"file" is {file!r}; it must be a path below the folder of videos.')
    rows = entry.get("annotations")
    if not isinstance(rows, list):
        report(
            f'"annotations" is {_shown(entry, "annotations")}; it must be a list, [] where there are none.'
        )
        return None
    segments = []
    for index, row in enumerate(rows):
        try:
            segments.append(_read_segment(row, duration_sec=duration_sec, allowed=allowed))
        except ValueError as error:
            report(f"annotations[{index}]: {error}")
    if len(problems) > count_before:
        return None
    assert isinstance(subset, str)
    assert duration_sec is not None
    return AnnotatedVideo(
        name=name, subset=subset, duration_sec=duration_sec, segments=tuple(segments), file=file
    )


def _read_segment(
    row: Any, *, duration_sec: float | None, allowed: tuple[str, ...] | None
) -> LabelledSegment:
    if not isinstance(row, dict):
        raise ValueError(f"is {row!r}; it must be an object with segment and label.")
    label = row.get("label")
    if not isinstance(label, str) or not label:
        raise ValueError(f'"label" is {_shown(row, "label")}; it must be the name of a class.')
    if allowed is not None and label not in allowed:
        close = get_close_matches(label, allowed, n=1)
        hint = f' (did you mean "{close[0]}"?)' if close else ""
        raise ValueError(f'the label "{label}" is unknown{hint}; "classes" allows {", ".join(allowed)}.')
    segment = row.get("segment")
    times = [_finite(value) for value in segment] if isinstance(segment, list) else []
    if len(times) != 2 or times[0] is None or times[1] is None:
        raise ValueError(
            f'"segment" is {_shown(row, "segment")}; it must be two numbers, [start, end] in seconds.'
        )
    start_sec, end_sec = times[0], times[1]
    if end_sec <= start_sec:
        raise ValueError(f'"segment" is [{start_sec:g}, {end_sec:g}]; its end must come after its start.')
    if duration_sec is not None:
        outside_sec = max(-start_sec, end_sec - duration_sec)
        clipped = max(start_sec, 0.0), min(end_sec, duration_sec)
        if outside_sec > SEGMENT_TOLERANCE_SEC or clipped[1] <= clipped[0]:
            raise ValueError(
                f'"segment" is [{start_sec:g}, {end_sec:g}], outside the video of {duration_sec:g} s; it must lie '
                f"between 0 and the duration (up to {SEGMENT_TOLERANCE_SEC} s more is clipped)."
            )
        start_sec, end_sec = clipped
    return LabelledSegment(start_sec=start_sec, end_sec=end_sec, label=label)


def _finite(value: Any) -> float | None:
    """The value as a float, or None where it is no finite number (a boolean is none)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _shown(entry: dict[str, Any], key: str) -> str:
    return repr(entry[key]) if key in entry else "missing"


def _existing_file(video: AnnotatedVideo, folder: Path) -> Path | None:
    if video.file is not None:
        path = folder / video.file
        return path if path.is_file() else None
    for extension in VIDEO_EXTENSIONS:
        for path in (folder / f"{video.name}{extension}", folder / f"{video.name}{extension.upper()}"):
            if path.is_file():
                return path
    return None
