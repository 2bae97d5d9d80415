"""Random crops of whole videos to train on, and whole videos to predict: `grid.training: crops`, `grid.prediction: videos`.

Source: the data code of ActionFormer (ECCV 2022), which TriDet's shares. Each epoch takes one crop of each video: of a video
longer than the window a part as long as the window, of another one a part of at least `crop_share` of it, padded to the window;
of a video rescaled to L snippets (its configuration anet_i3d) such a part of the L.
The place of the crop is drawn among those that keep an instance: one is kept, clipped, where at least `crop_visible` of it is
inside.
What differs: all places that keep an instance are equally likely, where the published code tries 200 places and takes the
last; and of an instance longer than the crop that share is of the crop, not of the instance, as in sliding windows.

Places and lengths are whole snippets, counted from the start of the video's first one.
"""

import math

import numpy as np

from lofi.segments import Window

_EPSILON = 1e-6


def draw_crop(
    segments: np.ndarray,
    *,
    num_snippets: int,
    window_snippets: int,
    share: float,
    visible: float,
    generator: np.random.Generator,
) -> tuple[int, int]:
    """Where a crop of a video begins, and how long it is, in snippets.

    Args:
        segments: (N, 2) the video's instances, in snippet index of the video.
        num_snippets: of the video.
        window_snippets: L, the most that a crop has.
        share: of a video no longer than the window, the least that a crop has, 0 to 1.
        visible: share of an instance that keeps it, 0 to 1.
        generator: what is drawn with.
    """
    length = window_snippets
    if num_snippets <= window_snippets:
        least = max(1, round(share * num_snippets))
        length = int(generator.integers(least, num_snippets + 1))
    places = np.arange(num_snippets - length + 1)
    keeping = places[
        kept_instances(segments, first=places[:, None], length=length, visible=visible).any(axis=1)
    ]
    return int(generator.choice(keeping if len(keeping) else places)), length


def kept_instances(
    segments: np.ndarray, *, first: np.ndarray | int, length: int, visible: float
) -> np.ndarray:
    """(..., N) bool: the instances, (N, 2), that a crop of [first, first + length) keeps; `first` () or (..., 1)."""
    inside = np.minimum(segments[:, 1], first + length) - np.maximum(segments[:, 0], first)
    whole = np.minimum(segments[:, 1] - segments[:, 0], length)
    kept: np.ndarray = (inside > 0) & (inside >= visible * whole - _EPSILON)
    return kept


def crop_video(
    video: Window,
    *,
    origin_sec: float,
    step_sec: float,
    num_snippets: int,
    window_snippets: int,
    share: float,
    visible: float,
    generator: np.random.Generator,
) -> Window:
    """A crop of a video as a window of L snippets, padded where it is shorter.

    Args:
        video: the whole video, with all its instances.
        origin_sec: start of its first snippet.
        step_sec: length of a snippet's cell.
        num_snippets: of the video.
        window_snippets: L.
        share: as `draw_crop` takes it, and the next two.
        visible: share of an instance that keeps it.
        generator: what is drawn with.
    """
    rows = np.array([segment[:2] for segment in video.segments], dtype=np.float64).reshape(-1, 2)
    rows = (rows - origin_sec) / step_sec
    first, length = draw_crop(
        rows,
        num_snippets=num_snippets,
        window_snippets=window_snippets,
        share=share,
        visible=visible,
        generator=generator,
    )
    kept = kept_instances(rows, first=first, length=length, visible=visible)
    start_sec, valid_end_sec = origin_sec + first * step_sec, origin_sec + (first + length) * step_sec
    return Window(
        video=video.video,
        start_sec=start_sec,
        end_sec=origin_sec + (first + window_snippets) * step_sec,
        video_duration_sec=video.video_duration_sec,
        valid_end_sec=valid_end_sec,
        segments=tuple(
            (max(start, start_sec), min(end, valid_end_sec), label)
            for (start, end, label), is_kept in zip(video.segments, kept, strict=True)
            if is_kept
        ),
    )


def whole_video(video: Window, *, origin_sec: float, step_sec: float, num_snippets: int) -> Window:
    """A video as one window of all its snippets. Arguments as `crop_video` takes them."""
    end_sec = origin_sec + num_snippets * step_sec
    return Window(
        video=video.video,
        start_sec=origin_sec,
        end_sec=end_sec,
        video_duration_sec=video.video_duration_sec,
        valid_end_sec=end_sec,
        segments=tuple(
            (max(start, origin_sec), min(end, end_sec), label)
            for start, end, label in video.segments
            if end > origin_sec and start < end_sec
        ),
    )


def snippets_inside(duration_sec: float, *, step_sec: float) -> int:
    """How many snippets of cells side by side from the video's start have their centre inside it; at least 1."""
    return max(1, math.ceil(duration_sec / step_sec - 0.5 - _EPSILON))


def crop_generator(seed: int, *, epoch: int, index: int) -> np.random.Generator:
    """What the crop of a sample is drawn with, apart from all else that is drawn for it."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, index, 1)))
