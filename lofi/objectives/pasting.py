"""Pseudo-action regions: a stretch of one video pasted on two others at random places and scales, and the way back.

For each window i of a batch a core of it is drawn, and two other windows n and m, of other videos where the batch has them.
The core is played at two speeds and overwrites frames of n (the query video) and of m (the key video). Times are in frames,
the first frame from 0 to 1. The map from the source's time to the synthetic video's is linear, so that its inverse is known
exactly: the same R stretches of the core are found again in both synthetic videos.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lofi.objectives.composed_frames import FrameMap


@dataclass(frozen=True, kw_only=True)
class Pastes:
    """One region pasted into each of S synthetic videos of F frames."""

    source: np.ndarray
    """(S,) int64, the window that the region is of."""
    background: np.ndarray
    """(S,) int64, the window that it is pasted on."""
    core: np.ndarray
    """(S, 2) int64, start and end of the region in the source."""
    region: np.ndarray
    """(S, 2) int64, start and end of the region in the synthetic video."""

    def in_source(self, times: np.ndarray) -> np.ndarray:
        """(S, N) times of the synthetic videos -> of the sources."""
        return self.core[:, :1] + (times - self.region[:, :1]) / self._scale()

    def in_synthetic(self, times: np.ndarray) -> np.ndarray:
        """(S, N) times of the sources -> of the synthetic videos: the inverse of `in_source`."""
        return self.region[:, :1] + (times - self.core[:, :1]) * self._scale()

    def _scale(self) -> np.ndarray:
        """(S, 1): frames of the synthetic video for each of the source."""
        lengths = [each[:, 1] - each[:, 0] for each in (self.region, self.core)]
        scale: np.ndarray = (lengths[0] / lengths[1])[:, None]
        return scale

    def frame_map(self, *, num_frames: int) -> FrameMap:
        """The source's frame on screen at the middle of each frame of the region; outside it the background's own."""
        middles = np.broadcast_to(np.arange(num_frames) + 0.5, (len(self.source), num_frames))
        is_inside = (self.region[:, :1] <= middles) & (middles < self.region[:, 1:])
        in_source = np.floor(self.in_source(middles)).astype(np.int64)
        pasted = self.source[:, None] * num_frames + np.clip(in_source, 0, num_frames - 1)
        beside = self.background[:, None] * num_frames + np.arange(num_frames)
        return FrameMap(first=np.where(is_inside, pasted, beside))


@dataclass(frozen=True, kw_only=True)
class PastedPairs:
    """Query and key video of each of B windows."""

    query: Pastes
    key: Pastes
    is_valid: np.ndarray
    """(B,) bool; False where the batch has no two other windows for it."""


def draw_pairs(
    videos: Sequence[str],
    *,
    is_there: Sequence[bool],
    num_frames: int,
    core_frames: tuple[int, int],
    max_scale: float,
    generator: np.random.Generator,
) -> PastedPairs:
    """Draw a query and a key video for each window.

    Args:
        videos: of the B windows.
        is_there: whether each window could be decoded; others are neither pasted nor pasted on.
        num_frames: F of each window, and of each synthetic video.
        core_frames: least and greatest length of a core.
        max_scale: a region is from 1 / max_scale to max_scale times as long as its core (log-uniform), and at most F.
        generator: of all draws.
    """
    size = len(videos)
    backgrounds = np.tile(np.arange(size)[:, None], (1, 2))
    is_valid = np.zeros(size, dtype=bool)
    for index in range(size):
        found = _two_others(index, videos, is_there=is_there, generator=generator)
        if found is not None:
            backgrounds[index], is_valid[index] = found, is_there[index]
    lengths = generator.integers(core_frames[0], core_frames[1] + 1, size=size)
    starts = generator.integers(0, num_frames - lengths + 1)
    core = np.stack([starts, starts + lengths], axis=1)
    query, key = (
        _place(
            core,
            background=backgrounds[:, side],
            num_frames=num_frames,
            max_scale=max_scale,
            generator=generator,
        )
        for side in (0, 1)
    )
    return PastedPairs(query=query, key=key, is_valid=is_valid)


def _two_others(
    index: int, videos: Sequence[str], *, is_there: Sequence[bool], generator: np.random.Generator
) -> tuple[int, int] | None:
    """Two different windows that are not `index`; of other videos, and of two, where there are such."""
    others = [each for each in range(len(videos)) if each != index and is_there[each]]
    first = _choose(others, avoid={videos[index]}, videos=videos, generator=generator)
    if first is None:
        return None
    rest = [each for each in others if each != first]
    second = _choose(rest, avoid={videos[index], videos[first]}, videos=videos, generator=generator)
    return None if second is None else (first, second)


def _choose(
    candidates: list[int], *, avoid: set[str], videos: Sequence[str], generator: np.random.Generator
) -> int | None:
    preferred = [each for each in candidates if videos[each] not in avoid] or candidates
    return preferred[int(generator.integers(len(preferred)))] if preferred else None


def _place(
    core: np.ndarray,
    *,
    background: np.ndarray,
    num_frames: int,
    max_scale: float,
    generator: np.random.Generator,
) -> Pastes:
    lengths = core[:, 1] - core[:, 0]
    scales = np.exp(generator.uniform(-math.log(max_scale), math.log(max_scale), size=len(core)))
    pasted = np.clip(np.round(lengths * scales).astype(np.int64), 1, num_frames)
    starts = generator.integers(0, num_frames - pasted + 1)
    return Pastes(
        source=np.arange(len(core)),
        background=background,
        core=core,
        region=np.stack([starts, starts + pasted], axis=1),
    )
