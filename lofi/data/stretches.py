"""Stretches of evenly spaced frames: L snippets one right after the other, at a place drawn for each window and epoch.

A grid's snippets lie apart, as far as the window is long. Pretexts that compose new videos out of frames need them without
gaps: a stretch of `stretch_sec` seconds, which is L x T frames at grid.frame_rate. In training its place in the window is
drawn from (seed, epoch, index); otherwise it is the middle.
"""

from dataclasses import replace

import numpy as np
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
