"""Annotated (or bare) videos -> the windows of the pretexts: clips of actions and of background, whole segments, whole videos."""

from collections import Counter
from collections.abc import Iterable, Sequence

from lofi.data.annotations import AnnotatedVideo
from lofi.data.windows import clip_windows
from lofi.segments import Window


def background_stretches(video: AnnotatedVideo, *, min_sec: float) -> list[tuple[float, float]]:
    """The stretches of a video in which no action is annotated, of at least `min_sec`, in time's order."""
    stretches, end_of_actions = [], 0.0
    for start_sec, end_sec in sorted((segment.start_sec, segment.end_sec) for segment in video.segments):
        stretches.append((end_of_actions, start_sec))
        end_of_actions = max(end_of_actions, end_sec)
    stretches.append((end_of_actions, video.duration_sec))
    return [(start_sec, end_sec) for start_sec, end_sec in stretches if end_sec - start_sec >= min_sec]


def region_windows(
    videos: Iterable[AnnotatedVideo],
    *,
    classes: Sequence[str],
    min_background_sec: float,
    clips_per_segment: int = 1,
) -> list[Window]:
    """For TSP: each annotated segment is a window with its label, each stretch between them one without.

    Both `clips_per_segment` times over. Take them with one snippet per window and `FrameWindows(jitter=True)`. The windows of
    a video lie together.

    Raises:
        ValueError: there is no annotated segment, or no background that is long enough.
    """
    windows: list[Window] = []
    num_background = 0
    videos = list(videos)
    for video in videos:
        background = background_stretches(video, min_sec=min_background_sec)
        num_background += len(background)
        if video.segments:
            windows += clip_windows([video], classes=classes, clips_per_segment=clips_per_segment)
        windows += [
            Window(
                video=video.name, start_sec=start_sec, end_sec=end_sec, video_duration_sec=video.duration_sec
            )
            for start_sec, end_sec in background
            for _ in range(clips_per_segment)
        ]
    if num_background == 0:
        raise ValueError(
            f"none of the {len(videos)} videos has {min_background_sec:g} s in which nothing is annotated, so there is no "
            "background to tell actions from; take untrimmed videos, or lower objective.min_background_sec."
        )
    if not any(window.segments for window in windows):
        raise ValueError(
            f"none of the {len(videos)} videos has an annotated segment; there is nothing to tell from background."
        )
    return windows


def balanced_windows(windows: Sequence[Window]) -> list[Window]:
    """Clips of rarer classes repeated until every class has as many as the most frequent one.

    Each has one label. The repeats come after the clips themselves, in turn: no clip is repeated twice before all of its class
    are repeated once.
    """
    by_class: dict[int, list[Window]] = {}
    for window in windows:
        by_class.setdefault(window.segments[0][2], []).append(window)
    most = max(len(members) for members in by_class.values())
    repeats = [
        members[index % len(members)]
        for _, members in sorted(by_class.items())
        for index in range(len(members), most)
    ]
    return [*windows, *repeats]


def labelled_stretches(
    videos: Iterable[AnnotatedVideo],
    *,
    classes: Sequence[str],
    stretch_sec: float,
    clips_per_segment: int = 1,
) -> list[Window]:
    """For BSP: the annotated segments that hold a stretch of `stretch_sec`, of two classes at least.

    Raises:
        ValueError: there are none, or all are of one class.
    """
    videos = list(videos)
    windows = clip_windows(videos, classes=classes, clips_per_segment=clips_per_segment)
    long_enough = [window for window in windows if _holds(window.length_sec, stretch_sec=stretch_sec)]
    if not long_enough:
        longest = max(window.length_sec for window in windows)
        raise ValueError(
            f"none of the {len(windows)} annotated segments holds {stretch_sec:g} s (fidelity.num_snippets x "
            f"fidelity.frames / grid.frame_rate), which a synthetic clip is made from; the longest has {longest:g} s. Raise "
            "grid.frame_rate, or lower fidelity.frames."
        )
    counts = Counter(classes[window.segments[0][2]] for window in long_enough)
    if len(counts) < 2:
        raise ValueError(
            f"all segments of the {len(videos)} videos that hold {stretch_sec:g} s are of the one class "
            f"{next(iter(counts))}; boundaries between different classes need two."
        )
    return long_enough


def bare_videos(
    videos: Iterable[AnnotatedVideo], *, stretch_sec: float, windows_per_video: int = 1
) -> list[Window]:
    """For PAL: the whole of each video that holds a stretch of `stretch_sec`, without labels, several times over.

    Raises:
        ValueError: fewer than three videos do.
    """
    videos = list(videos)
    long_enough = [video for video in videos if _holds(video.duration_sec, stretch_sec=stretch_sec)]
    if len(long_enough) < 3:
        raise ValueError(
            f"{len(long_enough)} of {len(videos)} videos hold {stretch_sec:g} s (fidelity.num_snippets x fidelity.frames / "
            "grid.frame_rate); a region of one video is pasted on two others, so three are needed. Add videos, or raise "
            "grid.frame_rate, or lower fidelity.num_snippets."
        )
    return [
        Window(
            video=video.name,
            start_sec=0.0,
            end_sec=video.duration_sec,
            video_duration_sec=video.duration_sec,
        )
        for video in long_enough
        for _ in range(windows_per_video)
    ]


def short_segments(videos: Iterable[AnnotatedVideo], *, stretch_sec: float) -> str:
    """What `labelled_stretches` leaves out, in words; "" where that is nothing."""
    lengths = [segment.end_sec - segment.start_sec for video in videos for segment in video.segments]
    return _left_out("annotated segments", lengths, stretch_sec=stretch_sec)


def short_videos(videos: Iterable[AnnotatedVideo], *, stretch_sec: float) -> str:
    """What `bare_videos` leaves out, in words; "" where that is nothing."""
    return _left_out("videos", [video.duration_sec for video in videos], stretch_sec=stretch_sec)


def _left_out(what: str, lengths_sec: Sequence[float], *, stretch_sec: float) -> str:
    count = sum(not _holds(length_sec, stretch_sec=stretch_sec) for length_sec in lengths_sec)
    if count == 0:
        return ""
    verb = "does not hold" if count == 1 else "do not hold"
    return f"{count} of {len(lengths_sec)} {what} {verb} the {stretch_sec:g} s that a stretch takes: left out"


def _holds(length_sec: float, *, stretch_sec: float) -> bool:
    return length_sec >= stretch_sec - 1e-6
