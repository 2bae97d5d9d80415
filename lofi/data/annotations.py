"""Read, check and write annotation files in ActivityNet's JSON form; no other module reads them.

    {"classes": [NAME, ...],                      optional: the order of the classes; sorted labels where absent
     "database": {VIDEO: {"subset": NAME, "duration": SECONDS, "file": PATH,      "file" is optional
                          "annotations": [{"segment": [START, END], "label": NAME}, ...]}}}

The form is ActivityNet's own (http://activity-net.org), with two keys more; any other key is allowed and ignored, but for
two that launch/prepare.py writes into a video where a dataset gives cause: "published" has all its instances as the dataset
has them, where "annotations" has those that training can use, and "ambiguous" THUMOS14's stretches [START, END] that are no
instances. A file is taken whole or refused: one message names the first problem and counts the rest. What makes a segment
usable for training, and what is kept for evaluation, is in `annotated_video`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lofi.data.annotated_video import AnnotatedVideo, read_video
from lofi.files import write_json

__all__ = [
    "AnnotatedVideo",
    "Annotations",
    "check_videos_exist",
    "find_video",
    "missing_videos",
    "read_annotations",
    "write_annotations",
]

VIDEO_EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts")
"""Tried in this order, in lower and in upper case, for a video without a "file" key."""

NUM_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """One annotation file, checked."""

    path: Path
    videos: dict[str, AnnotatedVideo]
    """By name, in the file's order."""
    classes: tuple[str, ...]
    """Label of each class index."""

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the subsets, sorted."""
        return tuple(sorted({video.subset for video in self.videos.values()}))

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


def read_annotations(path: str | Path, *, as_published: bool = False) -> Annotations:
    """Read and check an annotation file.

    Args:
        path: the file.
        as_published: for evaluation alone, where a score must mean what it means elsewhere: take the segments of public
            files as they are, and those of "published" where a video has it. Nothing is clipped; segments without
            length, reversed or outside their video, durations that are missing (NaN), times written as strings and labels
            beyond "classes" are kept. What each of them counts for is up to the evaluation's protocol; results.json has
            how many segments are without length, reversed or outside their video.

    Raises:
        ValueError: the file is missing, is no JSON, or is wrong somewhere: names file, video and key.
    """
    path = Path(path)
    document = _load(path)
    problems: list[str] = []
    listed = _listed_classes(document, path)
    database = document.get("database")
    if not isinstance(database, dict):
        raise ValueError(f'{path}: no "database" object at the top level; the keys are {sorted(document)}.')
    if not database:
        raise ValueError(f'{path}: "database" is empty; it must hold at least one video.')
    videos = {
        name: video
        for name, entry in database.items()
        if (video := read_video(name, entry, allowed=listed, as_published=as_published, problems=problems))
        is not None
    }
    if problems:
        further = f" ({len(problems) - 1} further problems in this file.)" if len(problems) > 1 else ""
        raise ValueError(f"{path}: {problems[0]}{further}")
    labels = {segment.label for video in videos.values() for segment in video.segments}
    return Annotations(path=path, videos=videos, classes=listed or tuple(sorted(labels)))


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
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such annotation file.") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; an annotation file is wanted.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    if not text.strip():
        raise ValueError(f'{path}: the file is empty; an object with "database" is wanted.')
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


def _existing_file(video: AnnotatedVideo, folder: Path) -> Path | None:
    if video.file is not None:
        path = folder / video.file
        return path if path.is_file() else None
    for extension in VIDEO_EXTENSIONS:
        for path in (folder / f"{video.name}{extension}", folder / f"{video.name}{extension.upper()}"):
            if path.is_file():
                return path
    return None
