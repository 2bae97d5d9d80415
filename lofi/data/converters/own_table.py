"""A table of one's own: `video,start,end,label[,subset][,group][,duration][,fps][,video_start]`, one row per instance.

    video        a name ("a"), a file ("a.mp4") or a path below the folder of videos ("day1/a.mp4", "day1\\a.mp4")
    start, end   seconds (12.5), mm:ss or hh:mm:ss(.ms); whole frames where --fps or a column fps says their rate. All three of
                 start, end and label empty: a video without instances
    subset       training, validation or test (train, val and the like too), or any other; training where it is left out
    group        what a split keeps together, such as the person or the recording
    duration     of the video, seconds or hh:mm:ss
    video_start  the time of day at which the video begins; start and end are then times of day too, also over midnight

fps and video_start are wanted on each row whose times they are the measure of. The separator (comma, semicolon, tab or bar) is
found from the first line, or said by Excel's `sep=;` above it; with another than a comma, 1,5 is 1.5. UTF-8, or UTF-16 with its
mark. Lines that are wrong are all named at once.
"""

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from lofi.data.converters.clock import NUMBER, seconds_of_clock
from lofi.data.converters.conversion import NUM_LINES_SHOWN, listed
from lofi.data.converters.official import SUBSET_NAMES, Official, OfficialVideo, sorted_classes
from lofi.data.converters.table_text import read_table_text
from lofi.data.converters.video_cells import VideoCell, read_video_cell, unique_names
from lofi.segments import LabelledSegment

REQUIRED = ("video", "start", "end", "label")
OPTIONAL = ("subset", "duration", "fps", "video_start")
NUMBERS = ("start", "end", "duration", "fps", "video_start")
COLUMNS = "video,start,end,label[,subset][,group][,duration][,fps][,video_start]"
DAY_SEC = 86400.0


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One line of the table, read."""

    line: int
    video: VideoCell
    segment: LabelledSegment | None
    facts: Mapping[str, str | float | None]
    """subset, group, duration, fps and video_start: the same on all lines of a video."""
    measures: tuple[str, ...] = ()
    """fps, video_start: those that change what its times mean, so that it must have them where another line does."""


def read_own_table(
    source: Path, *, fps: float | None = None, group: str = "group", videos: Path | None = None
) -> Official:
    """Read a CSV file.

    Args:
        source: the file.
        fps: start and end are frames at this rate.
        group: the column that a split keeps together.
        videos: the folder of videos, in which paths from another computer are looked for.

    Raises:
        ValueError: a column is missing, or lines are wrong: all of them, each with its number.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"--fps is {fps:g}; it must be a positive number of frames per second.")
    text = read_table_text(source, columns=REQUIRED)
    header = text.header
    columns = _columns(f"{source}, line {text.header_line}", header, fps=fps, group=group)
    rows, wrong = [], []
    for line, cells in text.rows:
        if not any(cells):
            continue
        try:
            if any(cells[len(header) :]):
                raise ValueError(
                    f"has {len(cells)} cells where the first line has {len(header)}; put a cell that holds the separator "
                    "into double quotes"
                )
            cells += [""] * (len(header) - len(cells))
            values = {name: cells[index] for name, index in columns.items()}
            if text.separator != ",":  # 1,5 is 1.5 where the comma separates no cells
                values |= {name: values[name].replace(",", ".") for name in NUMBERS if name in values}
            rows.append(_read_row(line, values, fps=fps, videos=videos))
        except ValueError as error:
            wrong.append(f"line {line}: {error}")
    first_lines: dict[VideoCell, int] = {}
    for row in rows:
        first_lines.setdefault(row.video, row.line)
    names, unclear = unique_names(first_lines)
    facts, differing = _facts_of_videos(rows, names)
    wrong += unclear + differing
    if wrong:
        raise ValueError(
            f"{source}: {listed(wrong, of='lines are wrong' if len(wrong) > 1 else 'line is wrong')}"
        )
    if not rows:
        raise ValueError(f"{source}: has no line below the first; one per instance is wanted.")
    return _official(rows, names, facts, notes=_notes(rows, header, columns))


def _columns(where: str, header: list[str], *, fps: float | None, group: str) -> dict[str, int]:
    """Column -> place. Raises ValueError where the first line is no header."""
    names = [name.lower() for name in header]
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise ValueError(
            f"{where}: is {', '.join(header)[:120]!r} and lacks the column {missing[0]}; the first line must name the "
            f"columns: {COLUMNS.replace('group', group)}."
        )
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise ValueError(f"{where}: names the column {twice[0]} twice.")
    if fps is not None and "fps" in names:
        raise ValueError(f"{where}: has the column fps, and --fps is given too; leave one out.")
    if group != "group" and group.lower() not in names:
        raise ValueError(f"{where}: has no column {group} (--group); it has {', '.join(header)}.")
    columns = {name: names.index(name) for name in (*REQUIRED, *OPTIONAL) if name in names}
    if group.lower() in names:
        columns["group"] = names.index(group.lower())
    return columns


