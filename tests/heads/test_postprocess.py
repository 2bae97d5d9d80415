"""Windows of a video -> detections in seconds; score fusion; the `postprocess:` block."""

import json
import math
from pathlib import Path

import pytest
import torch

from lofi.heads.postprocess import (
    PostprocessConfig,
    WindowDetections,
    fuse_video_scores,
    merge_windows,
    read_video_scores,
    scores_of_video,
    to_predictions,
)
from lofi.segments import Detection, Detections, Window


def found_in(
    start_sec: float,
    end_sec: float,
    *rows: tuple[float, float, float, int],
    video: str = "v",
    duration: float = 30.0,
) -> WindowDetections:
    return WindowDetections(
        window=Window(video=video, start_sec=start_sec, end_sec=end_sec, video_duration_sec=duration),
        detections=Detections(
            segments=torch.tensor([row[:2] for row in rows]).reshape(-1, 2),
            scores=torch.tensor([row[2] for row in rows]),
            labels=torch.tensor([row[3] for row in rows], dtype=torch.int64),
        ),
        num_snippets=8,
    )


def test_windows_are_mapped_to_seconds_and_clipped_to_the_video() -> None:
    merged = merge_windows(
        [found_in(0, 16, (1, 3, 0.9, 2)), found_in(16, 32, (2, 8, 0.7, 0), (7.5, 8, 0.8, 1))],
        config=PostprocessConfig(),
    )
    assert merged.segments.tolist() == [[2.0, 6.0], [20.0, 30.0]]
    assert merged.scores.tolist() == pytest.approx([0.9, 0.7])
    assert merged.labels.tolist() == [2, 0]


def test_the_same_action_seen_by_two_windows_is_kept_once() -> None:
    windows = [found_in(0, 16, (5, 7, 0.9, 2)), found_in(8, 24, (1, 3, 0.7, 2), (1, 3, 0.6, 1))]
    merged = merge_windows(windows, config=PostprocessConfig(nms="hard"))
    assert merged.segments.tolist() == [[10.0, 14.0], [10.0, 14.0]]
    assert merged.labels.tolist() == [2, 1]
    across = merge_windows(windows, config=PostprocessConfig(nms="hard", class_wise=False))
    assert across.labels.tolist() == [2]


def test_bmn_gaussian_and_voting_are_reached_from_the_recipe() -> None:
    windows = [found_in(0, 16, (0, 5, 0.9, 2), (0, 4, 0.8, 2))]  # 10 and 8 seconds
    spared = PostprocessConfig(nms="bmn_gaussian", tiou_threshold=0.5, tiou_threshold_per_sec=0.04)
    assert merge_windows(windows, config=spared).scores.tolist() == pytest.approx([0.9, 0.8])
    decayed = PostprocessConfig(nms="bmn_gaussian", tiou_threshold=0.5, sigma=0.8)
    assert merge_windows(windows, config=decayed).scores[1].item() == pytest.approx(
        0.8 * math.exp(-0.64 / 0.8)
    )
    voted = merge_windows(windows, config=PostprocessConfig(nms="hard", voting_tiou_threshold=0.7))
    end_sec = (0.9 * 10 + 0.8 * 0.8 * 8) / (0.9 + 0.8 * 0.8)
    assert voted.segments.flatten().tolist() == pytest.approx([0.0, end_sec])


def test_detections_of_a_model_that_diverged_are_refused_with_the_video() -> None:
    for row in ((1.0, math.nan, 0.9, 1), (1.0, 3.0, math.nan, 1)):
        with pytest.raises(ValueError, match="^video 'v': soft_nms: of 2 detections, .* model that diverged"):
            merge_windows([found_in(0, 16, (2, 5, 0.8, 0), row)], config=PostprocessConfig())


def test_at_most_max_detections_are_kept() -> None:
    rows = [(i % 4 * 2.0, i % 4 * 2.0 + 1 + i / 20, 0.1 + i / 20, i % 3) for i in range(15)]
    merged = merge_windows([found_in(0, 16, *rows)], config=PostprocessConfig(max_detections=4))
    assert len(merged.scores) == 4
    assert merged.scores[0].item() == pytest.approx(0.8)


def test_video_without_detections_gives_none() -> None:
    assert to_predictions(merge_windows([found_in(0, 16)], config=PostprocessConfig()), classes=["a"]) == []


def test_windows_of_two_videos_are_refused() -> None:
    with pytest.raises(ValueError, match=r"windows of one video; got windows of \['a', 'b'\]"):
        merge_windows([found_in(0, 9, video="a"), found_in(0, 9, video="b")], config=PostprocessConfig())


