"""Charades (Sigurdsson et al., ECCV 2016, arXiv:1604.01753): the official training set trains, the official test set tests.

    Charades_v1_train.csv, Charades_v1_test.csv     columns id, length (seconds), actions: "c092 11.90 21.20;c147 0.00 12.60"
    Charades_v1_classes.txt                         lines `c092 Turning on a light`; without it, labels are the codes
    or charades.json                                {VIDEO: {"subset", "duration", "actions": [[class number, start, end]]}}
                                                    (github.com/piergiaj/super-events-cvpr18, data/)

Ends are rounded up to about a second after the end of many videos: more than one in four. They are clipped for training.
"""

from pathlib import Path

from lofi.data.converters.multithumos import read_numbered_actions
from lofi.data.converters.official import Official, OfficialVideo, sorted_classes
from lofi.data.converters.source_files import (
    beside,
    positive_or_none,
    read_numbered_names,
    read_rows,
    seconds_of,
)
from lofi.segments import LabelledSegment

CLASS_LIST = "Charades_v1_classes.txt"
FILES = {"Charades_v1_train.csv": "training", "Charades_v1_test.csv": "test"}


def read_charades(source: Path) -> Official:
    """Read the folder of the official files, or the JSON file (or a folder that holds it)."""
    official = {subset: path for name, subset in FILES.items() if (path := beside(source, name)) is not None}
    if source.is_dir() and official:
        return _read_official(source, official)
    json_file = beside(source, "charades.json") if source.is_dir() else source
    if json_file is None:
        raise ValueError(f"{source}: holds neither {' and '.join(FILES)} nor charades.json.")
    return read_numbered_actions(json_file, class_list=CLASS_LIST, code="c{:03}")


def _read_official(source: Path, files: dict[str, Path]) -> Official:
    names_file = beside(source, CLASS_LIST)
    names = {} if names_file is None else read_numbered_names(names_file)
    videos: dict[str, OfficialVideo] = {}
    for subset, path in files.items():
        for where, row in read_rows(path, columns=("id", "length", "actions")):
            if row["id"] in videos:
                raise ValueError(f'{where}: video "{row["id"]}" is there twice.')
            videos[row["id"]] = OfficialVideo(
                subset=subset,
                segments=_actions(row["actions"], names, where=where),
                duration_sec=positive_or_none(row["length"]),
            )
    missing = [name for name, subset in FILES.items() if subset not in files]
    notes = [f"there is no {name} in {source}, so this subset is missing" for name in missing]
    if not names:
        notes.append(f"there is no {CLASS_LIST} in {source}, so labels are codes")
    classes = tuple(names.values()) or sorted_classes(videos)
    return Official(videos=videos, classes=classes, notes=tuple(notes))


def _actions(text: str, names: dict[str, str], *, where: str) -> tuple[LabelledSegment, ...]:
    segments = []
    for action in filter(None, text.split(";")):
        words = action.split()
        if len(words) != 3 or (names and words[0] not in names):
            raise ValueError(
                f"{where}: the action {action!r} is not CODE START END with a code of the classes."
            )
        times = [seconds_of(word, where=f"{where}: the action {action!r}") for word in words[1:]]
        label = names.get(words[0], words[0])
        segments.append(LabelledSegment(start_sec=times[0], end_sec=times[1], label=label))
    return tuple(segments)
