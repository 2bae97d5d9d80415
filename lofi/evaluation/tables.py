"""Ground truth and predictions as columns: what every measure of this folder takes.

Shapes: V videos, K classes, M instances, N predictions. Times are seconds. A row of predictions costs 32 bytes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lofi.segments import Detection, LabelledSegment

OUTSIDE_BY_SEC = 0.5
"""How far an instance may reach outside its video before it is counted: durations of public files are rounded."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """The instances of one subset, in the order of the file."""

    videos: tuple[str, ...]
    """V names, sorted: all videos of the subset, also those without an instance."""
    durations_sec: np.ndarray
    """(V,) float64; NaN where the duration is not known."""
    classes: tuple[str, ...]
    """K names."""
    video: np.ndarray
    """(M,) int32, index of `videos`."""
    label: np.ndarray
    """(M,) int32, index of `classes`."""
    start: np.ndarray
    """(M,) float64 seconds."""
    end: np.ndarray
    """(M,) float64 seconds."""
    ambiguous: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """Video -> start and end of stretches that count neither way (THUMOS14's "Ambiguous")."""

    def __len__(self) -> int:
        return len(self.video)

    @property
    def num_reversed(self) -> int:
        """Instances whose end lies before their start."""
        return int((self.end < self.start).sum())

    @property
    def num_outside_video(self) -> int:
        """Instances that reach outside their video by more than OUTSIDE_BY_SEC, where its duration is known."""
        late_sec = self.end - self.durations_sec[self.video]
        return int(((late_sec > OUTSIDE_BY_SEC) | (self.start < -OUTSIDE_BY_SEC)).sum())

    @staticmethod
    def of(
        videos: Mapping[str, Sequence[LabelledSegment]],
        *,
        classes: Sequence[str],
        durations_sec: Mapping[str, float] | None = None,
        ambiguous: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    ) -> "GroundTruth":
        """Video -> instances as columns.

        Raises:
            ValueError: a label is none of `classes`, or there is no instance at all.
        """
        names = tuple(sorted(videos))
        class_index = {name: index for index, name in enumerate(classes)}
        rows = []
        for number, name in enumerate(names):
            for segment in videos[name]:
                if segment.label not in class_index:
                    raise ValueError(
                        f"ground truth of video {name!r} has the label {segment.label!r}, which is none of the "
                        f"{len(class_index)} classes."
                    )
                rows.append((segment.start_sec, segment.end_sec, number, class_index[segment.label]))
        if not rows:
            raise ValueError(f"the ground truth has no instance in {len(names)} videos; nothing to evaluate.")
        start, end, video, label = zip(*rows, strict=True)
        known = durations_sec or {}
        return GroundTruth(
            videos=names,
            durations_sec=np.array([known.get(name, np.nan) for name in names], dtype=np.float64),
            classes=tuple(classes),
            video=np.array(video, dtype=np.int32),
            label=np.array(label, dtype=np.int32),
            start=np.array(start, dtype=np.float64),
            end=np.array(end, dtype=np.float64),
            ambiguous=ambiguous or {},
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Scored segments of any videos, in the order of the file. All times and scores are finite.

    Segments without length or with their end before their start are kept: other tools write some, and to drop a false
    positive would raise the score. Their tIoU with any segment that has a length is 0 or less, so that they count as
    false (under our own protocol; `protocols` has the others).
    """

    videos: tuple[str, ...]
    """Names of the videos in the file, also of those without a prediction."""
    labels: tuple[str, ...]
    """Labels that occur."""
    video: np.ndarray
    """(N,) int32, index of `videos`."""
    label: np.ndarray
    """(N,) int32, index of `labels`."""
    start: np.ndarray
    """(N,) float64 seconds."""
    end: np.ndarray
    """(N,) float64 seconds."""
    score: np.ndarray
    """(N,) float64."""

    def __len__(self) -> int:
        return len(self.video)

    @staticmethod
    def of(videos: Mapping[str, Sequence[Detection]]) -> "Predictions":
        """Video -> detections as columns."""
        label_index: dict[str, int] = {}
        count = sum(len(rows) for rows in videos.values())
        flat = ((number, row) for number, rows in enumerate(videos.values()) for row in rows)
        columns = np.fromiter(
            (
                (
                    number,
                    label_index.setdefault(row.label, len(label_index)),
                    row.start_sec,
                    row.end_sec,
                    row.score,
                )
                for number, row in flat
            ),
            dtype=[("video", "i4"), ("label", "i4"), ("start", "f8"), ("end", "f8"), ("score", "f8")],
            count=count,
        )
        return Predictions(
            videos=tuple(videos),
            labels=tuple(label_index),
            **{name: np.ascontiguousarray(columns[name]) for name in columns.dtype.names or ()},
        )

    @property
    def num_reversed(self) -> int:
        """Predictions whose end lies before their start."""
        return int((self.end < self.start).sum())

    @property
    def num_zero_length(self) -> int:
        """Predictions that end where they start."""
        return int((self.end == self.start).sum())

    def by_video(self) -> dict[str, list[Detection]]:
        """Video -> detections, the inverse of `of`."""
        result: dict[str, list[Detection]] = {name: [] for name in self.videos}
        columns = (self.video, self.label, self.start, self.end, self.score)
        for video, label, start, end, score in zip(*(column.tolist() for column in columns), strict=True):
            result[self.videos[video]].append(
                Detection(start_sec=start, end_sec=end, label=self.labels[label], score=score)
            )
        return result

    def select(self, rows: np.ndarray | slice) -> "Predictions":
        """Some of the predictions: an index, mask or slice of rows."""
        return Predictions(
            videos=self.videos,
            labels=self.labels,
            video=self.video[rows],
            label=self.label[rows],
            start=self.start[rows],
            end=self.end[rows],
            score=self.score[rows],
        )


def few_names(names: Collection[str], *, shown: int = 3) -> str:
    """The first of some names by the alphabet, for a message."""
    return ", ".join(sorted(names)[:shown]) + (", ..." if len(names) > shown else "")


def indices_in(names: Iterable[str], known: Sequence[str]) -> np.ndarray:
    """Place of each name among `known`, -1 where it is not there: int32."""
    place = {name: index for index, name in enumerate(known)}
    return np.array([place.get(name, -1) for name in names], dtype=np.int32)
