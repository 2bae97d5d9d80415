"""Prediction: windows -> detections in seconds, merged per video."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from lofi.batches import WindowBatch
from lofi.heads.postprocess import (
    PostprocessConfig,
    WindowDetections,
    merge_windows,
    read_video_scores,
    scores_of_video,
    to_predictions,
)
from lofi.progress import track
from lofi.segments import Detection, Detections


def detect_windows(
    detect: Callable[[WindowBatch], list[Detections]],
    batches: Iterable[WindowBatch],
    *,
    num_windows: int,
    title: str,
) -> tuple[list[WindowDetections], dict[str, str]]:
    """Run the detector over batches of windows.

    Args:
        detect: such as `Detector.detect`.
        batches: in any order.
        num_windows: for the progress bar.
        title: of the progress bar.

    Returns:
        Detections of every window in snippet index, and video -> reason of those that could not be decoded.
    """
    found: list[WindowDetections] = []
    failures: dict[str, str] = {}
    with track(title, total=num_windows) as advance:
        for batch in batches:
            for window, detections in zip(batch.windows, detect(batch), strict=True):
                found.append(
                    WindowDetections(
                        window=window, detections=detections.to_cpu(), num_snippets=batch.mask.shape[1]
                    )
                )
            failures.update(batch.failures)
            advance(batch.num_windows)
    return found, failures


def merge_videos(
    found: Iterable[WindowDetections], *, config: PostprocessConfig, classes: Sequence[str]
) -> dict[str, list[Detection]]:
    """Windows of many videos -> the detections of each video in seconds, best first.

    Where the config names video-level scores, they are fused after suppression. ValueError for a video without scores.
    """
    by_video: dict[str, list[WindowDetections]] = defaultdict(list)
    for each in found:
        by_video[each.window.video].append(each)
    video_scores = None
    if config.video_scores is not None:
        video_scores = read_video_scores(config.video_scores, classes=classes)
    predictions = {}
    for video, windows in sorted(by_video.items()):
        class_scores = None if video_scores is None else scores_of_video(video_scores, video)
        merged = merge_windows(windows, config=config, class_scores=class_scores)
        predictions[video] = to_predictions(merged, classes=classes)
    return predictions
