"""A share of the annotated training videos: what a method is worth to a person with few labels."""

import math
from collections.abc import Sequence

import numpy as np

from lofi.data.annotations import AnnotatedVideo
from lofi.segments import Window


def draw_labelled(videos: Sequence[AnnotatedVideo], *, share: float, seed: int) -> list[AnnotatedVideo]:
    """At least one video of each class, else `share` of them, drawn by `seed`; in the order given.

    Videos are taken in an order that goes round the classes (the class of a video's first segment; videos without any come
    last), so that every share holds the smaller ones of the same seed.
    """
    if share == 1:
        return list(videos)
    order = np.random.default_rng(seed).permutation(len(videos))
    turns: dict[str | None, int] = {}
    places: list[tuple[float, int, int]] = []
    for index in order:
        segments = videos[index].segments
        label = segments[0].label if segments else None
        turns[label] = turns.get(label, 0) + 1
        places.append((math.inf if label is None else turns[label], len(places), int(index)))
    num_classes = len(turns) - (None in turns)
    count = min(len(videos), max(num_classes, math.ceil(share * len(videos)), 1))
    kept = {index for _, _, index in sorted(places)[:count]}
    return [video for index, video in enumerate(videos) if index in kept]


def repeat_windows(windows: Sequence[Window], *, count: int) -> list[Window]:
    """The windows in their order, again and again until there are `count`; all of them once where there are more.

    What training draws for a window depends on its place in the list, so that two copies differ as two epochs do.
    """
    assert windows
    return [windows[index % len(windows)] for index in range(max(count, len(windows)))]
