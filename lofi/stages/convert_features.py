"""Feature files of other tools -> a feature directory: the times of their rows from the options, then `feature_conversion`."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lofi.data.annotations import Annotations, read_annotations
from lofi.data.feature_conversion import convert_features
from lofi.data.feature_files import open_feature_files
from lofi.data.feature_times import RowTimes, read_frame_rates, row_times_of_frames
from lofi.progress import say


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """What is known of the times of a video's rows: evenly spread, a stride in seconds, or a stride in frames."""

    stride_sec: float | None = None
    stride_frames: int | None = None
    frames: int | None = None
    """Of a snippet."""
    fps: float | None = None
    """Of all videos; None: each video's own."""
    first_row_sec: float | None = None

    def __post_init__(self) -> None:
        by_frames = self.stride_frames is not None
        if by_frames and self.frames is None:
            raise ValueError("--stride-frames needs --frames, to know what time a row stands for.")
        if not by_frames and self.fps is not None:
            raise ValueError(f"--fps is {self.fps:g} but has no effect without --stride-frames; remove it.")
        if by_frames and self.first_row_sec is not None:
            raise ValueError(
                "--first-row-sec has no effect with --stride-frames, whose rows stand for the middle of --frames."
            )


def convert_feature_files(
    source: str,
    *,
    annotations: str,
    rows: RowOptions,
    name: str,
    output: str | None,
    key: str | None = None,
    layout: Literal["LD", "DL"] | None = None,
    width: int | None = None,
    num_snippets: int | None = None,
    file_name: str = "{video}",
    dtype: Literal["float32", "float16"] = "float32",
) -> int:
    """Check feature files against annotations, write a feature directory unless `output` is None, and say what was found.

    Returns:
        How many videos are wrong.
    """
    read = read_annotations(annotations)
    times, own_times = _row_times(rows, read)
    if times.stride_sec is not None:
        first_row_sec = times.stride_sec / 2 if times.first_row_sec is None else times.first_row_sec
        say(f"a row every {times.stride_sec:g} s, the first at {first_row_sec:g} s")
    conversion = convert_features(
        open_feature_files(Path(source), key=key),
        read,
        times=times,
        own_times=own_times,
        name=name,
        output=output,
        layout=layout,
        width=width,
        num_snippets=num_snippets,
        file_name=file_name,
        dtype=dtype,
    )
    for line in conversion.lines():
        say(line)
    if output is not None:
        say(f"feature directory: {output}")
    return conversion.num_wrong


def _row_times(rows: RowOptions, annotations: Annotations) -> tuple[RowTimes, dict[str, RowTimes]]:
    """The times that most videos share, and each video's own where frames are counted."""
    own_times: dict[str, RowTimes] = {}
    if rows.stride_frames is None:
        times = RowTimes(stride_sec=rows.stride_sec, frames=rows.frames)
    else:
        assert rows.frames is not None
        rates = (
            read_frame_rates(annotations) if rows.fps is None else dict.fromkeys(annotations.videos, rows.fps)
        )
        own_times = {
            video: row_times_of_frames(stride_frames=rows.stride_frames, fps=rate, frames=rows.frames)
            for video, rate in rates.items()
        }
        times = Counter(own_times.values()).most_common(1)[0][0]
    if rows.first_row_sec is not None:
        times = replace(times, first_row_sec=rows.first_row_sec)
    return times, own_times
