"""Detections of a video's windows -> its final detections in seconds: window merging, soft-NMS, score fusion.

The order is that of the field's pipelines: map every window to seconds, clip to the video, put all windows together,
suppress overlaps, keep the best; then, where an external video-level classifier speaks, multiply by its scores. Proposals
(detections without a class) become a detection of each of the classifier's best classes.

The file of video-level scores has the form that ActivityNet's classification results (CUHK) are passed around in:
`{"class": [NAME, ...], "results": {VIDEO: [SCORE of each class, ...]}}`, scores not below 0. Names of videos may carry
the prefix "v_", which is ignored on both sides.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lofi.heads.soft_nms import NMS_METHODS, NmsMethod, soft_nms
from lofi.segments import UNLABELLED, Detection, Detections, Window, snippets_to_seconds

DEFAULT_SIGMA = 0.5
DEFAULT_TIOU_THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class PostprocessConfig:
    """The recipe's `postprocess:` block."""

    nms: NmsMethod = "gaussian"
    """How overlapping detections of one video are suppressed (`heads/soft_nms.py` says what each does)."""
    sigma: float | None = None
    """Only with nms: gaussian or bmn_gaussian. Scores are multiplied by exp(-tIoU^2 / sigma); null is 0.5."""
    tiou_threshold: float | None = None
    """Not with nms: gaussian. tIoU from which on a detection is suppressed; null is 0.5."""
    tiou_threshold_per_sec: float | None = None
    """Only with nms: bmn_gaussian. Raises tiou_threshold by this much per second of the better detection; null is 0."""
    min_score: float = 0.001
    """Detections whose score falls below this are dropped."""
    max_detections: int = 200
    """Detections kept per video."""
    class_wise: bool = True
    """Suppress within each class; false: across classes."""
    voting_tiou_threshold: float | None = None
    """tIoU from which on overlapping detections vote on the boundaries of a kept one; null: no voting."""
    video_scores: str | None = None
    """File with the scores of a video-level classifier (see the module); null: no fusion."""
    video_scores_top_k: int | None = None
    """Only with video_scores: how many of the video's best classes count; null: all."""

    def __post_init__(self) -> None:
        if self.nms not in NMS_METHODS:
            raise ValueError(f"postprocess.nms is {self.nms!r}; allowed: {', '.join(NMS_METHODS)}.")
        has_no_effect = {
            "sigma": self.nms in ("hard", "linear"),
            "tiou_threshold": self.nms == "gaussian",
            "tiou_threshold_per_sec": self.nms != "bmn_gaussian",
        }
        for name, is_useless in has_no_effect.items():
            if is_useless and getattr(self, name) is not None:
                raise ValueError(f"postprocess.{name} has no effect with nms: {self.nms}; remove it.")
        if self.sigma is not None and self.sigma <= 0.0:
            raise ValueError(f"postprocess.sigma is {self.sigma}; it must be greater than 0.")
        if self.tiou_threshold_per_sec is not None and self.tiou_threshold_per_sec < 0.0:
            raise ValueError(
                f"postprocess.tiou_threshold_per_sec is {self.tiou_threshold_per_sec}; it must not be negative."
            )
        for name in ("tiou_threshold", "voting_tiou_threshold"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value <= 1.0:
                raise ValueError(f"postprocess.{name} is {value}; it must be above 0 and at most 1.")
        if self.min_score < 0.0:
            raise ValueError(f"postprocess.min_score is {self.min_score}; it must not be negative.")
        if self.max_detections < 1:
            raise ValueError(f"postprocess.max_detections is {self.max_detections}; it must be at least 1.")
        if self.video_scores_top_k is not None and self.video_scores is None:
            raise ValueError(
                "postprocess.video_scores_top_k has no effect without postprocess.video_scores; remove it."
            )
        if self.video_scores_top_k is not None and self.video_scores_top_k < 1:
            raise ValueError(
                f"postprocess.video_scores_top_k is {self.video_scores_top_k}; it must be at least 1."
            )


@dataclass(frozen=True, kw_only=True)
class WindowDetections:
    """What the head found in one window: detections in snippet index of a window of `num_snippets`."""

    window: Window
    detections: Detections
    num_snippets: int


def merge_windows(
    windows: Sequence[WindowDetections],
    *,
    config: PostprocessConfig,
    class_scores: Tensor | None = None,
) -> Detections:
    """The windows of ONE video -> its detections in seconds, best first.

    Args:
        windows: at least one, all of the same video.
        config: the recipe's block.
        class_scores: (K,) of the video (`scores_of_video`), exactly where `config.video_scores` is set.

    Returns:
        Detections in seconds, clipped to [0, duration], on the device of the windows' detections. Those that lie outside
        the video or have no length are dropped; times or scores that are not finite raise ValueError with the video, and so
        do proposals without class_scores.
    """
    videos = sorted({each.window.video for each in windows})
    if len(videos) != 1:
        raise ValueError(f"merge_windows takes the windows of one video; got windows of {videos}.")
    if (class_scores is None) != (config.video_scores is None):
        raise ValueError(
            f"merge_windows got {'no ' if class_scores is None else ''}class_scores, but postprocess.video_scores is "
            f"{config.video_scores}; read the file with read_video_scores and pass each video's scores."
        )
    duration_sec = windows[0].window.video_duration_sec
    in_seconds = [
        snippets_to_seconds(each.detections.segments.double(), each.window, num_snippets=each.num_snippets)
        for each in windows
    ]
    segments = torch.cat(in_seconds).clamp(min=0.0, max=duration_sec)
    scores = torch.cat([each.detections.scores for each in windows])
    labels = torch.cat([each.detections.labels for each in windows])
    is_empty = segments[:, 1] <= segments[:, 0]  # false for NaN, which soft_nms refuses
    segments, scores, labels = segments[~is_empty], scores[~is_empty], labels[~is_empty]
    try:
        suppressed = soft_nms(
            segments,
            scores,
            labels if config.class_wise else None,
            method=config.nms,
            sigma=DEFAULT_SIGMA if config.sigma is None else config.sigma,
            tiou_threshold=DEFAULT_TIOU_THRESHOLD if config.tiou_threshold is None else config.tiou_threshold,
            tiou_threshold_per_length=config.tiou_threshold_per_sec or 0.0,
            min_score=config.min_score,
            max_detections=config.max_detections,
            voting_tiou_threshold=config.voting_tiou_threshold,
        )
    except ValueError as error:
        raise ValueError(f"video {videos[0]!r}: {error}") from error
    merged = Detections(
        segments=suppressed.detections.segments,
        scores=suppressed.detections.scores,
        labels=labels[suppressed.index],
    )
    if class_scores is None:
        if (merged.labels == UNLABELLED).any():
            raise ValueError(
                f"video {videos[0]!r}: the head finds proposals without a class (head.labels: external, or "
                "head.class_agnostic); set postprocess.video_scores, or let the head learn the classes."
            )
        return merged
    return fuse_video_scores(merged, class_scores, top_k=config.video_scores_top_k)


def fuse_video_scores(
    detections: Detections, class_scores: Tensor, *, top_k: int | None = None
) -> Detections:
    """Multiply the scores of one video's detections by a video-level classifier's, best first again.

    Args:
        detections: of the video, any unit. Those without a class become one of every class that counts.
        class_scores: (K,) of the video, not below 0.
        top_k: only the video's best so many classes count (detections of other classes are dropped). None: all.
    """
    num_best = len(class_scores) if top_k is None else min(top_k, len(class_scores))
    best = class_scores.topk(num_best).indices.to(detections.labels.device)
    is_proposal = detections.labels == UNLABELLED
    counts = torch.isin(detections.labels, best)
    segments, labels = detections.segments[counts], detections.labels[counts]
    scores = detections.scores[counts]
    if is_proposal.any():
        segments = torch.cat([segments, detections.segments[is_proposal].repeat_interleave(num_best, dim=0)])
        scores = torch.cat([scores, detections.scores[is_proposal].repeat_interleave(num_best)])
        labels = torch.cat([labels, best.repeat(int(is_proposal.sum()))])
    scores = scores * class_scores.to(scores)[labels]
    order = scores.sort(descending=True, stable=True).indices
    return Detections(segments=segments[order], scores=scores[order], labels=labels[order])


def read_video_scores(path: str | Path, *, classes: Sequence[str]) -> dict[str, Tensor]:
    """Read a file of video-level scores (form: see the module), in the order of `classes`: video -> (K,) float32.

    Keys carry no "v_" prefix. Raises ValueError for a file that is broken or lacks a class.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot read the video scores ({error.strerror}).") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}).") from error
    if not isinstance(content, dict) or not {"class", "results"} <= content.keys():
        raise ValueError(f'{path}: needs the keys "class" (list of names) and "results" (video -> scores).')
    column_of = {name: column for column, name in enumerate(content["class"])}
    missing = [name for name in classes if name not in column_of]
    if missing:
        raise ValueError(
            f'{path}: "class" lacks {len(missing)} of the data\'s classes, the first is {missing[0]!r}.'
        )
    columns = [column_of[name] for name in classes]
    scores = {}
    for video, row in content["results"].items():
        is_row = isinstance(row, list) and len(row) == len(content["class"])
        if not is_row or not all(isinstance(x, int | float) and math.isfinite(x) and x >= 0.0 for x in row):
            raise ValueError(
                f"{path}: results[{video!r}] must be {len(content['class'])} finite numbers not below 0, one per class."
            )
        scores[video.removeprefix("v_")] = torch.tensor(
            [row[column] for column in columns], dtype=torch.float32
        )
    return scores


def scores_of_video(video_scores: dict[str, Tensor], video: str) -> Tensor:
    """The (K,) scores of one video as `read_video_scores` gave them; raises ValueError where it has none."""
    try:
        return video_scores[video.removeprefix("v_")]
    except KeyError:
        raise ValueError(
            f"video {video!r} has no scores in postprocess.video_scores, which has {len(video_scores)} videos; "
            "give a file for this data set."
        ) from None


def to_predictions(detections: Detections, *, classes: Sequence[str]) -> list[Detection]:
    """Detections in seconds -> plain values with class names, in the same order."""
    rows = zip(
        detections.segments.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
    )
    return [
        Detection(start_sec=start, end_sec=end, label=classes[label], score=score)
        for (start, end), score, label in rows
    ]
