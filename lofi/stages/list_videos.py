"""A folder of videos, without any annotation -> annotations.json with their durations, for what trains without labels."""

from pathlib import Path
from typing import Any

import numpy as np

from lofi.data.annotations import VIDEO_EXTENSIONS, write_annotations
from lofi.progress import say
from lofi.stages.check_videos import CheckOptions, probe_videos


def list_videos(
    folder: Path, *, output: Path, validation_share: float = 0.0, seed: int = 0, workers: int = 4
) -> dict[str, str]:
    """Open every video in and below a folder, read a few of its frames, and write an annotation file of them, without segments.

    A video's name is that of its file, with "__" for the folders between; its "file" is the path below `folder`.

    Args:
        folder: of videos.
        output: the annotation file to write.
        validation_share: part of the videos whose subset is validation, drawn by `seed`; the others are training.
        seed: of that draw.
        workers: processes that open videos.

    Returns:
        File -> reason, of those that cannot be read, which are left out. All are printed.

    Raises:
        ValueError: no such folder, or no video in it that can be read.
    """
    if not folder.is_dir():
        raise ValueError(f"the folder of videos {folder} does not exist.")
    if not 0 <= validation_share < 1:
        raise ValueError(f"--validation-share is {validation_share}; it must be at least 0 and less than 1.")
    files = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_EXTENSIONS and path.is_file()
    )
    if not files:
        raise ValueError(f"{folder} holds no video file ({', '.join(VIDEO_EXTENSIONS)}).")
    names = _names(files)
    paths = {name: folder / file for name, file in names.items()}
    facts = dict(probe_videos(paths, options=CheckOptions(workers=workers)))
    failures = {str(names[name]): found["error"] for name, found in facts.items() if "error" in found}
    readable = [name for name in names if "error" not in facts[name]]
    if not readable:
        reason = next(iter(failures.values()))
        raise ValueError(f"none of the {len(files)} videos in {folder} can be read; the first: {reason}")
    order = np.random.default_rng(seed).permutation(len(readable))
    held_out = {readable[index] for index in order[: round(validation_share * len(readable))]}
    database: dict[str, Any] = {
        name: {
            "subset": "validation" if name in held_out else "training",
            "duration": facts[name]["duration"],
            "annotations": [],
            "file": names[name].as_posix(),
        }
        for name in readable
    }
    write_annotations(output, database)
    hours = sum(entry["duration"] for entry in database.values()) / 3600
    plural = "s" if len(readable) > 1 else ""
    say(f"{output}: {len(readable)} video{plural}, {hours:.2f} h, {len(held_out)} of them for validation")
    for file, reason in failures.items():
        say(f"left out: {file}: {reason}")
    return failures


def _names(files: list[Path]) -> dict[str, Path]:
    """Name -> file; files of one name and several types keep their ending."""
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault("__".join(file.with_suffix("").parts), []).append(file)
    names = {}
    for name, same in by_name.items():
        for file in same:
            names[name if len(same) == 1 else "__".join(file.parts)] = file
    return names
