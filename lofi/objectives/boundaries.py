"""Synthetic boundaries: four clips of one snippet out of a labelled clip, a clip of its class, and one of another class.

Each of B windows has four snippets of T evenly spaced frames: two of its own clip, one after the other, and two of another clip
of the same class. Out of them, and of the own clip of a window of another class, come one clip of T frames of each type of
boundary (BSP, Xu et al., ICCV 2021, section 3.1):

none              T frames one after the other
different class   from this clip to one of another class, blended into one another over a few frames
same class        from this clip to one of the same class, without transition
speed             this clip, part of it at another speed

Where the boundary lies is drawn from the middle half of the clip.
"""

from collections.abc import Sequence

import numpy as np

from lofi.objectives.composed_frames import BLEND_STEPS, FrameMap

BOUNDARIES = ("none", "different_class", "same_class", "speed")
"""The types; a clip's label is its place here."""
SNIPPETS = 4
"""Of each window: two of its own clip, two of another of its class."""


def other_class(
    labels: Sequence[int], *, is_there: Sequence[bool], generator: np.random.Generator
) -> np.ndarray:
    """(B,) int64: for each window another of a different class, drawn; itself where the batch has none."""
    others = np.arange(len(labels))
    for index, label in enumerate(labels):
        candidates = [
            each for each, other in enumerate(labels) if other != label and is_there[each] and is_there[index]
        ]
        if candidates:
            others[index] = candidates[int(generator.integers(len(candidates)))]
    return others


def boundary_clips(
    others: np.ndarray, *, frames: int, blend_frames: int, speed: float, generator: np.random.Generator
) -> FrameMap:
    """Draw one clip of each type for each of B windows.

    Args:
        others: (B,) from `other_class`.
        frames: T.
        blend_frames: frames over which one class becomes the other, at most T.
        speed: of the faster part, times the slower one's; more than 1, at most 2.
        generator: of all draws.

    Returns:
        4 B synthetic videos of T frames, window by window, in the order of BOUNDARIES.
    """
    size = len(others)
    first = np.zeros((size, len(BOUNDARIES), frames), dtype=np.int64)
    second, blend = np.zeros_like(first), np.zeros_like(first)
    times = np.arange(frames)
    for index in range(size):
        own, partner, other = (
            start * frames for start in (SNIPPETS * index, SNIPPETS * index + 2, SNIPPETS * others[index])
        )
        begins = generator.integers(0, frames + 1, size=5)
        boundary = generator.integers(max(1, frames // 4), max(2, frames - frames // 4), size=3)
        first[index, 0] = own + begins[0] + times
        first[index, 1] = own + begins[1] + times
        second[index, 1] = other + begins[2] + times
        share = (times + 0.5 - boundary[0]) / max(blend_frames, 1e-9) + 0.5
        blend[index, 1] = np.round(np.clip(share, 0, 1) * BLEND_STEPS)
        first[index, 2] = np.where(times < boundary[1], own + begins[3] + times, partner + begins[4] + times)
        first[index, 3] = own + _two_speeds(
            frames, boundary=int(boundary[2]), speed=speed, generator=generator
        )
    flat = [each.reshape(size * len(BOUNDARIES), frames) for each in (first, second, blend)]
    return FrameMap(first=flat[0], second=flat[1], blend=flat[2])


def _two_speeds(frames: int, *, boundary: int, speed: float, generator: np.random.Generator) -> np.ndarray:
    """(T,) places in 2 T frames: up to the boundary at one speed, from there at the other; which is which is drawn."""
    is_faster_first = bool(generator.random() < 0.5)
    is_first = np.arange(1, frames) < boundary
    steps = np.where(is_first == is_faster_first, speed, 1.0)
    places = np.floor(np.concatenate([[0.0], steps.cumsum()]) + 1e-9).astype(np.int64)
    begin = int(generator.integers(0, 2 * frames - places[-1]))
    return begin + places
