"""Stretches of evenly spaced frames: L snippets one right after the other, at a place drawn for each window and epoch.

A grid's snippets lie apart, as far as the window is long. Pretexts that compose new videos out of frames need them without
gaps: a stretch of `stretch_sec` seconds, which is L x T frames at grid.frame_rate. In training its place in the window is
drawn from (seed, epoch, index); otherwise it is the middle.
"""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset

from lofi.data.frame_windows import FrameWindows
from lofi.data.samples import SampleKey, WindowSample
from lofi.segments import Window

PLACE_STREAM = 1
"""Apart from the random numbers of flips and crops (`frame_windows.sample_generator`)."""


class StretchWindows(Dataset[WindowSample]):
    """One stretch of each window. Indexed by `SampleKey`."""

    def __init__(self, frames: FrameWindows, *, frame_rate: float, seed: int) -> None:
        """Args: frames: over the windows that stretches are cut out of; frame_rate: per second; seed: of the places."""
        self.windows = frames.windows
        self._frames = frames
        self._frame_rate = frame_rate
        self._seed = seed

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: SampleKey) -> WindowSample:
        window = self.windows[key.index]
        stretch_sec = key.fidelity.num_snippets * key.fidelity.frames / self._frame_rate
        place = 0.5
        if key.training:
            spawn_key = (key.epoch, key.index, PLACE_STREAM)
            place = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=spawn_key)).random()
        return self._frames.read(cut_stretch(window, stretch_sec=stretch_sec, place=place), key)


class PairedStretches(Dataset[WindowSample]):
    """Of each labelled window a stretch of L / 2 snippets, and behind it one of another window of its class: L snippets in all.

    The partner is drawn anew for each epoch; a class of one window has that window at another place. Copies of a window, as
    repeated labels and several clips of a segment make them, are that window. Both stretches show the same view. Indexed by
    `SampleKey`.
    """

    def __init__(self, frames: FrameWindows, *, frame_rate: float, seed: int) -> None:
        """As `StretchWindows`; every window has one label."""
        self.windows = frames.windows
        self._frames = frames
        self._frame_rate = frame_rate
        self._seed = seed
        members = defaultdict(list)
        firsts: dict[tuple[str, float, float], int] = {}
        first_copy = []
        for index, window in enumerate(self.windows):
            members[window.segments[0][2]].append(index)
            first_copy.append(firsts.setdefault((window.video, window.start_sec, window.end_sec), index))
        self._first_copy = np.array(first_copy)
        self._members = {label: np.array(indices) for label, indices in members.items()}

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: SampleKey) -> WindowSample:
        window = self.windows[key.index]
        spawn_key = (key.epoch, key.index, PLACE_STREAM)
        generator = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=spawn_key))
        members = self._members[window.segments[0][2]]
        others = members[self._first_copy[members] != self._first_copy[key.index]]
        partner = self.windows[int(generator.choice(others))] if len(others) else window
        places = generator.random(2) if key.training or not len(others) else (0.5, 0.5)
        half = replace(key, fidelity=replace(key.fidelity, num_snippets=key.fidelity.num_snippets // 2))
        stretch_sec = half.fidelity.num_snippets * half.fidelity.frames / self._frame_rate
        both = [
            self._frames.read(cut_stretch(each, stretch_sec=stretch_sec, place=place), half)
            for each, place in zip((window, partner), places, strict=True)
        ]
        failed = [each for each in both if each.failure is not None]
        first = failed[0] if failed else both[0]
        halves = [each.frames for each in both if each.frames is not None]
        return replace(first, frames=torch.cat(halves), mask=torch.cat([first.mask, first.mask]))


def cut_stretch(window: Window, *, stretch_sec: float, place: float) -> Window:
    """The stretch of a window at `place`, 0 (its start) to 1 (its end), with the segments that it shows."""
    start_sec = window.start_sec + place * max(0.0, window.length_sec - stretch_sec)
    end_sec = start_sec + stretch_sec
    segments = tuple(
        (max(first, start_sec), min(last, end_sec), label)
        for first, last, label in window.segments
        if min(last, end_sec) > max(first, start_sec)
    )
    return replace(window, start_sec=start_sec, end_sec=end_sec, segments=segments)
