"""Where the videos of a dataset lie below the folder of videos: by a rule for their names, or by looking.

Looking heeds that "ü" is one character (NFC) or two (NFD, as macOS writes file names), and takes the one for the other.
"""

import os
import unicodedata
from collections import defaultdict
from dataclasses import replace
from pathlib import Path, PurePosixPath

from lofi.data.annotations import VIDEO_EXTENSIONS
from lofi.data.converters.official import Official


def with_file_names(official: Official, file_name: str) -> Official:
    """The dataset with "file" by a rule such as v_{video}.mp4, where its own files do not say it.

    Raises:
        ValueError: the rule lacks "{video}".
    """
    if "{video}" not in file_name:
        raise ValueError(f'--file-name is {file_name}; it must hold "{{video}}", such as v_{{video}}.mp4.')
    videos = {
        name: replace(video, file=video.file or file_name.replace("{video}", name))
        for name, video in official.videos.items()
    }
    return replace(official, videos=videos)


def with_found_files(official: Official, folder: Path) -> tuple[Official, list[str]]:
    """The dataset with "file" for the videos that lie in folders below `folder`, and as the folder spells it.

    A video that lies in `folder` itself under its name needs no "file".

    Returns:
        The dataset, and the names of the videos that are nowhere.

    Raises:
        ValueError: two files below `folder` could be the same video.
    """
    by_stem = _video_files(folder)
    by_path = {composed(str(file)): file for files in by_stem.values() for file in files}
    videos, missing = dict(official.videos), []
    for name, video in official.videos.items():
        if video.file is not None:
            if (folder / video.file).is_file():
                continue
            same = by_path.get(composed(video.file))
            if same is None:
                missing.append(name)
            else:
                videos[name] = replace(video, file=str(same))
            continue
        files = by_stem.get(composed(name), [])
        in_folder = [file for file in files if file.parent == PurePosixPath()]
        if not files:
            missing.append(name)
        elif any(file.stem == name for file in in_folder):
            continue
        elif in_folder:
            videos[name] = replace(video, file=str(in_folder[0]))
        elif len(files) > 1:
            raise ValueError(
                f'{folder}: video "{name}" could be {files[0]} or {files[1]}; say which with --file-name.'
            )
        else:
            videos[name] = replace(video, file=str(files[0]))
    return replace(official, videos=videos), missing


def composed(text: str) -> str:
    """Its letters in the one form (NFC) by which names are compared."""
    return unicodedata.normalize("NFC", text)


def _video_files(folder: Path) -> dict[str, list[PurePosixPath]]:
    """Name without extension, composed -> the files below `folder` that have it, as paths from there."""
    by_stem: dict[str, list[PurePosixPath]] = defaultdict(list)
    for root, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for file in sorted(files):
            path = PurePosixPath((Path(root) / file).relative_to(folder).as_posix())
            if path.suffix.lower() in VIDEO_EXTENSIONS:
                by_stem[composed(path.stem)].append(path)
    return by_stem
