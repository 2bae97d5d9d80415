"""Windows of the pretexts: background between actions, balanced classes, stretches, labelled shares."""

from collections import Counter
from itertools import pairwise

import pytest

from lofi.data.annotations import AnnotatedVideo
from lofi.data.labelled_share import draw_labelled, repeat_windows
from lofi.data.pretext_windows import (
    background_stretches,
    balanced_windows,
    bare_videos,
    labelled_stretches,
    region_windows,
    short_segments,
    short_videos,
)
from lofi.data.stretches import cut_stretch
from lofi.data.windows import clip_windows
from lofi.segments import LabelledSegment, Window

CLASSES = ("bounce", "shake")


def video(*segments, name="v", duration_sec=20.0):
    return AnnotatedVideo(
        name=name,
        subset="training",
        duration_sec=duration_sec,
        segments=tuple(
            LabelledSegment(start_sec=start, end_sec=end, label=label) for start, end, label in segments
        ),
    )


def test_background_is_what_no_action_covers_and_is_long_enough():
    found = background_stretches(
        video((4, 9, "shake"), (2, 6, "bounce"), (9.5, 18, "shake"), (10, 12, "bounce")), min_sec=1.0
    )
    assert found == [(0.0, 2), (18, 20.0)]
    assert background_stretches(video(), min_sec=1.0) == [(0.0, 20.0)]
    assert background_stretches(video((0, 20, "shake")), min_sec=1.0) == []


def test_region_windows_hold_actions_with_and_background_without_a_label():
    videos = [video((5, 8, "shake"), name="a"), video(name="b")]
    windows = region_windows(videos, classes=CLASSES, min_background_sec=1.0, clips_per_segment=2)
    assert [(each.video, each.start_sec, each.end_sec, each.segments) for each in windows[::2]] == [
        ("a", 5, 8, ((5, 8, 1),)),
        ("a", 0.0, 5, ()),
        ("a", 8, 20.0, ()),
        ("b", 0.0, 20.0, ()),
    ]
    assert windows[::2] == windows[1::2]


def test_annotations_without_background_are_refused():
    with pytest.raises(ValueError, match="none of the 1 videos has 2 s in which nothing is annotated"):
        region_windows([video((0, 19, "shake"))], classes=CLASSES, min_background_sec=2.0)
    with pytest.raises(ValueError, match="none of the 1 videos has an annotated segment"):
        region_windows([video()], classes=CLASSES, min_background_sec=2.0)


def test_balanced_windows_have_every_class_as_often_as_the_most_frequent():
    segments = [(index, index + 1, "shake") for index in range(5)] + [(6, 7, "bounce"), (8, 9, "bounce")]
    windows = balanced_windows(clip_windows([video(*segments)], classes=CLASSES))
    counts = Counter(window.segments[0][2] for window in windows)
    assert counts == {0: 5, 1: 5}
    starts = Counter(window.start_sec for window in windows if window.segments[0][2] == 0)
    assert starts == {6: 3, 8: 2}


def test_stretches_need_long_segments_of_two_classes():
    videos = [video((1, 4, "shake"), (5, 6, "bounce"), (8, 12, "bounce"))]
    windows = labelled_stretches(videos, classes=CLASSES, stretch_sec=2.0)
    assert [window.start_sec for window in windows] == [1, 8]
    with pytest.raises(ValueError, match="of the one class bounce"):
        labelled_stretches(videos, classes=CLASSES, stretch_sec=3.5)
    with pytest.raises(ValueError, match="none of the 3 annotated segments holds 9 s .* longest has 4 s"):
        labelled_stretches(videos, classes=CLASSES, stretch_sec=9.0)


def test_pasting_needs_three_videos_that_are_long_enough():
    videos = [
        video(name=name, duration_sec=duration) for name, duration in zip("abcd", (5, 9, 8, 7), strict=True)
    ]
    windows = bare_videos(videos, stretch_sec=6.0, windows_per_video=2)
    assert [window.video for window in windows] == ["b", "b", "c", "c", "d", "d"]
    assert all(window.segments == () for window in windows)
    with pytest.raises(ValueError, match="2 of 4 videos hold 8 s .* three are needed"):
        bare_videos(videos, stretch_sec=8.0)


def test_what_is_too_short_for_a_stretch_is_counted():
    videos = [video((1, 4, "shake"), (5, 6, "bounce"), (8, 12, "bounce")), video(duration_sec=2.5)]
    stretch = "the 3 s that a stretch takes: left out"
    assert short_videos(videos, stretch_sec=3.0) == f"1 of 2 videos does not hold {stretch}"
    assert short_segments(videos, stretch_sec=3.0) == f"1 of 3 annotated segments does not hold {stretch}"
    assert short_videos(videos, stretch_sec=2.5) == short_segments(videos, stretch_sec=1.0) == ""


@pytest.mark.parametrize(("place", "start_sec"), [(0.0, 4.0), (0.5, 7.0), (1.0, 10.0)])
def test_a_stretch_lies_in_its_window_and_keeps_what_it_shows(place, start_sec):
    window = Window(
        video="v",
        start_sec=4.0,
        end_sec=12.0,
        video_duration_sec=20.0,
        segments=((4.0, 9.5, 1), (11.5, 12.0, 0)),
    )
    found = cut_stretch(window, stretch_sec=2.0, place=place)
    assert (found.start_sec, found.end_sec) == (start_sec, start_sec + 2.0)
    shown = {0.0: ((4.0, 6.0, 1),), 0.5: ((7.0, 9.0, 1),), 1.0: ((11.5, 12.0, 0),)}
    assert found.segments == shown[place]


def test_a_smaller_share_of_labels_lies_in_a_larger_one_and_has_every_class():
    videos = [
        video((1, 2, CLASSES[index % 2]), name=f"v{index}") if index < 30 else video(name=f"v{index}")
        for index in range(40)
    ]
    drawn = {share: draw_labelled(videos, share=share, seed=3) for share in (0.01, 0.1, 0.25, 0.5, 1.0)}
    assert [len(each) for each in drawn.values()] == [2, 4, 10, 20, 40]
    names = [{each.name for each in each_share} for each_share in drawn.values()]
    assert all(small < large for small, large in pairwise(names))
    assert {each.segments[0].label for each in drawn[0.01]} == set(CLASSES)
    assert draw_labelled(videos, share=0.25, seed=4) != drawn[0.25]


def test_windows_are_repeated_as_evenly_as_their_number_allows():
    windows = clip_windows([video((1, 2, "shake"), (3, 4, "bounce"), (5, 6, "shake"))], classes=CLASSES)
    repeated = repeat_windows(windows, count=8)
    assert [window.start_sec for window in repeated] == [1, 3, 5, 1, 3, 5, 1, 3]
    assert repeat_windows(windows, count=2) == windows
