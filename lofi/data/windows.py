"""Annotated videos -> windows: what one sample is, for training, prediction, extraction and action classification."""

from collections.abc import Iterable, Sequence

from lofi.data.annotations import AnnotatedVideo
from lofi.data.grid import GridConfig, consecutive_windows, video_windows
from lofi.segments import Window

MIN_VISIBLE_FRACTION = 0.25
"""In sliding training windows, an instance counts where at least this part of it is visible."""


def training_windows(
    videos: Iterable[AnnotatedVideo],
    *,
    classes: Sequence[str],
    grid: GridConfig,
    min_visible_fraction: float = MIN_VISIBLE_FRACTION,
) -> list[Window]:
    """The windows to train a localiser on.

    mode: rescale keeps every video, with or without instances. mode: sliding keeps the windows with at least one
    instance, and drops slivers: instances of which less than `min_visible_fraction` lies in the window. For an instance
    longer than the window the fraction is of the window, else its middle would be background. With training: crops the
    windows are whole videos, which the datasets crop anew at each epoch (`data.crops`): with mode: sliding those with an
    instance, with mode: rescale all.
    """
    windows = []
    videos = list(videos)
    for video in videos:
        is_whole = grid.training == "crops"
        stretches = [(0.0, video.duration_sec)] if is_whole else video_windows(video.duration_sec, grid)
        for start_sec, end_sec in stretches:
            minimum = min_visible_fraction if grid.mode == "sliding" else 0.0
            window = _window(video, start_sec, end_sec, classes=classes, min_visible_fraction=minimum)
            if window.segments or grid.mode == "rescale":
                windows.append(window)
    if not any(window.segments for window in windows):
        raise ValueError(
            f"none of the {len(videos)} training videos has an annotated segment; there is nothing to learn from."
        )
    return windows


def prediction_windows(
    videos: Iterable[AnnotatedVideo], *, classes: Sequence[str], grid: GridConfig
) -> list[Window]:
    """Every window of every video, in order; each instance clipped to it, slivers too. With prediction: videos one window,
    [0, duration], whose snippets are all rows of the video's features."""
    if grid.prediction == "videos":
        return [_window(video, 0.0, video.duration_sec, classes=classes) for video in videos]
    return [
        _window(video, start_sec, end_sec, classes=classes)
        for video in videos
        for start_sec, end_sec in video_windows(video.duration_sec, grid)
    ]


def extraction_windows(
    videos: Iterable[AnnotatedVideo], *, classes: Sequence[str], grid: GridConfig, num_snippets: int
) -> list[Window]:
    """Windows that cover each video once: its feature sequence is their snippets inside the video, one after the other."""
    return [
        _window(video, start_sec, end_sec, classes=classes)
        for video in videos
        for start_sec, end_sec in consecutive_windows(video.duration_sec, grid, num_snippets=num_snippets)
    ]


def clip_windows(
    videos: Iterable[AnnotatedVideo], *, classes: Sequence[str], clips_per_segment: int = 1
) -> list[Window]:
    """For action classification: each annotated segment is a window of its own, `clips_per_segment` times over.

    Take them with one snippet per window (L = 1) and `FrameWindows(jitter=True)`: in training its place in the segment is
    drawn for each clip and epoch, otherwise it is the middle.
    """
    if clips_per_segment < 1:
        raise ValueError(f"data.clips_per_segment is {clips_per_segment}; it must be at least 1.")
    index_of = {label: index for index, label in enumerate(classes)}
    videos = list(videos)
    windows = [
        Window(
            video=video.name,
            start_sec=segment.start_sec,
            end_sec=segment.end_sec,
            video_duration_sec=video.duration_sec,
            segments=((segment.start_sec, segment.end_sec, index_of[segment.label]),),
        )
        for video in videos
        for segment in video.segments
        for _ in range(clips_per_segment)
    ]
    if not windows:
        raise ValueError(
            f"none of the {len(videos)} videos has an annotated segment; there is nothing to classify."
        )
    return windows


def _window(
    video: AnnotatedVideo,
    start_sec: float,
    end_sec: float,
    *,
    classes: Sequence[str],
    min_visible_fraction: float = 0.0,
) -> Window:
    segments = []
    for segment in video.segments:
        clipped_start = max(segment.start_sec, start_sec)
        clipped_end = min(segment.end_sec, end_sec)
        whole_sec = min(segment.end_sec - segment.start_sec, end_sec - start_sec)
        visible_sec = clipped_end - clipped_start
        if visible_sec > 0 and visible_sec >= min_visible_fraction * whole_sec:
            segments.append((clipped_start, clipped_end, classes.index(segment.label)))
    return Window(
        video=video.name,
        start_sec=start_sec,
        end_sec=end_sec,
        video_duration_sec=video.duration_sec,
        segments=tuple(segments),
    )
