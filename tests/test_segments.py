"""Segments: temporal IoU and the maps between seconds and snippet index, against slow loops and limits."""

import numpy as np
import pytest
import torch

from lofi.segments import (
    Detections,
    Window,
    seconds_to_snippets,
    snippets_to_seconds,
    tiou_matrix,
    window_targets,
)

WINDOW = Window(
    video="v",
    start_sec=3.0,
    end_sec=11.0,
    video_duration_sec=10.0,
    segments=((3.0, 5.0, 4), (6.5, 10.0, 0)),
)


def slow_tiou(first, second):
    intersection = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    union = (first[1] - first[0]) + (second[1] - second[0]) - intersection
    return intersection / union if union > 0 else 0.0


def test_tiou_matrix_equals_a_loop_over_pairs():
    generator = np.random.default_rng(1)
    first, second = (
        np.sort(generator.integers(0, 9, (count, 2)), axis=1).astype(float) for count in (23, 31)
    )
    expected = [[slow_tiou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(tiou_matrix(first, second), expected, atol=1e-12)


def test_tiou_has_its_limits():
    segments = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 3.0]])
    matrix = tiou_matrix(segments, segments)
    assert matrix.tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("first", "second"), [(0, 3), (4, 0), (0, 0)])
def test_tiou_of_no_segments_is_an_empty_matrix(first, second):
    assert tiou_matrix(np.zeros((first, 2)), np.zeros((second, 2))).shape == (first, second)


def test_seconds_map_to_the_cells_of_the_window():
    times = torch.tensor([3.0, 5.0, 11.0])
    assert seconds_to_snippets(times, WINDOW, num_snippets=16).tolist() == [0.0, 4.0, 16.0]
    assert (
        snippets_to_seconds(torch.tensor([0.0, 4.0, 16.0]), WINDOW, num_snippets=16).tolist()
        == times.tolist()
    )


@pytest.mark.parametrize("num_snippets", [1, 3, 7, 100])
def test_seconds_and_snippets_are_inverse(num_snippets):
    times = torch.linspace(-2, 15, 29, dtype=torch.float64).reshape(29, 1)
    there = seconds_to_snippets(times, WINDOW, num_snippets=num_snippets)
    back = snippets_to_seconds(there, WINDOW, num_snippets=num_snippets)
    torch.testing.assert_close(back, times, atol=1e-12, rtol=0)


@pytest.mark.parametrize("num_snippets", [4, 8, 32])
def test_targets_scale_with_the_number_of_snippets(num_snippets):
    targets = window_targets(WINDOW, num_snippets=num_snippets)
    assert targets.segments.dtype == torch.float32
    assert targets.labels.tolist() == [4, 0]
    expected = torch.tensor([[0.0, 0.25], [0.4375, 0.875]]) * num_snippets
    torch.testing.assert_close(targets.segments, expected)


def test_a_window_without_instances_has_empty_targets():
    empty = Window(video="v", start_sec=0.0, end_sec=2.0, video_duration_sec=2.0)
    targets = window_targets(empty, num_snippets=5)
    assert targets.segments.shape == (0, 2)
    assert targets.labels.shape == (0,)
    assert targets.labels.dtype == torch.int64


def test_the_length_of_a_window_may_reach_past_its_video():
    assert WINDOW.length_sec == 8.0


def test_detections_come_to_the_cpu_as_float32():
    found = Detections(
        segments=torch.zeros(2, 2, dtype=torch.bfloat16),
        scores=torch.ones(2, dtype=torch.float64),
        labels=torch.arange(2),
    ).to_cpu()
    assert (found.segments.dtype, found.scores.dtype, found.labels.dtype) == (
        torch.float32,
        torch.float32,
        torch.int64,
    )