def _read_row(line: int, values: dict[str, str], *, fps: float | None, videos: Path | None) -> _Row:
    video = read_video_cell(values["video"], videos=videos)
    if values.get("fps"):
        fps = _positive(values["fps"], "fps")
    duration_sec = seconds_of_clock(values["duration"]) if values.get("duration") else None
    if duration_sec is not None and duration_sec <= 0:
        raise ValueError(f"duration is {values['duration']}; it must be positive")
    subset = values.get("subset") or "training"
    facts = {
        "subset": SUBSET_NAMES.get(subset.lower(), subset),
        "group": values.get("group") or None,
        "duration": duration_sec,
        "fps": fps,
        "video_start": seconds_of_clock(values["video_start"]) if values.get("video_start") else None,
    }
    row = _Row(line=line, video=video, segment=None, facts=facts)
    if not (values["start"] or values["end"] or values["label"]):
        return row
    label = unicodedata.normalize("NFC", values["label"])
    if not label:
        raise ValueError("has times but no label")
    start_sec, end_sec = (_seconds(values[key], key, fps=fps) for key in ("start", "end"))
    if values.get("video_start"):
        start_sec, end_sec = _since(values["video_start"], start_sec, end_sec, values)
    if end_sec <= start_sec:
        shown = f"start is {values['start']} and end is {values['end']}"
        hint = "; over midnight, a column video_start is needed" if ":" in values["start"] else ""
        raise ValueError(f"{shown}; the end must come after the start{hint}")
    has_plain_number = any(":" not in values[key] for key in ("start", "end"))
    return replace(
        row,
        segment=LabelledSegment(start_sec=start_sec, end_sec=end_sec, label=label),
        measures=("fps", "video_start") if has_plain_number else ("video_start",),
    )


def _seconds(text: str, column: str, *, fps: float | None) -> float:
    if not text:
        raise ValueError(f"{column} is empty")
    if fps is not None and ":" not in text:
        frame = float(text) if NUMBER.fullmatch(text) else math.nan
        if not (frame.is_integer() and frame >= 0):
            raise ValueError(
                f"{column} is {text}; where a rate is given (fps), numbers are frames, which are whole and not negative"
            )
        return frame / fps
    try:
        seconds = seconds_of_clock(text)
    except ValueError as error:
        raise ValueError(f"{column}: {error}".rstrip(".")) from None
    if seconds < 0:
        raise ValueError(f"{column} is {text}; it must not be negative")
    return seconds


def _since(begin: str, start_sec: float, end_sec: float, values: dict[str, str]) -> tuple[float, float]:
    """Times of day -> seconds from the start of the video, which begins at `begin` and lasts less than a day."""
    begin_sec = seconds_of_clock(begin)
    for name in ("video_start", "start", "end"):
        if ":" not in values[name] or seconds_of_clock(values[name]) >= DAY_SEC:
            raise ValueError(
                f"{name} is {values[name]}; with video_start, it must be a time of day such as 13:05:10"
            )
    start_sec = (start_sec - begin_sec) % DAY_SEC
    return start_sec, start_sec + (end_sec - begin_sec - start_sec) % DAY_SEC


def _positive(text: str, column: str) -> float:
    number = float(text) if NUMBER.fullmatch(text) else math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{column} is {text}; it must be a positive number")
    return number


def _facts_of_videos(
    rows: list[_Row], names: Mapping[VideoCell, str]
) -> tuple[dict[str, dict[str, str | float | None]], list[str]]:
    """Video -> its facts; and the lines that say something else than an earlier one, or lack what others say."""
    facts: dict[str, dict[str, str | float | None]] = {}
    first_line: dict[tuple[str, str], int] = {}
    wrong = []
    for row in rows:
        name = names[row.video]
        known = facts.setdefault(name, {})
        for key, value in row.facts.items():
            if known.get(key) is None:
                known[key] = value
                first_line[name, key] = row.line
            elif value is not None and value != known[key]:
                wrong.append(
                    f"line {row.line}: {key} of {name} is {_shown(key, value)}, on line {first_line[name, key]} it is "
                    f"{_shown(key, known[key])}"
                )
    for row in rows:
        name = names[row.video]
        wrong += [
            f"line {row.line}: {key} is empty, on line {first_line[name, key]} of the same video it is "
            f"{_shown(key, facts[name][key])}; give it on both"
            for key in row.measures
            if row.facts[key] is None and facts[name][key] is not None
        ]
    return facts, wrong


def _shown(key: str, value: str | float | None) -> str:
    if key == "video_start":
        return str(timedelta(seconds=_number(value) or 0.0))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _official(
    rows: list[_Row],
    names: Mapping[VideoCell, str],
    facts: Mapping[str, Mapping[str, str | float | None]],
    *,
    notes: list[str],
) -> Official:
    by_video: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        by_video[names[row.video]].append(row)
    videos = {}
    repeated: list[int] = []
    for name, of_video in by_video.items():
        known = facts[name]
        found: dict[LabelledSegment, int] = {}
        for row in of_video:
            if row.segment in found:
                repeated.append(row.line)
            elif row.segment is not None:
                found[row.segment] = row.line
        videos[name] = OfficialVideo(
            subset=str(known["subset"]),
            segments=tuple(found),
            lines=tuple(found.values()),
            duration_sec=_number(known["duration"]),
            fps=_number(known["fps"]),
            file=of_video[0].video.file,
            group=None if known["group"] is None else str(known["group"]),
        )
    if repeated:
        what = "lines say" if len(repeated) > 1 else "line says"
        shown = ", ".join(map(str, sorted(repeated)[:NUM_LINES_SHOWN]))
        notes = [f"{len(repeated)} {what} what an earlier one says (left out): {shown}", *notes]
    return Official(videos=videos, classes=sorted_classes(videos), notes=tuple(notes))


def _number(value: str | float | None) -> float | None:
    return None if value is None else float(value)


def _notes(rows: list[_Row], header: list[str], columns: Mapping[str, int]) -> list[str]:
    notes = []
    ignored = [name for index, name in enumerate(header) if index not in columns.values() and name]
    if ignored:
        notes.append(f"columns without a meaning here, not read: {', '.join(ignored)}")
    spellings: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.segment is not None:
            spellings[" ".join(row.segment.label.casefold().split())].add(row.segment.label)
    notes += [
        f"labels that differ by case or blanks alone are different classes: {', '.join(sorted(labels))}"
        for labels in spellings.values()
        if len(labels) > 1
    ]
    return notes
