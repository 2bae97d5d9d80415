"""What people write into the video column of a table -> a video's name and its path below the folder of videos."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lofi.data.annotations import VIDEO_EXTENSIONS
from lofi.data.converters.video_files import composed


@dataclass(frozen=True, kw_only=True)
class VideoCell:
    """One way of writing a video."""

    stem: str
    """Its name, unless another video has the same."""
    file: str | None
    """Path below the folder of videos, with "/"; None where only a name was written."""


def read_video_cell(text: str, *, videos: Path | None) -> VideoCell:
    """Read a name, a file name, or a path with "/" or "\\".

    Args:
        text: of the cell.
        videos: the folder of videos, where it is known. A path from the root of some computer is looked for there by as
            many of its last parts as fit, and a path without an extension by the extensions that videos have.

    Raises:
        ValueError: the cell is empty or leads out of the folder, or a path cannot be found.
    """
    path = PurePosixPath(text.replace("\\", "/"))
    if not path.name or ".." in path.parts:
        raise ValueError(f"video is {text!r}; it must be a name, or a path below the folder of videos")
    has_extension = path.suffix.lower() in VIDEO_EXTENSIONS
    is_absolute = path.is_absolute() or re.match(r"[A-Za-z]:", path.parts[0]) is not None
    if is_absolute or (len(path.parts) > 1 and not has_extension):
        return _found(path, text, videos=videos, is_absolute=is_absolute)
    if has_extension:
        return VideoCell(stem=path.stem, file=str(path))
    return VideoCell(stem=path.name, file=None)


def unique_names(first_lines: Mapping[VideoCell, int]) -> tuple[dict[VideoCell, str], list[str]]:
    """Names for the videos of a table, and what is wrong.

    Args:
        first_lines: each way of writing a video -> the first line that has it.

    Returns:
        Cell -> name: the stem, or where two files share one, the path with "_" for "/"; and a message ("line 3: ...") for
        each two ways of writing that could mean one video, or that would give two videos one name.
    """
    by_stem: dict[str, list[VideoCell]] = defaultdict(list)
    for cell in first_lines:
        by_stem[composed(cell.stem)].append(cell)
    names = {
        cell: cell.stem if len(same) == 1 or cell.file is None else _name_of_path(cell.file)
        for same in by_stem.values()
        for cell in same
    }
    wrong = [
        f"line {first_lines[cell]}: the video {stem} is also written {other.file or other.stem}; write it in one way"
        for stem, same in by_stem.items()
        for cell in same
        if cell.file is None and len(same) > 1
        for other in [next(other for other in same if other != cell)]
    ]
    of_name: dict[str, VideoCell] = {}
    for cell, name in names.items():
        other = of_name.setdefault(composed(name), cell)
        if other != cell and None not in (cell.file, other.file):
            line = max(first_lines[cell], first_lines[other])
            wrong.append(
                f"line {line}: {cell.file} and {other.file} would both be the video {name}; rename one"
            )
    return names, wrong


def _name_of_path(file: str) -> str:
    return str(PurePosixPath(file).with_suffix("")).replace("/", "_")


def _found(path: PurePosixPath, text: str, *, videos: Path | None, is_absolute: bool) -> VideoCell:
    if videos is None:
        kind = (
            "a path from the root of a computer" if is_absolute else "a path without the extension of a video"
        )
        raise ValueError(f"video is {text!r}, {kind}; give --videos DIR, where it can be looked for")
    parts = [part for part in path.parts if part != "/"]
    tails = [PurePosixPath(*parts[first:]) for first in range(len(parts))] if is_absolute else [path]
    extensions = ("",) if path.suffix.lower() in VIDEO_EXTENSIONS else VIDEO_EXTENSIONS
    for tail in tails:
        for extension in extensions:
            file = str(tail.with_name(tail.name + extension))
            for form in (file, composed(file), unicodedata.normalize("NFD", file)):
                if (videos / form).is_file():
                    return VideoCell(stem=PurePosixPath(form).stem, file=form)
    raise ValueError(f"video is {text!r}, which is not in {videos}")
