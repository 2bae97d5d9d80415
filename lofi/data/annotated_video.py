"""One video of an annotation file, checked: strictly for training, as it was published for evaluation.

Strictly, a segment has its start before its end and lies in its video. It may reach outside by SEGMENT_TOLERANCE_SEC, as
many of the public files do because durations are rounded; it is clipped to the video. Beyond that it is an error.
Segments of published files are kept as they are (`annotations.read_annotations`): to drop or clip one changes the score.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lofi.segments import LabelledSegment

SEGMENT_TOLERANCE_SEC = 0.5
"""A segment may start this much before its video or end this much after it; it is clipped."""


@dataclass(frozen=True, kw_only=True)
class AnnotatedVideo:
    """One video of an annotation file."""

    name: str
    """The key in "database"; feature files carry it too."""
    subset: str
    duration_sec: float
    """NaN where a file read as published does not say."""
    segments: tuple[LabelledSegment, ...]
    """In the file's order, clipped to [0, duration_sec] unless read as published."""
    file: str | None = None
    """Path below the folder of videos, where it is not NAME with a known extension."""
    ambiguous: tuple[tuple[float, float], ...] = ()
    """Start and end in seconds of stretches that may or may not show an action: no instances, and under THUMOS14's own
    protocol no place for false positives either."""


def read_video(
    name: str, entry: Any, *, allowed: Sequence[str] | None, as_published: bool, problems: list[str]
) -> AnnotatedVideo | None:
    """One entry of the database; what is wrong with it is added to `problems`, and then the result is None.

    Args:
        name: its key.
        entry: its value, of JSON.
        allowed: the classes that a label must be one of, or None for any. Not asked for what is read as published.
        as_published: see `annotations.read_annotations`.
        problems: added to.
    """
    count_before = len(problems)

    def report(problem: str) -> None:
        problems.append(f'video "{name}": {problem}')

    if not as_published and (not name or "/" in name or "\\" in name):
        report(
            'a video\'s name must not be empty or hold a slash, since files are named by it; use "file" for a path.'
        )
    if not isinstance(entry, dict):
        report(f"is {entry!r}; it must be an object with subset, duration and annotations.")
        return None
    subset = entry.get("subset")
    if not isinstance(subset, str) or not subset:
        report(f'"subset" is {_shown(entry, "subset")}; it must be a name such as training or validation.')
    is_unknown = as_published and entry.get("duration") is None
    duration_sec = math.nan if is_unknown else _finite(entry.get("duration"))
    if duration_sec is None or duration_sec <= 0:
        report(f'"duration" is {_shown(entry, "duration")}; it must be a positive number of seconds.')
    file = entry.get("file")
    if file is not None and (not isinstance(file, str) or not file):
        report(f'"file" is {file!r}; it must be a path below the folder of videos.')
    key = "published" if as_published and "published" in entry else "annotations"
    rows = entry.get(key)
    if not isinstance(rows, list):
        report(f'"{key}" is {_shown(entry, key)}; it must be a list, [] where there are none.')
        return None
    stretches = entry.get("ambiguous", [])
    ambiguous = [_stretch(pair) for pair in stretches] if isinstance(stretches, list) else [None]
    if None in ambiguous:
        report('"ambiguous" must be a list of [start, end] in seconds.')
    segments = []
    for index, row in enumerate(rows):
        try:
            if as_published:
                segments.append(_segment_as_published(row))
            else:
                segments.append(_checked_segment(row, duration_sec=duration_sec, allowed=allowed))
        except ValueError as error:
            report(f"{key}[{index}]: {error}")
    if len(problems) > count_before:
        return None
    assert isinstance(subset, str)
    assert duration_sec is not None
    return AnnotatedVideo(
        name=name,
        subset=subset,
        duration_sec=duration_sec,
        segments=tuple(segments),
        file=file,
        ambiguous=tuple(pair for pair in ambiguous if pair is not None),
    )


def _segment_as_published(row: Any) -> LabelledSegment:
    label = _label_of(row)
    start_sec, end_sec = _times_of(row, convert=_finite_or_text)
    return LabelledSegment(start_sec=start_sec, end_sec=end_sec, label=label)


def _checked_segment(
    row: Any, *, duration_sec: float | None, allowed: Sequence[str] | None
) -> LabelledSegment:
    label = _label_of(row)
    if allowed is not None and label not in allowed:
        close = get_close_matches(label, allowed, n=1)
        hint = f' (did you mean "{close[0]}"?)' if close else ""
        raise ValueError(f'the label "{label}" is unknown{hint}; "classes" allows {", ".join(allowed)}.')
    start_sec, end_sec = _times_of(row, convert=_finite)
    if end_sec <= start_sec:
        raise ValueError(f'"segment" is [{start_sec:g}, {end_sec:g}]; its end must come after its start.')
    if duration_sec is not None:
        outside_sec = max(-start_sec, end_sec - duration_sec)
        clipped = max(start_sec, 0.0), min(end_sec, duration_sec)
        if outside_sec > SEGMENT_TOLERANCE_SEC or clipped[1] <= clipped[0]:
            raise ValueError(
                f'"segment" is [{start_sec:g}, {end_sec:g}], outside the video of {duration_sec:g} s; it must lie '
                f"between 0 and the duration (up to {SEGMENT_TOLERANCE_SEC} s more is clipped)."
            )
        start_sec, end_sec = clipped
    return LabelledSegment(start_sec=start_sec, end_sec=end_sec, label=label)


def _label_of(row: Any) -> str:
    if not isinstance(row, dict):
        raise ValueError(f"is {row!r}; it must be an object with segment and label.")
    label = row.get("label")
    if not isinstance(label, str) or not label:
        raise ValueError(f'"label" is {_shown(row, "label")}; it must be the name of a class.')
    return label


def _times_of(row: dict[str, Any], *, convert: Callable[[Any], float | None]) -> tuple[float, float]:
    segment = row.get("segment")
    times = [convert(value) for value in segment] if isinstance(segment, list) else []
    if len(times) != 2 or times[0] is None or times[1] is None:
        raise ValueError(
            f'"segment" is {_shown(row, "segment")}; it must be two numbers, [start, end] in seconds.'
        )
    return times[0], times[1]


def _stretch(pair: Any) -> tuple[float, float] | None:
    times = [_finite(value) for value in pair] if isinstance(pair, list) else []
    if len(times) != 2 or times[0] is None or times[1] is None or times[1] < times[0]:
        return None
    return times[0], times[1]


def _finite_or_text(value: Any) -> float | None:
    """Numbers written as strings too, as in G-TAD's file of THUMOS14."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return _finite(value)


def _finite(value: Any) -> float | None:
    """The value as a float, or None where it is no finite number (a boolean is none)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer that no float can hold
        return None
    return number if math.isfinite(number) else None


def _shown(entry: dict[str, Any], key: str) -> str:
    return repr(entry[key]) if key in entry else "missing"
