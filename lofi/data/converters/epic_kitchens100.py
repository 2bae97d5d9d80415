"""EPIC-KITCHENS-100 (Damen et al., IJCV 2022; github.com/epic-kitchens/epic-kitchens-100-annotations): verbs, nouns or pairs.

    EPIC_100_train.csv, EPIC_100_validation.csv            video_id, start_timestamp, stop_timestamp (hh:mm:ss.ff), verb_class, noun_class
    EPIC_100_verb_classes.csv, EPIC_100_noun_classes.csv   id, key: the classes' names; without them, labels are the numbers
    EPIC_100_video_info.csv                                video_id, duration, fps; without it, durations must come from elsewhere

The actions of the test set are not published, so it is not here. Labels of pairs are "VERB,NOUN" by number ("12,34"), as the
official evaluation wants them.
"""

from pathlib import Path
from typing import Literal

from lofi.data.converters.clock import seconds_of_clock
from lofi.data.converters.official import Official, OfficialVideo, sorted_classes
from lofi.data.converters.source_files import beside, positive_or_none, read_rows
from lofi.segments import LabelledSegment

FILES = {"EPIC_100_train.csv": "training", "EPIC_100_validation.csv": "validation"}
VIDEO_INFO = "EPIC_100_video_info.csv"
COLUMNS = ("video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class")


def read_epic_kitchens100(source: Path, *, label: Literal["verb", "noun", "action"] = "verb") -> Official:
    """Read the folder of the official files, or one of the two CSV files with the others beside it."""
    found = {subset: path for name, subset in FILES.items() if (path := beside(source, name)) is not None}
    files = {subset: path for subset, path in found.items() if source.is_dir() or path.name == source.name}
    if not files:
        raise ValueError(f"{source}: is not, and does not hold, {' or '.join(FILES)}.")
    names = _class_names(source, label)
    segments: dict[str, list[LabelledSegment]] = {}
    subsets: dict[str, str] = {}
    for subset, path in files.items():
        for where, row in read_rows(path, columns=COLUMNS):
            times = [_seconds(row[key], where=where) for key in ("start_timestamp", "stop_timestamp")]
            video = row["video_id"]
            if subsets.setdefault(video, subset) != subset:
                raise ValueError(f'{where}: video "{video}" is in both files.')
            segments.setdefault(video, []).append(
                LabelledSegment(
                    start_sec=times[0], end_sec=times[1], label=_label(row, label, names, where=where)
                )
            )
    durations, rates = _video_info(source)
    videos = {
        name: OfficialVideo(
            subset=subsets[name],
            segments=tuple(rows),
            duration_sec=durations.get(name),
            fps=rates.get(name),
            group=name.split("_")[0],
        )
        for name, rows in segments.items()
    }
    notes = [f"there is no {name} in the source" for name, subset in FILES.items() if subset not in files]
    if label != "action" and not names:
        notes.append(
            f"there is no {_classes_file(label)} in the source, so labels are the numbers of the classes"
        )
    classes = tuple(names.values()) or tuple(sorted(sorted_classes(videos), key=_numbers))
    return Official(videos=videos, classes=classes, notes=tuple(notes))


def _classes_file(label: str) -> str:
    return f"EPIC_100_{label}_classes.csv"


def _class_names(source: Path, label: str) -> dict[str, str]:
    path = beside(source, _classes_file(label))
    return (
        {} if path is None else {row["id"]: row["key"] for _, row in read_rows(path, columns=("id", "key"))}
    )


def _label(row: dict[str, str], label: str, names: dict[str, str], *, where: str) -> str:
    numbers = [row["verb_class"], row["noun_class"]]
    if not all(number.isdecimal() for number in numbers):
        raise ValueError(f"{where}: verb_class and noun_class are {numbers}; they must be numbers.")
    if label == "action":
        return ",".join(numbers)
    number = row[f"{label}_class"]
    if names and number not in names:
        raise ValueError(f"{where}: {label}_class is {number}, which {_classes_file(label)} lacks.")
    return names.get(number, number)


def _video_info(source: Path) -> tuple[dict[str, float], dict[str, float]]:
    """(duration in seconds, frames per second) of the videos, where the file is there."""
    path = beside(source, VIDEO_INFO)
    rows = (
        [] if path is None else [row for _, row in read_rows(path, columns=("video_id", "duration", "fps"))]
    )
    durations = {row["video_id"]: positive_or_none(row["duration"]) for row in rows}
    rates = {row["video_id"]: positive_or_none(row["fps"]) for row in rows}
    return _known(durations), _known(rates)


def _known(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _seconds(text: str, *, where: str) -> float:
    try:
        return seconds_of_clock(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _numbers(label: str) -> tuple[int, ...]:
    return tuple(map(int, label.split(",")))
