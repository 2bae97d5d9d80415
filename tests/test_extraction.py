"""Chunks of any videos: which snippets are encoded together, and whose features they become."""

import numpy as np
import pytest
import torch
from torch import nn

from lofi.batches import WindowBatch
from lofi.data.grid import GridConfig
from lofi.data.samples import WindowSample, collate
from lofi.extraction import ExtractionConfig, extract_videos, extraction_grid
from lofi.segments import Targets, Window

NUM_SNIPPETS = 3


class Numbers(nn.Module):
    """A snippet's one number -> (number, its square)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.calls = []

    def forward(self, frames):
        self.calls.append(len(frames))
        number = frames.flatten(1).float().mean(dim=1)
        return torch.stack([number, number**2], dim=1) * self.weight


def batch(*windows, failure=None) -> WindowBatch:
    """Args: windows: (video, numbers of the snippets inside it)."""
    samples = []
    for video, numbers in windows:
        frames = torch.zeros(NUM_SNIPPETS, 3, 2, 4, 5, dtype=torch.uint8)
        for index, number in enumerate(numbers):
            frames[index] = number
        samples.append(
            WindowSample(
                window=Window(video=video, start_sec=0.0, end_sec=1.0, video_duration_sec=1.0),
                targets=Targets(segments=torch.zeros(0, 2), labels=torch.zeros(0, dtype=torch.int64)),
                mask=torch.arange(NUM_SNIPPETS) < len(numbers),
                frames=frames,
                failure=(video, failure) if failure else None,
            )
        )
    return collate(samples)


def rows(*numbers):
    return np.array([[number, number**2] for number in numbers], dtype=np.float32)


@pytest.mark.parametrize(("chunk_size", "calls"), [(4, [4, 4, 2]), (5, [5, 5]), (1, [1] * 10), (64, [10])])
def test_chunks_are_filled_over_windows_and_videos_and_every_video_gets_its_own(chunk_size, calls):
    encoder = Numbers()
    batches = [
        batch(("a", [1, 2, 3])),
        batch(("a", [4])),
        batch(("b", [5])),
        batch(("c", [6, 7, 8]), ("c", [9])),
        batch(("d", [10])),
    ]
    done = list(extract_videos(encoder, batches, config=ExtractionConfig(chunk_size=chunk_size)))
    assert encoder.calls == calls
    assert [video.video for video in done] == ["a", "b", "c", "d"]
    for video, numbers in zip(done, ([1, 2, 3, 4], [5], [6, 7, 8, 9], [10]), strict=True):
        np.testing.assert_array_equal(video.features, rows(*numbers))


def test_a_failed_video_has_its_reason_and_costs_no_further_encoding():
    encoder = Numbers()
    batches = [
        batch(("a", [1, 2, 3])),
        batch(("b", [4, 5, 6])),
        batch(("b", []), failure="it is damaged."),
        batch(("b", [7, 8, 9])),
        batch(("c", [10])),
    ]
    done = list(extract_videos(encoder, batches, config=ExtractionConfig(chunk_size=5)))
    assert [(video.video, video.failure) for video in done] == [
        ("a", None),
        ("b", "it is damaged."),
        ("c", None),
    ]
    assert done[1].features is None
    np.testing.assert_array_equal(done[2].features, rows(10))
    assert sum(encoder.calls) == 3 + 3 + 1


def test_a_video_is_given_as_soon_as_the_chunk_after_its_last_is_under_way():
    taken = []

    def batches():
        for index, name in enumerate("abcdefgh"):
            taken.append(name)
            yield batch((name, [index]))

    extracted = extract_videos(Numbers(), batches(), config=ExtractionConfig(chunk_size=2))
    assert next(extracted).video == "a"
    assert taken == ["a", "b", "c", "d"]
    assert [video.video for video in extracted] == list("bcdefgh")


def test_no_windows_give_no_videos():
    assert list(extract_videos(Numbers(), [], config=ExtractionConfig())) == []


def test_a_stride_in_frames_makes_windows_of_that_many_snippets():
    grid = GridConfig(frame_rate=30.0)
    dense = extraction_grid(grid, num_snippets=64, config=ExtractionConfig(stride_frames=8))
    assert (dense.mode, dense.window_sec, dense.frame_rate) == ("sliding", pytest.approx(64 * 8 / 30), 30.0)
    in_seconds = extraction_grid(GridConfig(), num_snippets=5, config=ExtractionConfig(stride_sec=0.4))
    assert in_seconds.window_sec == pytest.approx(2.0)
    assert extraction_grid(grid, num_snippets=64, config=ExtractionConfig()) is grid


@pytest.mark.parametrize(
    ("grid", "options", "match"),
    [
        (GridConfig(), {"stride_frames": 8}, r"stride_frames is 8, but grid\.frame_rate is null"),
        (
            GridConfig(spread_frames=True),
            {"stride_frames": 8},
            r"spread_frames: true there is no rate .*; set extraction\.stride_sec \(seconds\)\.$",
        ),
        (
            GridConfig(mode="sliding", window_sec=3.0),
            {"stride_sec": 0.5},
            r"stride_sec is 0\.5, but grid\.mode: sliding has a stride of its own",
        ),
    ],
)
def test_a_stride_that_contradicts_the_grid_is_refused(grid, options, match):
    with pytest.raises(ValueError, match=match):
        extraction_grid(grid, num_snippets=7, config=ExtractionConfig(**options))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"stride_sec": 0.5, "stride_frames": 8}, "are both given"),
        ({"stride_sec": 0.0}, r"stride_sec is 0\.0; it must be a positive"),
        ({"stride_frames": 0}, "stride_frames is 0; it must be at least 1"),
        ({"chunk_size": 0}, "chunk_size is 0; it must be at least 1"),
    ],
)
def test_wrong_options_of_extraction_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        ExtractionConfig(**options)
