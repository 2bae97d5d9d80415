"""Encoders with several features per snippet: where in time these stand for a head, on disk, and in what is found."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lofi.batches import WindowBatch
from lofi.data.annotated_video import AnnotatedVideo
from lofi.data.feature_store import (
    FeatureManifest,
    create_feature_directory,
    open_feature_directory,
    write_feature,
)
from lofi.data.feature_windows import FeatureWindows
from lofi.data.grid import GridConfig, frame_step_sec, snippet_centres_sec, snippet_frame_times_sec
from lofi.data.samples import SampleKey, WindowSample, collate, failed_sample, window_mask
from lofi.data.windows import extraction_windows, prediction_windows
from lofi.detector import Detector
from lofi.extraction import ExtractionConfig, extract_videos
from lofi.fidelity import Fidelity
from lofi.gradients.joint import encode_joint
from lofi.protocols import StepLosses, call_block, features_per_snippet
from lofi.segments import Detections, LabelledSegment, snippets_to_seconds, window_targets

L, T, R = 5, 6, 3
FIDELITY = Fidelity(num_snippets=L, frames=T, height=2, width=1)
SPREAD = GridConfig(spread_frames=True)
SLIDING = GridConfig(mode="sliding", window_sec=10.0, overlap=0.5, spread_frames=True)
VIDEOS = [
    AnnotatedVideo(
        name=name,
        subset="validation",
        duration_sec=duration_sec,
        segments=(
            LabelledSegment(start_sec=0.31, end_sec=2.17, label="jump"),
            LabelledSegment(start_sec=3.3, end_sec=duration_sec - 0.2, label="run"),
        ),
    )
    for name, duration_sec in (("short", 7.3), ("long", 23.9), ("cut", 20.7))
]
CLASSES = ("jump", "run")
MILLISECONDS = torch.tensor([256.0, 1.0])


class Clock(nn.Module):
    """Frames show their times; each two of them become one feature, their mean time."""

    frames_per_feature = 2
    feature_width = 1

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, frames, *, snippet_seeds=None, run_block=call_block):
        times_NT = (frames[:, 0, :, :, 0].float() @ MILLISECONDS) / 1000
        return self.weight * times_NT.unflatten(1, (-1, 2)).mean(2)[:, :, None]


class Oracle(nn.Module):
    """Finds what it is told, and remembers what it sees."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def losses(self, features, *, mask, targets):
        self.seen = features, mask, targets
        return StepLosses(total=features.sum() * self.weight)

    def detect(self, features, *, mask):
        self.seen = features, mask, self.seen[2]
        return [
            Detections(segments=each.segments, scores=torch.ones(len(each.labels)), labels=each.labels)
            for each in self.seen[2]
        ]


