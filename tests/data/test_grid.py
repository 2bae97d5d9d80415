import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lofi.data.grid import (
    GridConfig,
    consecutive_windows,
    frame_indices,
    frame_step_sec,
    snippet_centres_sec,
    snippet_frame_times_sec,
    snippet_mask,
    video_windows,
)

durations = st.floats(0.05, 20000, allow_nan=False)
window_lengths = st.floats(0.1, 500, allow_nan=False)
overlaps = st.floats(0, 0.95, allow_nan=False)


@given(duration=durations)
def test_rescale_has_one_window_which_is_the_video(duration):
    assert video_windows(duration, GridConfig()) == [(0.0, duration)]


@given(duration=st.floats(0.05, 2000), window=window_lengths, overlap=overlaps)
def test_sliding_windows_cover_the_video_with_at_least_the_overlap(duration, window, overlap):
    windows = video_windows(duration, GridConfig(mode="sliding", window_sec=window, overlap=overlap))
    starts = np.array([start for start, _ in windows])
    assert all(math.isclose(end - start, window) for start, end in windows)
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts) <= window * (1 - overlap) * (1 + 1e-5)).all()
    assert windows[-1][1] >= duration - 1e-5 * window
    if duration > window:
        assert windows[-1][1] <= duration * (1 + 1e-9) + 1e-5 * window
    else:
        assert windows == [(0.0, window)]


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (3.0, [(0, 10)]),
        (10.0, [(0, 10)]),
        (10.5, [(0, 10), (0.5, 10.5)]),
        (15.0, [(0, 10), (5, 15)]),
        (17.0, [(0, 10), (5, 15), (7, 17)]),
        (20.0, [(0, 10), (5, 15), (10, 20)]),
    ],
)
def test_last_sliding_window_ends_with_the_video(duration, expected):
    assert video_windows(duration, GridConfig(mode="sliding", window_sec=10.0)) == expected


@pytest.mark.parametrize("tenths", range(1, 400))
def test_number_of_sliding_windows_is_the_least_that_covers(tenths):
    duration, window, overlap = tenths / 10, 3.0, 0.25
    windows = video_windows(duration, GridConfig(mode="sliding", window_sec=window, overlap=overlap))
    hop_tenths = 22.5
    expected = 1 if tenths <= 30 else 1 + math.ceil((tenths - 30) / hop_tenths)
    assert len(windows) == expected


@given(duration=durations, window=st.floats(0.5, 500), num_snippets=st.integers(1, 40))
def test_consecutive_windows_hold_each_snippet_of_the_video_once(duration, window, num_snippets):
    config = GridConfig(mode="sliding", window_sec=window, overlap=0.3)
    if duration / window > 300:
        return
    windows = consecutive_windows(duration, config, num_snippets=num_snippets)
    centres = np.concatenate([snippet_centres_sec(*pair, num_snippets=num_snippets) for pair in windows])
    np.testing.assert_allclose(centres, (np.arange(len(centres)) + 0.5) * window / num_snippets, rtol=1e-9)
    kept = [
        snippet_mask(snippet_centres_sec(*pair, num_snippets=num_snippets), duration_sec=duration)
        for pair in windows
    ]
    assert sum(mask.sum() for mask in kept) == max(1, (centres < duration).sum())
    next_centre = (len(centres) + 0.5) * window / num_snippets
    assert next_centre >= duration * (1 - 1e-9)


