"""One video -> its detections, in memory that does not grow with its length but for features and candidates.

Frames are decoded and encoded a few snippets at a time (`VideoDetector.chunk`), in the same places as in evaluation and
extraction. What is kept:

trained from frames        one window's features; every window's candidates before suppression (2,000 of each pyramid level at
                           most with the default head, 20 bytes each)
a head on features         the video's features, (L, D) as an extraction would write them; the candidates
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lofi.batches import WindowBatch
from lofi.data.annotations import AnnotatedVideo
from lofi.data.feature_windows import interpolate_rows, rows_window, snippet_rows
from lofi.data.frame_windows import FrameWindows
from lofi.data.reading_process import ReadingProcess
from lofi.data.sampler import build_loader
from lofi.data.samples import SampleKey, window_mask
from lofi.data.video_info import VideoInfo
from lofi.data.windows import extraction_windows, prediction_windows
from lofi.extraction import num_inside
from lofi.heads.postprocess import WindowDetections
from lofi.inference import merge_videos
from lofi.progress import track
from lofi.protocols import features_per_snippet
from lofi.segments import Detection, Window, window_targets
from lofi.stages.build import full_fidelity
from lofi.stages.evaluate import prediction_autocast
from lofi.stages.predict_files import VideoFile
from lofi.stages.predict_run import VideoDetector


@dataclass(frozen=True, kw_only=True)
class VideoPrediction:
    """What was found in one video."""

    detections: list[Detection]
    """As the run's own evaluation would have them, best first."""
    num_snippets: int
    """Encoded."""
    num_windows: int
    feature_bytes: int
    """Features held at once, at most."""


def predict_video(
    detector: VideoDetector,
    file: VideoFile,
    *,
    info: VideoInfo,
    duration_sec: float,
    workers: int,
    process: ReadingProcess | None = None,
) -> VideoPrediction:
    """Decode, encode, detect, merge.

    Args:
        detector: from `predict_run.open_run`.
        file: the video.
        info: what is known of it.
        duration_sec: that its windows cover.
        workers: processes that decode; 0 decodes by this one.
        process: reads the video where there are no workers; None: a new one, where the recipe asks for one.

    Raises:
        DecodeError: the video, or a part of it, cannot be decoded.
        ValueError: what was found cannot be used, such as scores that are not finite.
    """
    recipe, making = detector.recipe, detector.making
    video = AnnotatedVideo(name=file.name, subset="", duration_sec=duration_sec, segments=())
    windows = prediction_windows([video], classes=detector.classes, grid=recipe.grid)
    if making is None:
        encoded = windows
    else:
        encoded = extraction_windows(
            [video], classes=detector.classes, grid=making.grid, num_snippets=making.manifest.rows_per_window
        )
    counts = [_num_inside(detector, window) for window in encoded]
    num_snippets = sum(snippets for snippets, _ in counts)
    with track(f"{file.name}: snippets encoded", total=num_snippets) as advance:
        features = _encode(
            detector, file, encoded, info=info, workers=workers, process=process, advance=advance
        )
        if making is None:
            found, feature_bytes = _detect_encoded(detector, windows, features)
        else:
            rows = _whole_sequence(detector, features, num_rows=sum(rows for _, rows in counts))
            feature_bytes = rows.nbytes
            found = _detect_rows(detector, windows, rows)
    assert recipe.postprocess is not None
    merged = merge_videos(found, config=recipe.postprocess, classes=detector.classes)
    return VideoPrediction(
        detections=merged[file.name],
        num_snippets=num_snippets,
        num_windows=len(windows),
        feature_bytes=feature_bytes,
    )


def window_pieces(
    window: Window, *, num_snippets: int, num_encoded: int, size: int
) -> list[tuple[Window, int]]:
    """A window's first `num_encoded` snippets of L, `size` at a time: windows of their own, with their numbers of snippets."""
    cell_sec = window.length_sec / num_snippets
    pieces = []
    for first in range(0, num_encoded, size):
        last = min(first + size, num_encoded)
        start_sec = window.start_sec + first * cell_sec
        end_sec = window.end_sec if last == num_snippets else window.start_sec + last * cell_sec
        pieces.append((replace(window, start_sec=start_sec, end_sec=end_sec), last - first))
    return pieces


def _num_inside(detector: VideoDetector, window: Window) -> tuple[int, int]:
    """Snippets that are encoded, and features of them inside the video."""
    per_snippet = features_per_snippet(detector.encoder, frames=detector.fidelity.frames)
    return num_inside(window, num_snippets=detector.fidelity.num_snippets, per_snippet=per_snippet)


