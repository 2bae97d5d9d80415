"""ActivityNet's JSON form: ActivityNet-1.2 and -1.3, HACS Segments and FineAction; and BMN's file of ActivityNet-1.3.

    official   {"database": {ID: {"duration": S, "subset": NAME, "annotations": [{"segment": [S, S], "label": NAME}]}}}
    BMN's      {"v_ID": {"duration_second": S, "duration_frame": N, "annotations": [...]}} and, in the same folder, video_info_new.csv
               with the columns video and subset (github.com/JJBOY/BMN-Boundary-Matching-Network, data/activitynet_annotations)

BMN's names lose their "v_", so that predictions meet the official files. HACS writes its durations as text.
"""

from pathlib import Path
from typing import Any

from lofi.data.converters.official import Official, OfficialVideo, sorted_classes, subset_named
from lofi.data.converters.source_files import (
    beside,
    one_file,
    positive_or_none,
    read_object,
    read_rows,
    seconds_of,
)
from lofi.segments import LabelledSegment

BMN_SUBSETS = "video_info_new.csv"


def read_activitynet12(source: Path) -> Official:
    """A file such as activity_net.v1-2.min.json, or a folder that holds it."""
    return _read(one_file(source, ("activity_net.v1-2.min.json", "activity_net.v1-2.json")))


def read_activitynet13(source: Path) -> Official:
    """A file such as activity_net.v1-3.min.json or BMN's anet_anno_action.json, or a folder that holds one."""
    names = ("activity_net.v1-3.min.json", "activity_net.v1-3.json", "anet_anno_action.json")
    return _read(one_file(source, names))


def read_hacs(source: Path) -> Official:
    """A file such as HACS_segments_v1.1.1.json, or a folder that holds it."""
    return _read(one_file(source, ("HACS_segments_v1.1.1.json", "HACS_segments_v1.1.json")))


def read_fineaction(source: Path) -> Official:
    """FineAction's annotations_gt.json, or a folder that holds it."""
    return _read(one_file(source, ("annotations_gt.json",)))


def read_activitynet_form(path: Path) -> dict[str, dict[str, Any]]:
    """The "database" of a file in ActivityNet's form, its entries being objects. Raises ValueError with file and key."""
    content = read_object(path)
    database = content.get("database")
    if not isinstance(database, dict) or not database:
        raise ValueError(
            f'{path}: no "database" at the top level; the keys are {", ".join(list(content)[:5])}.'
        )
    for name, entry in database.items():
        if not isinstance(entry, dict):
            raise ValueError(f'{path}: video "{name}" is no object.')
    return database


def segments_of(rows: Any, *, where: str) -> tuple[LabelledSegment, ...]:
    """A video's list of {"segment", "label"}. Raises ValueError with the place."""
    if not isinstance(rows, list):
        raise ValueError(f"{where} is {rows!r:.60}; it must be a list.")
    segments = []
    for index, row in enumerate(rows):
        place = f"{where}[{index}]"
        times = row.get("segment") if isinstance(row, dict) else None
        if not isinstance(times, list) or len(times) != 2 or not isinstance(row.get("label"), str):
            raise ValueError(f"{place} is {row!r:.60}; it must be an object with segment and label.")
        start_sec, end_sec = (seconds_of(time, where=f"{place}.segment") for time in times)
        segments.append(LabelledSegment(start_sec=start_sec, end_sec=end_sec, label=row["label"]))
    return tuple(segments)


def _read(path: Path) -> Official:
    content = read_object(path)
    first = next(iter(content.values()))
    if "database" not in content and isinstance(first, dict) and "duration_second" in first:
        return _read_bmn(content, path)
    videos = {
        name: OfficialVideo(
            subset=subset_named(entry.get("subset"), where=f'{path}: video "{name}"'),
            segments=segments_of(
                entry.get("annotations") or [], where=f'{path}: video "{name}": annotations'
            ),
            duration_sec=positive_or_none(entry.get("duration")),
            fps=positive_or_none(entry.get("fps")),
        )
        for name, entry in read_activitynet_form(path).items()
    }
    return Official(videos=videos, classes=sorted_classes(videos))


def _read_bmn(content: dict[str, Any], path: Path) -> Official:
    info = beside(path, BMN_SUBSETS)
    if info is None:
        raise ValueError(f"{path}: BMN's form names no subsets; put its {BMN_SUBSETS} into {path.parent}.")
    subsets = {row["video"]: row["subset"] for _, row in read_rows(info, columns=("video", "subset"))}
    unknown = [name for name in content if name not in subsets]
    if unknown:
        raise ValueError(f'{info}: has no subset for "{unknown[0]}" (and {len(unknown) - 1} more).')
    videos = {
        name.removeprefix("v_"): OfficialVideo(
            subset=subset_named(subsets[name], where=f'{info}: video "{name}"'),
            segments=segments_of(
                entry.get("annotations") or [], where=f'{path}: video "{name}": annotations'
            ),
            duration_sec=positive_or_none(entry.get("duration_second")),
        )
        for name, entry in content.items()
    }
    note = "BMN's names begin with v_, and ours, as the official ones, do not: --file-name 'v_{video}.mp4' finds such files"
    return Official(videos=videos, classes=sorted_classes(videos), notes=(note,))