@pytest.mark.parametrize(
    ("duration", "num_rows"), [(24.2, 24), (24.5, 24), (24.6, 25), (24.0, 24), (32.0, 32), (0.3, 1)]
)
def test_rows_are_the_centres_inside_the_video_and_at_least_one(duration, num_rows):
    config = GridConfig(mode="sliding", window_sec=8.0)
    windows = consecutive_windows(duration, config, num_snippets=8)
    masks = [
        snippet_mask(snippet_centres_sec(*pair, num_snippets=8), duration_sec=duration) for pair in windows
    ]
    assert sum(mask.sum() for mask in masks) == num_rows
    assert len(windows) == max(1, -(-num_rows // 8))


@given(start=st.floats(0, 100), length=st.floats(0.1, 100), num_snippets=st.integers(1, 300))
def test_snippet_centres_are_the_middles_of_equal_cells(start, length, num_snippets):
    centres = snippet_centres_sec(start, start + length, num_snippets=num_snippets)
    edges = np.linspace(start, start + length, num_snippets + 1)
    np.testing.assert_allclose(centres, (edges[1:] + edges[:-1]) / 2, atol=1e-9)


@given(num_snippets=st.integers(1, 64), length=st.floats(0.1, 60), duration=st.floats(0.001, 100))
def test_mask_is_a_prefix_with_at_least_one_snippet(num_snippets, length, duration):
    centres = snippet_centres_sec(0, length, num_snippets=num_snippets)
    mask = snippet_mask(centres, duration_sec=duration)
    assert mask[0]
    assert (np.diff(mask.astype(int)) <= 0).all()
    assert mask.sum() == max(1, (centres < duration).sum())


@given(
    num_snippets=st.integers(1, 20),
    frames=st.integers(1, 9),
    step=st.floats(0.01, 1),
    length=st.floats(1, 50),
)
def test_frame_times_are_centred_in_the_cell_and_step_apart(num_snippets, frames, step, length):
    times = snippet_frame_times_sec(3, 3 + length, num_snippets=num_snippets, frames=frames, step_sec=step)
    assert times.shape == (num_snippets, frames)
    centres = snippet_centres_sec(3, 3 + length, num_snippets=num_snippets)
    np.testing.assert_allclose(times.mean(axis=1), centres, atol=1e-9)
    np.testing.assert_allclose(np.diff(times, axis=1), step, atol=1e-9)


@pytest.mark.parametrize("fps", [5, 24, 25, 29.97, 30, 59.94])
@pytest.mark.parametrize("frames", [2, 4, 6, 8])
def test_cells_as_long_as_their_snippets_take_each_frame_once(fps, frames):
    num_snippets = 31
    times = snippet_frame_times_sec(
        0, num_snippets * frames / fps, num_snippets=num_snippets, frames=frames, step_sec=1 / fps
    )
    indices = frame_indices(times, num_frames=num_snippets * frames, fps=fps)
    assert indices.ravel().tolist() == list(range(num_snippets * frames))


def test_a_quarter_of_the_snippets_spreads_over_the_whole_window():
    many = snippet_centres_sec(0, 80, num_snippets=16)
    few = snippet_centres_sec(0, 80, num_snippets=4)
    np.testing.assert_allclose(few, many.reshape(4, 4).mean(axis=1))


@pytest.mark.parametrize("fps", [10, 23.976, 25, 29.97, 30])
@pytest.mark.parametrize("stamp_digits", [3, 9])
def test_timestamps_and_rate_agree_on_an_even_video_even_where_stamps_are_rounded(fps, stamp_digits):
    timestamps = np.round(np.arange(500) / fps, stamp_digits)
    middles = (np.arange(500) + 0.5) / fps
    starts = np.arange(500) / fps
    for times in (middles, starts):
        by_rate = frame_indices(times, num_frames=500, fps=fps)
        by_stamp = frame_indices(times, num_frames=500, fps=fps, timestamps_sec=timestamps)
        assert by_rate.tolist() == by_stamp.tolist() == list(range(500))


@given(
    gaps=st.lists(st.floats(0.01, 2), min_size=1, max_size=30),
    times=st.lists(st.floats(-5, 70), min_size=1, max_size=20),
)
def test_index_by_timestamp_is_the_last_frame_that_has_appeared(gaps, times):
    timestamps = np.concatenate([[0.0], np.cumsum(gaps)])
    indices = frame_indices(np.array(times), num_frames=len(timestamps), fps=1, timestamps_sec=timestamps)
    for time, index in zip(times, indices, strict=True):
        appeared = [i for i, stamp in enumerate(timestamps) if stamp <= time + 0.001]
        assert index == (appeared[-1] if appeared else 0)


def test_times_outside_the_video_take_its_first_and_last_frame():
    indices = frame_indices(np.array([[-4.0, 0.31], [0.99, 88.0]]), num_frames=10, fps=10)
    assert indices.tolist() == [[0, 3], [9, 9]]
    assert indices.dtype == np.int64


def test_frame_step_follows_the_rate_of_the_grid_or_of_the_video():
    cell = {"fps": 30, "cell_sec": 2.0, "frames": 5}
    assert frame_step_sec(GridConfig(frame_rate=8.0), **cell) == 1 / 8
    assert frame_step_sec(GridConfig(frame_stride=3), **cell) == 3 / 30
    assert frame_step_sec(GridConfig(spread_frames=True), **cell) == 2 / 5


def test_spread_frames_of_touching_snippets_are_evenly_spaced_over_the_window():
    step_sec = frame_step_sec(GridConfig(spread_frames=True), fps=30, cell_sec=3.0, frames=4)
    times = snippet_frame_times_sec(1.0, 10.0, num_snippets=3, frames=4, step_sec=step_sec)
    np.testing.assert_allclose(times.ravel(), 1 + (np.arange(12) + 0.5) * 0.75)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"mode": "sliding"}, r"grid\.window_sec is missing"),
        ({"window_sec": 3.0}, r"grid\.window_sec is 3\.0 but has no effect"),
        ({"overlap": 0.2}, r"grid\.overlap is 0\.2 but has no effect"),
        ({"mode": "sliding", "window_sec": 0.0}, r"grid\.window_sec is 0\.0"),
        ({"mode": "sliding", "window_sec": 4.0, "overlap": 1.0}, r"grid\.overlap is 1\.0"),
        ({"mode": "sliding", "window_sec": 4.0, "overlap": -0.1}, r"grid\.overlap is -0\.1"),
        ({"frame_rate": 0.0}, r"grid\.frame_rate is 0\.0"),
        ({"frame_stride": 0}, r"grid\.frame_stride is 0"),
        ({"frame_rate": 5.0, "frame_stride": 2}, r"grid\.frame_stride is 2 but has no effect"),
        ({"mode": "crop"}, r"grid\.mode is 'crop'"),
        ({"prediction": "videos"}, r"grid\.prediction: videos is only for mode: sliding"),
    ],
)
def test_wrong_grid_is_refused_by_key(keys, match):
    with pytest.raises(ValueError, match=match):
        GridConfig(**keys)


def test_a_video_without_length_is_refused():
    with pytest.raises(ValueError, match="duration is 0"):
        video_windows(0, GridConfig())