def decoded(window, grid, *, fidelity=FIDELITY) -> WindowSample:
    """What decoding would give: every frame shows its time in milliseconds (65 s at most), in two bytes."""
    cell_sec = window.length_sec / fidelity.num_snippets
    times = snippet_frame_times_sec(
        window.start_sec,
        window.end_sec,
        num_snippets=fidelity.num_snippets,
        frames=fidelity.frames,
        step_sec=frame_step_sec(grid, fps=30, cell_sec=cell_sec, frames=fidelity.frames),
    )
    milliseconds = torch.from_numpy(np.round(times * 1000).astype(np.int64))
    frames = torch.stack([milliseconds // 256, milliseconds % 256], dim=2)[:, None, :, :, None]
    return WindowSample(
        window=window,
        targets=window_targets(window, num_snippets=fidelity.num_snippets),
        mask=window_mask(window, num_snippets=fidelity.num_snippets),
        frames=frames.to(torch.uint8).expand(-1, 3, -1, -1, -1).contiguous(),
    )


def batch_of(grid, **options) -> WindowBatch:
    windows = prediction_windows(VIDEOS, classes=CLASSES, grid=grid)
    return collate([decoded(window, grid, **options) for window in windows])


def oracle_detector():
    return Detector(encoder=Clock(), head=Oracle(), encode=encode_joint).train()


@pytest.mark.parametrize("grid", [SPREAD, SLIDING], ids=["rescale", "sliding"])
@pytest.mark.parametrize("num_snippets", [L, 2], ids=["all", "LoFi T"])
def test_a_head_sees_each_feature_at_its_own_time(grid, num_snippets):
    """Also where LoFi takes fewer snippets: their frames are spread over longer cells."""
    detector = oracle_detector()
    batch = batch_of(grid, fidelity=replace(FIDELITY, num_snippets=num_snippets))
    detector(batch)
    features_BDL, mask, _ = detector.head.seen
    num_positions = num_snippets * R
    assert features_BDL.shape == (batch.num_windows, 1, num_positions)
    for window, seen_sec, inside in zip(batch.windows, features_BDL[:, 0], mask, strict=True):
        centres = snippet_centres_sec(window.start_sec, window.end_sec, num_snippets=num_positions)
        np.testing.assert_allclose(seen_sec.detach(), centres, atol=0.0011)
        assert inside.tolist() == (centres < window.video_duration_sec).tolist()


@pytest.mark.parametrize("grid", [SPREAD, SLIDING], ids=["rescale", "sliding"])
def test_what_an_oracle_finds_is_what_was_annotated(grid):
    detector = oracle_detector()
    batch = batch_of(grid)
    detector(batch)
    for window, each in zip(batch.windows, detector.head.seen[2], strict=True):
        torch.testing.assert_close(each.segments, window_targets(window, num_snippets=L * R).segments)
    for window, found in zip(batch.windows, detector.detect(batch), strict=True):
        found_sec = snippets_to_seconds(found.segments, window, num_snippets=L)
        annotated = torch.tensor([segment[:2] for segment in window.segments]).reshape(-1, 2)
        torch.testing.assert_close(found_sec, annotated, atol=1e-5, rtol=0)


def test_a_window_that_could_not_be_decoded_has_no_position_inside():
    batch = batch_of(SPREAD)
    failed = failed_sample(batch.windows[0], "damaged", frames=batch.frames[0])
    detector = oracle_detector()
    detector(collate([failed, decoded(batch.windows[1], SPREAD)]))
    assert detector.head.seen[1].any(dim=1).tolist() == [False, True]


def extracted(folder, grid):
    windows = extraction_windows(VIDEOS, classes=CLASSES, grid=grid, num_snippets=L * R)
    manifest = FeatureManifest(
        fidelity=vars(FIDELITY),
        grid=vars(grid),
        feature_width=1,
        features_per_snippet=features_per_snippet(Clock(), frames=T),
    )
    directory = create_feature_directory(folder, manifest)
    batches = (collate([decoded(window, grid)]) for window in windows)
    for each in extract_videos(Clock(), batches, config=ExtractionConfig(chunk_size=4)):
        write_feature(directory, each.video, each.features)
    return open_feature_directory(folder)


@pytest.mark.parametrize("grid", [SPREAD, SLIDING], ids=["rescale", "sliding"])
def test_features_from_disk_are_those_of_the_encoder_at_the_same_times(tmp_path, grid):
    directory = extracted(tmp_path, grid)
    manifest = directory.manifest
    for video in VIDEOS:
        rows = np.load(directory.file(video.name))
        times = manifest.row_times_sec(len(rows), duration_sec=video.duration_sec)
        np.testing.assert_allclose(rows[:, 0], times, atol=0.0011)
        stride_sec = times[1] - times[0]
        assert times[-1] < video.duration_sec <= times[-1] + stride_sec
    detector, batch = oracle_detector(), batch_of(grid)
    detector(batch)
    from_frames, mask, targets = detector.head.seen
    data = FeatureWindows(batch.windows, directory, grid=grid)
    fidelity = replace(FIDELITY, num_snippets=manifest.rows_per_window)
    from_disk = collate([data[SampleKey(index=i, fidelity=fidelity)] for i in range(batch.num_windows)])
    assert torch.equal(from_disk.mask, mask)
    for index, window in enumerate(batch.windows):
        last_sec = float(np.load(directory.file(window.video))[-1, 0])  # beyond it, that row
        expected = from_frames[index, 0].detach().clamp(max=last_sec)
        read = from_disk.features[index, :, 0]
        torch.testing.assert_close(read[mask[index]], expected[mask[index]], atol=0.0011, rtol=0)
    for one, other in zip(from_disk.targets, targets, strict=True):
        torch.testing.assert_close(one.segments, other.segments)
