"""MultiTHUMOS (Yeung et al., IJCV 2017, arXiv:1507.05738): 65 classes on THUMOS14's videos; validation videos train.

annotations/CLASS.txt           lines `VIDEO START END`, in seconds; no durations
or multithumos.json             {VIDEO: {"subset": NAME, "duration": S, "actions": [[CLASS NUMBER, START, END], ...]}}
                                (github.com/piergiaj/super-events-cvpr18, data/), named by class_list.txt beside it
"""

from pathlib import Path
from typing import Any

from lofi.data.converters.official import Official, OfficialVideo, sorted_classes, subset_named
from lofi.data.converters.source_files import (
    beside,
    positive_or_none,
    read_numbered_names,
    read_object,
    seconds_of,
)
from lofi.data.converters.thumos14 import read_instances
from lofi.segments import LabelledSegment

CLASS_LIST = "class_list.txt"
SUBSETS = {"video_validation_": "training", "video_test_": "test"}


def read_multithumos(source: Path) -> Official:
    """Read the folder of text files, or the JSON file (or a folder that holds it)."""
    json_file = beside(source, "multithumos.json") if source.is_dir() else source
    if json_file is not None:
        return read_numbered_actions(json_file, class_list=CLASS_LIST)
    return _read_text_files(source)


def read_numbered_actions(path: Path, *, class_list: str, code: str = "{}") -> Official:
    """A file {VIDEO: {"subset", "duration", "actions": [[class number, start, end]]}}, as MultiTHUMOS and Charades have it.

    Args:
        path: the file.
        class_list: name of the file beside it that names the numbers; without it, labels are the numbers.
        code: how that file writes a number, such as c{:03}.
    """
    names_file = beside(path, class_list)
    names = {} if names_file is None else read_numbered_names(names_file)
    videos: dict[str, OfficialVideo] = {}
    numbers: set[int] = set()
    for name, entry in read_object(path).items():
        where = f'{path}: video "{name}"'
        if not isinstance(entry, dict) or not isinstance(entry.get("actions"), list):
            raise ValueError(f'{where}: must be an object with the list "actions".')
        segments = []
        for index, row in enumerate(entry["actions"]):
            number, start_sec, end_sec = _action(row, where=f"{where}: actions[{index}]")
            written = code.format(number)
            if names and written not in names:
                raise ValueError(f"{names_file}: has no class {written}, which {where} has.")
            numbers.add(number)
            label = names.get(written, written)
            segments.append(LabelledSegment(start_sec=start_sec, end_sec=end_sec, label=label))
        videos[name] = OfficialVideo(
            subset=subset_named(entry.get("subset"), where=where),
            segments=tuple(segments),
            duration_sec=positive_or_none(entry.get("duration")),
        )
    classes = tuple(names.values()) or tuple(code.format(number) for number in sorted(numbers))
    note = f"there is no {class_list} beside {path.name}, so labels are the numbers of the classes"
    return Official(videos=videos, classes=classes, notes=() if names else (note,))


def _action(row: Any, *, where: str) -> tuple[int, float, float]:
    if not isinstance(row, list) or len(row) != 3 or not isinstance(row[0], int):
        raise ValueError(f"{where} is {row!r:.60}; it must be [class number, start, end].")
    return row[0], seconds_of(row[1], where=where), seconds_of(row[2], where=where)


def _read_text_files(source: Path) -> Official:
    folder = source / "annotations" if (source / "annotations").is_dir() else source
    paths = sorted(path for path in folder.glob("*.txt") if path.name not in (CLASS_LIST, "README.txt"))
    if not paths:
        raise ValueError(f"{source}: holds neither multithumos.json nor annotations/CLASS.txt.")
    segments: dict[str, list[LabelledSegment]] = {}
    for path in paths:
        for video, start_sec, end_sec in read_instances(path):
            row = LabelledSegment(start_sec=start_sec, end_sec=end_sec, label=path.stem)
            segments.setdefault(video, []).append(row)
    videos = {
        name: OfficialVideo(subset=_subset_by_name(name, source), segments=tuple(segments[name]))
        for name in sorted(segments)
    }
    return Official(videos=videos, classes=sorted_classes(videos))


def _subset_by_name(video: str, source: Path) -> str:
    for beginning, subset in SUBSETS.items():
        if video.startswith(beginning):
            return subset
    raise ValueError(f'{source}: the name of video "{video}" begins with neither {" nor ".join(SUBSETS)}.')