def test_fusion_multiplies_class_aware_detections() -> None:
    detections = found_in(0, 16, (1, 3, 0.9, 0), (2, 4, 0.8, 2), (5, 6, 0.5, 1)).detections
    class_scores = torch.tensor([0.1, 0.3, 0.6])
    fused = fuse_video_scores(detections, class_scores)
    assert fused.labels.tolist() == [2, 1, 0]
    assert fused.scores.tolist() == pytest.approx([0.48, 0.15, 0.09])
    assert fused.segments[0].tolist() == [2.0, 4.0]
    assert fuse_video_scores(detections, class_scores, top_k=1).labels.tolist() == [2]


def test_fusion_follows_suppression_and_takes_k_from_the_recipe() -> None:
    windows = [found_in(0, 16, (1, 3, 0.9, 0), (1, 3, 0.8, 0), (4, 6, 0.5, 2))]
    config = PostprocessConfig(nms="hard", video_scores="scores.json", video_scores_top_k=1)
    merged = merge_windows(windows, config=config, class_scores=torch.tensor([0.3, 0.1, 0.6]))
    assert merged.labels.tolist() == [2]
    assert merged.scores.tolist() == pytest.approx([0.3])
    with pytest.raises(ValueError, match=r"no class_scores, but postprocess\.video_scores is scores\.json"):
        merge_windows(windows, config=config)


def test_proposals_become_a_detection_of_each_of_the_best_classes() -> None:
    windows = [found_in(0, 16, (1, 3, 0.9, -1), (1, 3, 0.8, -1), (4, 6, 0.5, -1))]
    config = PostprocessConfig(nms="hard", video_scores="scores.json", video_scores_top_k=2)
    merged = merge_windows(windows, config=config, class_scores=torch.tensor([0.3, 0.1, 0.6]))
    assert merged.labels.tolist() == [2, 2, 0, 0]
    assert merged.scores.tolist() == pytest.approx([0.54, 0.3, 0.27, 0.15])
    assert merged.segments.tolist() == [[2.0, 6.0], [8.0, 12.0], [2.0, 6.0], [8.0, 12.0]]
    with pytest.raises(ValueError, match=r"video 'v': the head finds proposals without a class"):
        merge_windows(windows, config=PostprocessConfig())


def test_video_scores_are_read_in_the_order_of_the_classes(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"class": ["b", "x", "a"], "results": {"v_one": [0.1, 0.2, 0.7]}}))
    scores = read_video_scores(path, classes=["a", "b"])
    assert scores_of_video(scores, "one").tolist() == pytest.approx([0.7, 0.1])
    assert scores_of_video(scores, "v_one").tolist() == pytest.approx([0.7, 0.1])
    with pytest.raises(ValueError, match="video 'two' has no scores"):
        scores_of_video(scores, "two")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", 'needs the keys "class"'),
        ('{"class": ["a"], "results": {}}', "lacks 1 of the data's classes, the first is 'b'"),
        ('{"class": ["a", "b"], "results": {"v": [0.1]}}', r"results\['v'\] must be 2 finite numbers"),
        ('{"class": ["a", "b"], "results": {"v": [0.1, NaN]}}', r"results\['v'\] must be 2 finite numbers"),
    ],
)
def test_broken_video_scores_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_video_scores(path, classes=["a", "b"])
    assert "scores.json" in str(caught.value)


def test_predictions_carry_class_names() -> None:
    detections = found_in(0, 16, (1, 3, 0.5, 1)).detections
    assert to_predictions(detections, classes=["run", "jump"]) == [
        Detection(start_sec=1.0, end_sec=3.0, label="jump", score=0.5)
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nms": "soft"}, r"postprocess\.nms is 'soft'; allowed: hard, linear, gaussian, bmn_gaussian"),
        ({"nms": "hard", "sigma": 0.5}, r"postprocess\.sigma has no effect with nms: hard"),
        ({"nms": "linear", "sigma": 0.5}, r"postprocess\.sigma has no effect with nms: linear"),
        ({"nms": "hard", "tiou_threshold_per_sec": 0.1}, r"per_sec has no effect with nms: hard"),
        ({"nms": "bmn_gaussian", "tiou_threshold_per_sec": -1.0}, r"per_sec is -1\.0; it must not be neg"),
        ({"sigma": 0.0}, r"postprocess\.sigma is 0\.0"),
        ({"tiou_threshold": 0.5}, r"postprocess\.tiou_threshold has no effect with nms: gaussian"),
        ({"nms": "hard", "tiou_threshold": 1.5}, r"postprocess\.tiou_threshold is 1\.5"),
        ({"max_detections": 0}, r"postprocess\.max_detections is 0"),
        ({"video_scores_top_k": 2}, r"postprocess\.video_scores_top_k has no effect without"),
    ],
)
def test_config_names_the_key_without_effect_or_out_of_range(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PostprocessConfig(**changes)
