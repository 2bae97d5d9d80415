"""Which video files are predicted, and under which names: files, folders and patterns -> `VideoFile`s."""

import glob
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lofi.data.annotated_video import AnnotatedVideo
from lofi.data.annotations import NUM_NAMES_SHOWN, VIDEO_EXTENSIONS, Annotations


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """One video to predict."""

    name: str
    """In predictions.json: as the annotations have it, else the file's name without its extension."""
    path: Path
    """Absolute."""
    annotated: AnnotatedVideo | None = None
    """Its entry of the annotations, where there are any and they have it."""


def find_videos(sources: Sequence[str], *, annotations: Annotations | None = None) -> list[VideoFile]:
    """The videos that are named, sorted by name, each file once.

    A folder stands for the video files in it and below it, by their extensions; a pattern such as "clips/*.mp4" for what it
    matches. Files of the same name in several folders are told apart by their folders: a__clip, b__clip.

    Raises:
        ValueError: nothing there, two files of one annotated video, or a name in the annotations that cannot name a file.
    """
    paths = sorted({path.absolute() for source in sources for path in _files_of(source)})
    by_file = {} if annotations is None else _annotated_by_file(annotations.videos.values())
    known = {} if annotations is None else annotations.videos
    found = {path: _annotated(path, by_file=by_file, by_name=known) for path in paths}
    names = _distinct_names([path for path, video in found.items() if video is None], taken=set(known))
    files = [
        VideoFile(name=names[path] if video is None else video.name, path=path, annotated=video)
        for path, video in found.items()
    ]
    counts = Counter(file.name for file in files)
    repeated = next((name for name, count in counts.items() if count > 1), None)
    if repeated is not None:
        listed = ", ".join(str(file.path) for file in files if file.name == repeated)
        raise ValueError(
            f'several files are the video "{repeated}": {listed}; predict one of them at a time.'
        )
    unusable = next((file for file in files if "/" in file.name or "\\" in file.name), None)
    if unusable is not None:
        raise ValueError(f'the video "{unusable.name}" cannot name a file; names must not hold a slash.')
    return sorted(files, key=lambda file: file.name)


def _files_of(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in VIDEO_EXTENSIONS and file.is_file() and not _is_hidden(file, below=path)
        ]
        if not files:
            raise ValueError(
                f"{source}: the folder has no video file; looked for {', '.join(VIDEO_EXTENSIONS)}."
            )
        return files
    if path.exists():
        return [path]
    if glob.has_magic(source):
        files = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        if files := [file for file in files if file.is_file()]:
            return files
        raise ValueError(f"{source}: no file matches.")
    raise ValueError(f"{source}: there is no such video file or folder.")


def _is_hidden(file: Path, *, below: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(below).parts)


def _annotated_by_file(videos: Iterable[AnnotatedVideo]) -> dict[str, AnnotatedVideo]:
    return {Path(video.file).as_posix(): video for video in videos if video.file is not None}


def _annotated(
    path: Path, *, by_file: Mapping[str, AnnotatedVideo], by_name: Mapping[str, AnnotatedVideo]
) -> AnnotatedVideo | None:
    """By its "file", of any number of folders, else by its name, with or without the prefix "v_"."""
    for length in range(1, len(path.parts)):
        ending = Path(*path.parts[-length:]).as_posix()
        if ending in by_file:
            return by_file[ending]
    for name in (path.stem, f"v_{path.stem}", path.stem.removeprefix("v_")):
        video = by_name.get(name)
        if video is not None and video.file is None:
            return video
    return None


def _distinct_names(paths: Sequence[Path], *, taken: set[str]) -> dict[Path, str]:
    """File names without extensions; where several are alike, with as many folders before them as tell them apart."""
    names: dict[Path, str] = {}
    waiting = list(paths)
    length = 1
    while waiting:
        tails = {
            path: "__".join((*path.parts[-length:-1], path.stem if length < 3 else path.name))
            for path in waiting
        }
        counts = Counter(tails.values())
        clear = [path for path in waiting if counts[tails[path]] == 1 and tails[path] not in taken]
        names |= {path: tails[path] for path in clear}
        waiting = [path for path in waiting if path not in names]
        length += 1
        if waiting and length > max(len(path.parts) for path in waiting):
            listed = ", ".join(str(path) for path in waiting[:NUM_NAMES_SHOWN])
            raise ValueError(f"no different names can be found for {listed}; rename them.")
    return names
