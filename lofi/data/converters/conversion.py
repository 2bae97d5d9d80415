"""A dataset as its files say it -> the database of an annotation file that training and evaluation both take.

"annotations" has what training can use; where that is less than what was published, "published" has it all, untouched, and
`read_annotations(..., as_published=True)` takes that: a score must mean what it means elsewhere. Every difference is a
`Change`, so that none is made in silence.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lofi.data.annotated_video import SEGMENT_TOLERANCE_SEC
from lofi.data.converters.durations import without_duration
from lofi.data.converters.official import Official, OfficialVideo
from lofi.segments import LabelledSegment

Why = Literal["reversed", "without length", "outside the video", "given twice", "clipped to the video"]
NUM_NAMES_SHOWN = 5
NUM_LINES_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Change:
    """One instance that training does not take as it was published."""

    video: str
    subset: str
    why: Why
    """clipped to the video: shortened and kept. All others: left out."""
    segment: LabelledSegment


@dataclass(frozen=True, kw_only=True)
class SubsetCounts:
    """Sizes of one subset."""

    subset: str
    num_videos: int
    num_instances: int
    """As published."""
    num_for_training: int
    """Those that the strict reader takes."""
    num_classes: int
    """That occur, as published."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What is written, and what is said about it."""

    database: dict[str, dict[str, Any]]
    classes: tuple[str, ...]
    counts: tuple[SubsetCounts, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def convert(official: Official) -> Conversion:
    """Make the database.

    Args:
        official: the dataset, all durations known.

    Raises:
        ValueError: there is no instance at all, durations are missing, or an own table's segments leave their videos.
    """
    missing = without_duration(official)
    if missing:
        shown = ", ".join(missing[:NUM_NAMES_SHOWN]) + (", ..." if len(missing) > NUM_NAMES_SHOWN else "")
        raise ValueError(
            f"the duration of {len(missing)} of {len(official.videos)} videos is not known: {shown}. Give --videos DIR to "
            "open them, or --durations FILE (a CSV or JSON of durations)."
        )
    if not any(video.segments for video in official.videos.values()):
        raise ValueError(f"none of the {len(official.videos)} videos has an instance.")
    _check_lines(official)
    database, changes = {}, []
    for name, video in official.videos.items():
        kept, changed = usable_segments(name, video)
        changes += changed
        entry: dict[str, Any] = {"subset": video.subset, "duration": video.duration_sec}
        optional = {"file": video.file, "fps": video.fps, "group": video.group}
        entry |= {key: value for key, value in optional.items() if value is not None}
        if video.ambiguous:
            entry["ambiguous"] = [list(stretch) for stretch in video.ambiguous]
        entry["annotations"] = _rows(kept)
        if changed:
            entry["published"] = _rows(video.segments)
        database[name] = entry
    return Conversion(
        database=database,
        classes=official.classes,
        counts=count_subsets(database),
        changes=tuple(changes),
        notes=official.notes,
    )


def usable_segments(name: str, video: OfficialVideo) -> tuple[list[LabelledSegment], list[Change]]:
    """The instances of one video that training can use, and what became of the others.

    What lies outside by at most SEGMENT_TOLERANCE_SEC stays as it is: the reader clips it.
    """
    assert video.duration_sec is not None
    kept: list[LabelledSegment] = []
    changes: list[Change] = []
    seen: set[LabelledSegment] = set()
    for segment in video.segments:
        clipped = LabelledSegment(
            start_sec=max(segment.start_sec, 0.0),
            end_sec=min(segment.end_sec, video.duration_sec),
            label=segment.label,
        )
        outside_sec = max(-segment.start_sec, segment.end_sec - video.duration_sec)
        why: Why | None = None
        if segment.end_sec < segment.start_sec:
            why = "reversed"
        elif segment.end_sec == segment.start_sec:
            why = "without length"
        elif clipped.end_sec <= clipped.start_sec:
            why = "outside the video"
        elif segment in seen:
            why = "given twice"
        elif outside_sec > SEGMENT_TOLERANCE_SEC:
            why = "clipped to the video"
        seen.add(segment)
        if why is not None:
            changes.append(Change(video=name, subset=video.subset, why=why, segment=segment))
        if why is None:
            kept.append(segment)
        elif why == "clipped to the video":
            kept.append(clipped)
    return kept, changes


def count_subsets(database: dict[str, dict[str, Any]]) -> tuple[SubsetCounts, ...]:
    """Sizes of each subset of a database, training, validation and test first."""
    order = ["training", "validation", "test"]
    subsets = dict.fromkeys(entry["subset"] for entry in database.values())
    counts = []
    for subset in sorted(
        subsets, key=lambda name: (order.index(name) if name in order else len(order), name)
    ):
        entries = [entry for entry in database.values() if entry["subset"] == subset]
        published = [row for entry in entries for row in entry.get("published", entry["annotations"])]
        counts.append(
            SubsetCounts(
                subset=subset,
                num_videos=len(entries),
                num_instances=len(published),
                num_for_training=sum(len(entry["annotations"]) for entry in entries),
                num_classes=len({row["label"] for row in published}),
            )
        )
    return tuple(counts)


def change_lines(changes: Sequence[Change]) -> list[str]:
    """One line for each reason and subset, with the first few of them."""
    groups: dict[tuple[str, Why], list[Change]] = {}
    for change in changes:
        groups.setdefault((change.subset, change.why), []).append(change)
    lines = []
    for (subset, why), group in sorted(groups.items()):
        shown = [
            f"{change.video} [{change.segment.start_sec:g}, {change.segment.end_sec:g}] {change.segment.label}"
            for change in group[:NUM_NAMES_SHOWN]
        ]
        videos = Counter(change.video for change in group)
        what = "kept" if why == "clipped to the video" else "not for training"
        more = ", ..." if len(group) > NUM_NAMES_SHOWN else ""
        plural = "s" if len(group) > 1 else ""
        of_videos = f"{len(videos)} video" + ("s" if len(videos) > 1 else "")
        lines.append(
            f"{subset}: {len(group)} instance{plural} {why} ({what}), in {of_videos}: {', '.join(shown)}{more}"
        )
    return lines


def _check_lines(official: Official) -> None:
    """Refuse an own table whose segments reach out of their video."""
    wrong = []
    for name, video in official.videos.items():
        assert video.duration_sec is not None
        for segment, line in zip(video.segments, video.lines, strict=False):
            if segment.end_sec > video.duration_sec + SEGMENT_TOLERANCE_SEC:
                wrong.append(
                    f"line {line}: [{segment.start_sec:g}, {segment.end_sec:g}] s reaches out of {name}, which lasts "
                    f"{video.duration_sec:g} s"
                )
    if wrong:
        raise ValueError(
            listed(
                wrong,
                of="segments are outside their videos" if len(wrong) > 1 else "segment is outside its video",
            )
        )


def listed(wrong: Sequence[str], *, of: str) -> str:
    """A message of what is wrong on several lines."""
    more = f"\n  and {len(wrong) - NUM_LINES_SHOWN} more" if len(wrong) > NUM_LINES_SHOWN else ""
    return f"{len(wrong)} {of}:" + "".join(f"\n  {line}" for line in wrong[:NUM_LINES_SHOWN]) + more


def _rows(segments: Sequence[LabelledSegment]) -> list[dict[str, Any]]:
    return [{"segment": [row.start_sec, row.end_sec], "label": row.label} for row in segments]
