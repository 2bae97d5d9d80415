import pytest
from hypothesis import given
from hypothesis import strategies as st

from lofi.data.annotations import AnnotatedVideo
from lofi.data.grid import GridConfig
from lofi.data.windows import clip_windows, extraction_windows, prediction_windows, training_windows
from lofi.segments import LabelledSegment

CLASSES = ("bounce", "orbit", "shake")
SLIDING = GridConfig(mode="sliding", window_sec=10.0)


def video(*segments, name="v", duration=40.0):
    return AnnotatedVideo(
        name=name,
        subset="training",
        duration_sec=duration,
        segments=tuple(
            LabelledSegment(start_sec=start, end_sec=end, label=label) for start, end, label in segments
        ),
    )


def test_rescale_keeps_every_video_whole_with_class_indices():
    videos = [video((1, 4, "shake"), (2, 9, "bounce")), video(name="empty", duration=7.0)]
    windows = training_windows(videos, classes=CLASSES, grid=GridConfig())
    assert [(w.video, w.start_sec, w.end_sec, w.video_duration_sec) for w in windows] == [
        ("v", 0, 40, 40),
        ("empty", 0, 7, 7),
    ]
    assert windows[0].segments == ((1, 4, 2), (2, 9, 0))
    assert windows[1].segments == ()


def test_sliding_training_keeps_only_windows_with_an_instance_and_clips_it():
    windows = training_windows([video((8, 12, "orbit"))], classes=CLASSES, grid=SLIDING)
    assert [(w.start_sec, w.segments) for w in windows] == [
        (0, ((8, 10, 1),)),
        (5, ((8, 12, 1),)),
        (10, ((10, 12, 1),)),
    ]


def test_sliding_training_drops_slivers_below_a_quarter_and_keeps_a_quarter():
    windows = training_windows([video((9.5, 12.5, "orbit"))], classes=CLASSES, grid=SLIDING)
    assert [w.start_sec for w in windows] == [5, 10]
    windows = training_windows([video((9.0, 13.0, "orbit"))], classes=CLASSES, grid=SLIDING)
    assert [w.start_sec for w in windows] == [0, 5, 10]


def test_an_instance_longer_than_the_window_is_kept_in_its_middle():
    long_video = video((10, 90, "orbit"), duration=100.0)
    windows = training_windows([long_video], classes=CLASSES, grid=SLIDING)
    middle = next(w for w in windows if w.start_sec == 45)
    assert middle.segments == ((45, 55, 1),)


def test_prediction_keeps_every_window_and_sliver():
    windows = prediction_windows([video((9.5, 12.5, "orbit"))], classes=CLASSES, grid=SLIDING)
    assert [w.start_sec for w in windows] == [0, 5, 10, 15, 20, 25, 30]
    assert windows[0].segments == ((9.5, 10, 1),)
    assert windows[-1].segments == ()


def test_extraction_windows_lie_side_by_side():
    windows = extraction_windows([video(duration=23.0)], classes=CLASSES, grid=SLIDING, num_snippets=5)
    assert [(w.start_sec, w.end_sec) for w in windows] == [(0, 10), (10, 20), (20, 30)]
    windows = extraction_windows([video(duration=23.0)], classes=CLASSES, grid=GridConfig(), num_snippets=5)
    assert [(w.start_sec, w.end_sec) for w in windows] == [(0, 23)]


def test_each_segment_becomes_clips_of_its_own():
    windows = clip_windows([video((1, 4, "shake"), (2, 9, "bounce"))], classes=CLASSES, clips_per_segment=2)
    assert [(w.start_sec, w.end_sec, w.segments) for w in windows] == [
        (1, 4, ((1, 4, 2),)),
        (1, 4, ((1, 4, 2),)),
        (2, 9, ((2, 9, 0),)),
        (2, 9, ((2, 9, 0),)),
    ]


@given(start=st.floats(0, 30), length=st.floats(0.1, 30), window=st.floats(1, 60), overlap=st.floats(0, 0.9))
def test_every_instance_is_in_some_sliding_training_window(start, length, window, overlap):
    grid = GridConfig(mode="sliding", window_sec=window, overlap=overlap)
    windows = training_windows(
        [video((start, start + length, "orbit"), duration=61.0)], classes=CLASSES, grid=grid
    )
    assert windows
    for one in windows:
        ((clipped_start, clipped_end, label),) = one.segments
        assert label == 1
        assert max(start, one.start_sec) == clipped_start < clipped_end == min(start + length, one.end_sec)


def test_training_videos_without_any_instance_are_refused():
    for grid in (SLIDING, GridConfig()):
        with pytest.raises(ValueError, match="none of the 2 training videos has an annotated segment"):
            training_windows([video(), video(name="w")], classes=CLASSES, grid=grid)
    with pytest.raises(ValueError, match="nothing to classify"):
        clip_windows([video()], classes=CLASSES)
    with pytest.raises(ValueError, match=r"data\.clips_per_segment is 0"):
        clip_windows([video()], classes=CLASSES, clips_per_segment=0)
