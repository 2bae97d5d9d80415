"""What a dataset's own annotation files say, in one form for all datasets: no instance dropped, none changed."""

from collections.abc import Mapping
from dataclasses import dataclass

from lofi.segments import LabelledSegment

SUBSET_NAMES = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""What datasets call their subsets, in lower case -> what they are called in every converted file."""


@dataclass(frozen=True, kw_only=True)
class OfficialVideo:
    """One video of a dataset."""

    subset: str
    segments: tuple[LabelledSegment, ...] = ()
    """As published: they may be reversed, without length, given twice, or lie outside the video."""
    duration_sec: float | None = None
    """None where the dataset's files do not say."""
    fps: float | None = None
    """Frames per second, where the dataset's files say it."""
    file: str | None = None
    """Path below the folder of videos, where it is not NAME with a known extension."""
    group: str | None = None
    """What a split must keep together: a person, a kitchen, a recording."""
    ambiguous: tuple[tuple[float, float], ...] = ()
    """Start and end in seconds of stretches that are no instances and no background either."""
    lines: tuple[int, ...] = ()
    """Of an own table: the line of each segment. There, unlike in a dataset, what is outside its video is a mistake."""


@dataclass(frozen=True, kw_only=True)
class Official:
    """One dataset, or one table of one's own."""

    videos: Mapping[str, OfficialVideo]
    """By name."""
    classes: tuple[str, ...]
    """In the dataset's own order where it has one, else sorted."""
    notes: tuple[str, ...] = ()
    """What somebody who compares numbers should know."""


def subset_named(name: object, *, where: str) -> str:
    """training, validation or test. Raises ValueError where `name` is none that datasets use."""
    known = SUBSET_NAMES.get(name.lower()) if isinstance(name, str) else None
    if known is None:
        raise ValueError(f"{where}: the subset is {name!r}; it must be one of {', '.join(SUBSET_NAMES)}.")
    return known


def sorted_classes(videos: Mapping[str, OfficialVideo]) -> tuple[str, ...]:
    """All labels that occur, sorted."""
    return tuple(sorted({segment.label for video in videos.values() for segment in video.segments}))