def _encode(
    detector: VideoDetector,
    file: VideoFile,
    windows: Sequence[Window],
    *,
    info: VideoInfo,
    workers: int,
    process: ReadingProcess | None,
    advance: Callable[[int], Any],
) -> Iterator[Tensor]:
    """The features of each window inside the video, (n, D) on the device, window after window."""
    pieces, num_features = [], []
    for window in windows:
        num_encoded, inside = _num_inside(detector, window)
        num_features.append(inside)
        pieces.append(
            window_pieces(
                window,
                num_snippets=detector.fidelity.num_snippets,
                num_encoded=num_encoded,
                size=detector.chunk,
            )
        )
    flat = [piece for of_window in pieces for piece in of_window]
    dataset = FrameWindows(
        [window for window, _ in flat],
        {file.name: file.path},
        grid=detector.frame_grid,
        seed=0,
        resize=detector.resize,
        decoder=detector.recipe.data.decoder,
        decode_timeout_sec=detector.recipe.data.decode_timeout_sec,
        process=process,
        infos={file.name: info},
    )
    keys = [
        [SampleKey(index=index, fidelity=replace(detector.fidelity, num_snippets=count))]
        for index, (_, count) in enumerate(flat)
    ]
    batches = build_loader(dataset, keys, workers=workers if len(keys) > 1 else 0)
    for of_window, inside in zip(pieces, num_features, strict=True):
        encoded = []
        for _, count in of_window:
            batch = next(batches)
            assert batch.frames is not None
            with torch.inference_mode(), _precision(detector):
                encoded.append(detector.encoder(batch.frames[0].to(detector.device, non_blocking=True)))
            advance(count)
        features = torch.cat(encoded)
        yield features.reshape(-1, features.shape[-1])[:inside]


def _precision(detector: VideoDetector) -> Any:
    """Extraction encodes in fp32, prediction from frames as the recipe says."""
    if detector.making is not None:
        return torch.autocast(detector.device.type, enabled=False)
    return prediction_autocast(detector.recipe, detector.device)


def _detect_encoded(
    detector: VideoDetector, windows: Sequence[Window], features: Iterator[Tensor]
) -> tuple[list[WindowDetections], int]:
    """Each window detected as soon as it is encoded."""
    found, feature_bytes = [], 0
    per_snippet = features_per_snippet(detector.encoder, frames=detector.fidelity.frames)
    num_positions = detector.fidelity.num_snippets * per_snippet
    for window, inside_ND in zip(windows, features, strict=True):
        padded_LD = inside_ND.new_zeros(num_positions, inside_ND.shape[1])
        padded_LD[: len(inside_ND)] = inside_ND
        feature_bytes = max(feature_bytes, padded_LD.numel() * padded_LD.element_size())
        found.append(_detect(detector, window, padded_LD))
    return found, feature_bytes


def _whole_sequence(detector: VideoDetector, features: Iterator[Tensor], *, num_rows: int) -> np.ndarray:
    """(L, D) of the video, as extraction and its adapters would have written it."""
    assert detector.making is not None
    manifest = detector.making.manifest
    rows = np.empty((num_rows, manifest.feature_width), dtype=manifest.dtype or "float32")
    first = 0
    for part in features:
        rows[first : first + len(part)] = part.float().cpu().numpy()
        first += len(part)
    for adapter in detector.making.adapters:
        with torch.inference_mode():
            whole = torch.from_numpy(rows.astype(np.float32)).to(detector.device)[None]
            mask = torch.ones(whole.shape[:2], dtype=torch.bool, device=detector.device)
            rows = adapter(whole, mask=mask)[0].float().cpu().numpy().astype(rows.dtype)
    return rows


def _detect_rows(
    detector: VideoDetector, windows: Sequence[Window], rows: np.ndarray
) -> list[WindowDetections]:
    """Windows of features, cut out as from a feature directory."""
    assert detector.making is not None
    num_snippets = full_fidelity(detector.recipe).num_snippets
    found = []
    for window in windows:
        if detector.recipe.grid.prediction == "videos":
            window = rows_window(window, detector.making.manifest, num_rows=len(rows))
            num_snippets = len(rows)
        positions = snippet_rows(
            window, detector.making.manifest, num_rows=len(rows), num_snippets=num_snippets
        )
        first, last = int(np.floor(positions[0])), int(np.ceil(positions[-1]))
        part = rows[first : last + 1].astype(np.float32)
        features_LD = torch.from_numpy(interpolate_rows(part, positions - first))
        found.append(_detect(detector, window, features_LD))
    return found


def _detect(detector: VideoDetector, window: Window, features_LD: Tensor) -> WindowDetections:
    num_snippets = len(features_LD)
    batch = WindowBatch(
        windows=(window,),
        targets=(window_targets(window, num_snippets=num_snippets),),
        mask=window_mask(window, num_snippets=num_snippets)[None],
        features=features_LD[None],
    )
    with torch.inference_mode(), prediction_autocast(detector.recipe, detector.device):
        detections = detector.detector.detect(batch)[0]
    return WindowDetections(window=window, detections=detections.to_cpu(), num_snippets=num_snippets)
