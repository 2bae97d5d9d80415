"""Random crops of whole videos, and whole videos: the rule, the targets against a loop, exact rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lofi.data.annotations import AnnotatedVideo
from lofi.data.crops import draw_crop, kept_instances, snippets_inside
from lofi.data.feature_store import FeatureManifest, create_feature_directory, write_feature
from lofi.data.feature_windows import FeatureWindows
from lofi.data.frame_windows import FrameWindows
from lofi.data.grid import GridConfig
from lofi.data.samples import SampleKey, collate
from lofi.data.windows import prediction_windows, training_windows
from lofi.fidelity import Fidelity
from lofi.segments import LabelledSegment, Window

CLASSES = ("bounce", "orbit")
STRIDE_SEC, FIRST_ROW_SEC = 0.5, 1.0
GRID = GridConfig(mode="sliding", window_sec=4.0, training="crops", prediction="videos")
L = 8


def slow_kept(segments, *, first, length, visible):
    kept = []
    for start, end in segments:
        inside = min(end, first + length) - max(start, first)
        kept.append(inside > 0 and inside >= visible * min(end - start, length) - 1e-6)
    return kept


def drawn(segments, *, num_snippets, seed=0, window=L, share=0.9, visible=0.5):
    return draw_crop(
        np.array(segments, dtype=float).reshape(-1, 2),
        num_snippets=num_snippets,
        window_snippets=window,
        share=share,
        visible=visible,
        generator=np.random.default_rng(seed),
    )


@settings(deadline=None, max_examples=60)
@given(
    num_snippets=st.integers(1, 60),
    starts=st.lists(st.floats(0, 50), min_size=1, max_size=4),
    length=st.floats(0.1, 30),
    seed=st.integers(0, 99),
)
def test_a_crop_lies_in_its_video_and_keeps_an_instance_where_one_can_be_kept(
    num_snippets, starts, length, seed
):
    segments = [(start, start + length) for start in starts if start + length <= num_snippets]
    first, count = drawn(segments, num_snippets=num_snippets, seed=seed)
    assert 0 <= first <= first + count <= num_snippets
    assert count == L if num_snippets > L else round(0.9 * num_snippets) <= count <= num_snippets
    keeps = [
        any(slow_kept(segments, first=place, length=count, visible=0.5))
        for place in range(num_snippets - count + 1)
    ]
    assert keeps[first] or not any(keeps)
    if segments and length >= 1:
        assert any(keeps)


def test_every_place_that_keeps_an_instance_is_drawn_and_no_other():
    places = {drawn([(20.0, 24.0)], num_snippets=60, seed=seed)[0] for seed in range(300)}
    assert places == set(range(14, 23))  # from half of it at the end of the crop to half of it at the start
    lengths = {drawn([(2.0, 3.0)], num_snippets=8, seed=seed)[1] for seed in range(50)}
    assert lengths == {7, 8}


def test_of_an_instance_longer_than_the_crop_the_share_is_of_the_crop():
    segments = np.array([[10.0, 50.0]])
    assert kept_instances(segments, first=20, length=L, visible=0.5).tolist() == [True]
    assert kept_instances(segments, first=6, length=L, visible=0.5).tolist() == [True]
    assert kept_instances(segments, first=5, length=L, visible=0.5).tolist() == [False]


def manifest(**changes):
    values = {
        "fidelity": {"num_snippets": L, "frames": 2, "height": 8, "width": 8},
        "grid": {"mode": "sliding", "window_sec": L * STRIDE_SEC},
        "feature_width": 2,
        "first_row_sec": FIRST_ROW_SEC,
    }
    return FeatureManifest(**{**values, **changes})


@pytest.fixture
def numbered_rows(tmp_path):
    """Videos whose row i is (i, 1): "long" of 37 rows, "short" of 6."""
    directory = create_feature_directory(tmp_path / "features", manifest())
    for name, count in (("long", 37), ("short", 6)):
        write_feature(directory, name, np.stack([np.arange(count), np.ones(count)], axis=1).astype("float32"))
    return directory


def annotated(name, duration, *segments):
    rows = tuple(LabelledSegment(start_sec=a, end_sec=b, label=label) for a, b, label in segments)
    return AnnotatedVideo(name=name, subset="training", duration_sec=duration, segments=rows)


VIDEOS = [
    annotated("long", 20.0, (0.0, 3.0, "orbit"), (9.0, 11.0, "bounce"), (10.5, 19.5, "orbit")),
    annotated("short", 4.5, (1.5, 3.0, "bounce")),
]


def key(index, *, epoch=0, training=True):
    return SampleKey(
        index=index,
        fidelity=Fidelity(num_snippets=L, frames=2, height=8, width=8),
        epoch=epoch,
        training=training,
    )


def test_a_crop_of_features_has_whole_rows_and_the_targets_of_a_loop(numbered_rows):
    windows = training_windows(VIDEOS, classes=CLASSES, grid=GRID)
    assert [window.video for window in windows] == ["long", "short"]
    data = FeatureWindows(windows, numbered_rows, grid=GRID, seed=3)
    places = set()
    for epoch in range(40):
        for index, video in enumerate(VIDEOS):
            sample = data[key(index, epoch=epoch)]
            count = int(sample.mask.sum())
            assert sample.mask.tolist() == [True] * count + [False] * (L - count)
            first = int(sample.features[0, 0])
            assert sample.features[:count, 0].tolist() == list(range(first, first + count))
            places.add((index, first, count))
            in_rows = [
                [(time - FIRST_ROW_SEC) / STRIDE_SEC + 0.5 for time in (each.start_sec, each.end_sec)]
                for each in video.segments
            ]
            kept = slow_kept(in_rows, first=first, length=count, visible=0.5)
            expected = [
                [max(start - first, 0), min(end - first, count), CLASSES.index(each.label)]
                for (start, end), each, is_kept in zip(in_rows, video.segments, kept, strict=True)
                if is_kept
            ]
            assert expected
            found = [
                [*segment, label]
                for segment, label in zip(
                    sample.targets.segments.tolist(), sample.targets.labels.tolist(), strict=True
                )
            ]
            assert found == [pytest.approx(row, abs=1e-5) for row in expected]
    assert len({first for index, first, _ in places if index == 0}) > 10
    assert {count for index, _, count in places if index == 1} == {5, 6}
    again = FeatureWindows(windows, numbered_rows, grid=GRID, seed=3)[key(0, epoch=7)]
    assert again.window == data[key(0, epoch=7)].window


def test_whole_videos_are_all_their_rows_and_a_batch_of_them_is_padded(numbered_rows):
    windows = prediction_windows(VIDEOS, classes=CLASSES, grid=GRID)
    data = FeatureWindows(windows, numbered_rows, grid=GRID)
    samples = [data[key(index, training=False)] for index in (1, 0)]
    assert [len(sample.mask) for sample in samples] == [6, 37]
    batch = collate(samples)
    assert batch.features[:, :, 0].tolist() == [[*range(6), *[0] * 31], [*range(37)]]
    assert batch.mask.tolist() == [[True] * 6 + [False] * 31, [True] * 37]
    for sample, window in zip(samples, batch.windows, strict=True):
        step_sec = window.length_sec / 37
        assert step_sec == pytest.approx(STRIDE_SEC)
        assert window.start_sec == sample.window.start_sec == FIRST_ROW_SEC - STRIDE_SEC / 2


def test_a_crop_of_frames_keeps_its_place_at_every_number_of_snippets(numbered_videos, numbers_in):
    video = Window(
        video="long", start_sec=0.0, end_sec=4.0, video_duration_sec=4.0, segments=((1.0, 2.5, 1),)
    )
    grid = GridConfig(mode="sliding", window_sec=1.6, training="crops")
    data = FrameWindows([video], numbered_videos, grid=grid, seed=3)
    starts = set()
    for epoch in range(6):
        for count in (4, 2):
            fidelity = Fidelity(num_snippets=count, frames=1, height=24, width=40)
            sample = data[SampleKey(index=0, fidelity=fidelity, epoch=epoch, training=True)]
            window = sample.window
            assert window.length_sec == pytest.approx(1.6)
            assert sample.mask.all()
            assert len(sample.targets.labels) == 1
            images = sample.frames.permute(0, 2, 3, 4, 1).flatten(0, 1).numpy()
            step = 16 / count  # frames of a cell, 10 a second
            first = window.start_sec * 10
            assert numbers_in(images) == [int(first + (cell + 0.5) * step) for cell in range(count)]
            starts.add(round(window.start_sec / (1.6 / count), 6))
    assert all(start == int(start) for start in starts)
    assert len(starts) > 2


def test_of_a_rescaled_video_some_of_its_snippets_are_kept(tmp_path, numbered_videos, numbers_in):
    """Features: 16 rows stretched over 8 snippets. Frames: 40, over 8 snippets. A video without instances counts too."""
    grid = GridConfig(training="crops")
    directory = create_feature_directory(
        tmp_path / "rescaled", manifest(grid={"mode": "rescale"}, first_row_sec=None)
    )
    for name in ("long", "bare"):
        write_feature(directory, name, np.stack([np.arange(16), np.ones(16)], axis=1).astype("float32"))
    video = annotated("long", 4.0, (0.0, 1.0, "orbit"), (2.0, 4.0, "bounce"))
    windows = training_windows([video, annotated("bare", 4.0)], classes=CLASSES, grid=grid)
    assert [window.video for window in windows] == ["long", "bare"]
    features = FeatureWindows(windows, directory, grid=grid, seed=3)
    frames = FrameWindows(windows, numbered_videos, grid=grid, seed=3)
    crops = set()
    for epoch in range(12):
        sample = features[key(0, epoch=epoch)]
        count = int(sample.mask.sum())
        first = round(sample.window.start_sec / 0.5)
        crops.add((first, count))
        assert sample.features[:count, 0].tolist() == [2 * (first + place) + 0.5 for place in range(count)]
        kept = [(max(0, 0 - first), 2 - first, 1), (4 - first, min(8 - first, count), 0)]
        assert sample.targets.segments.tolist() == [pytest.approx(row[:2]) for row in kept]
        assert sample.targets.labels.tolist() == [label for _, _, label in kept]
        fidelity = Fidelity(num_snippets=L, frames=1, height=24, width=40)
        shown = frames[SampleKey(index=0, fidelity=fidelity, epoch=epoch, training=True)]
        assert shown.window == sample.window
        images = shown.frames.permute(0, 2, 3, 4, 1).flatten(0, 1).numpy()
        assert numbers_in(images)[:count] == [5 * (first + place) + 2 for place in range(count)]
    assert crops == {(0, 8), (0, 7), (1, 7)}
    bare = [features[key(1, epoch=epoch)] for epoch in range(12)]
    assert {int(sample.mask.sum()) for sample in bare} == {7, 8}
    assert not any(len(sample.targets.labels) for sample in bare)
    whole = FeatureWindows(windows, directory, grid=grid)[key(0, training=False)]
    assert whole.mask.all()


def test_snippets_inside_a_video_have_their_centre_there():
    for duration, expected in ((0.1, 1), (1.0, 2), (1.24, 2), (1.26, 3), (1.75, 3), (2.0, 4)):
        assert snippets_inside(duration, step_sec=0.5) == expected
