"""Stretches: frames without gaps, at a place that is the same in every process and another in every epoch; pairs of a class."""

import numpy as np
import pytest

from lofi.data.frame_windows import FrameWindows
from lofi.data.grid import GridConfig
from lofi.data.labelled_share import repeat_windows
from lofi.data.samples import SampleKey
from lofi.data.stretches import PairedStretches, StretchWindows
from lofi.fidelity import Fidelity
from lofi.segments import Window

GRID = GridConfig(frame_rate=10.0)
L, T = 4, 3
FIDELITY = Fidelity(num_snippets=L, frames=T, height=24, width=40)


def window(video, start_sec, end_sec, *, label=None, duration_sec=4.0):
    segments = () if label is None else ((start_sec, end_sec, label),)
    return Window(
        video=video, start_sec=start_sec, end_sec=end_sec, video_duration_sec=duration_sec, segments=segments
    )


@pytest.fixture
def numbers_of(numbers_in):
    def read(sample):
        return numbers_in(sample.frames.numpy().transpose(0, 2, 3, 4, 1).reshape(-1, 24, 40, 3))

    return read


def test_a_stretch_has_evenly_spaced_frames_across_its_snippets(numbered_videos, numbers_of):
    frames = FrameWindows([window("long", 0.0, 4.0)], numbered_videos, grid=GRID, seed=3)
    stretches = StretchWindows(frames, frame_rate=10.0, seed=3)
    assert len(stretches) == 1
    middle = numbers_of(stretches[SampleKey(index=0, fidelity=FIDELITY)])
    assert middle == list(range(14, 26))
    firsts = set()
    for epoch in range(6):
        key = SampleKey(index=0, fidelity=FIDELITY, epoch=epoch, training=True)
        shown = numbers_of(stretches[key])
        assert np.diff(shown).tolist() == [1] * (L * T - 1)
        assert numbers_of(stretches[key]) == shown
        firsts.add(shown[0])
    assert len(firsts) > 3


def test_a_pair_holds_its_own_stretch_and_one_of_another_window_of_its_class(numbered_videos, numbers_of):
    windows = [
        window("long", 0.0, 1.5, label=1),
        window("long", 1.6, 2.4, label=0),
        window("short", 0.5, 1.5, label=1, duration_sec=2.3),
        window("long", 2.5, 3.9, label=1),
    ]
    frames = FrameWindows(windows, numbered_videos, grid=GRID, seed=3)
    pairs = PairedStretches(frames, frame_rate=10.0, seed=5)
    ranges = {0: (0, 15), 2: (5, 15), 3: (25, 39)}
    partners = set()
    for epoch in range(8):
        sample = pairs[SampleKey(index=0, fidelity=FIDELITY, epoch=epoch, training=True)]
        shown = numbers_of(sample)
        own, partner = shown[: L * T // 2], shown[L * T // 2 :]
        for half in (own, partner):
            assert np.diff(half).tolist() == [1] * (len(half) - 1)
        assert own[0] >= 0
        assert own[-1] < 15
        partners.add(3 if partner[0] >= ranges[3][0] else 2)
        assert ranges[2][0] <= partner[0]
        assert partner[-1] < ranges[3][1]
        assert sample.mask.tolist() == [True] * L
        assert sample.targets.labels.tolist() == [1]
    assert partners == {2, 3}
    alone = numbers_of(pairs[SampleKey(index=1, fidelity=FIDELITY, training=True)])
    assert all(16 <= number < 24 for number in alone), "a class of one window is its own partner"


def test_a_copy_of_a_window_is_no_partner_for_it(numbered_videos, numbers_of):
    windows = [window("long", 0.0, 1.5, label=1), window("long", 2.5, 3.9, label=1)]
    alone = [window("long", 1.6, 2.4, label=0)]
    repeated = repeat_windows(windows + alone, count=8)
    pairs = PairedStretches(
        FrameWindows(repeated, numbered_videos, grid=GRID, seed=3), frame_rate=10.0, seed=5
    )
    for index, each in enumerate(repeated):
        for epoch in range(4):
            shown = numbers_of(pairs[SampleKey(index=index, fidelity=FIDELITY, epoch=epoch, training=True)])
            partner = [number / 10 for number in shown[L * T // 2 :]]
            expected = each if each.segments[0][2] == 0 else windows[each is windows[0]]
            assert all(expected.start_sec <= sec < expected.end_sec for sec in partner)


def test_a_pair_of_which_one_cannot_be_decoded_is_masked(numbered_videos, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    windows = [window("long", 0.0, 1.5, label=1), window("broken", 0.0, 1.5, label=1)]
    paths = {**numbered_videos, "broken": tmp_path / "broken.mp4"}
    frames = FrameWindows(windows, paths, grid=GRID, seed=3, on_decode_error="skip")
    sample = PairedStretches(frames, frame_rate=10.0, seed=5)[SampleKey(index=0, fidelity=FIDELITY)]
    assert sample.frames.shape == (L, 3, T, 24, 40)
    assert not sample.mask.any()
    assert sample.failure[0] == "broken"
    assert len(sample.targets.labels) == 0
