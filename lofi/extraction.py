"""Feature extraction: a frozen encoder over the consecutive windows of each video -> one (L, D) sequence per video.

Snippets are encoded `chunk_size` at a time, whatever window and video they are of: only the last chunk of all is smaller, and
snippets outside their video are not encoded (of an encoder with R features per snippet, those of which no part lies inside,
and the features that lie outside are dropped). So neither short videos nor windows that no chunk divides leave a device idle.
On CUDA a chunk's features are copied to the host while the next chunk is encoded.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from lofi.batches import WindowBatch
from lofi.data.grid import GridConfig
from lofi.data.samples import window_mask
from lofi.protocols import features_per_snippet
from lofi.segments import Window


@dataclass(frozen=True, kw_only=True)
class ExtractionConfig:
    """The `extraction:` block of an extraction recipe."""

    chunk_size: int = 64
    """Snippets per call of the encoder, of any videos."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the feature files."""
    stride_sec: float | None = None
    """Seconds from one snippet to the next: dense features of videos of any length. Snippets may overlap. Null: as the grid
    says, by default fidelity.num_snippets per video."""
    stride_frames: int | None = None
    """The same in frames, at grid.frame_rate: 8, with fidelity.frames 16 and grid.frame_rate 30, is a snippet of 16 frames
    every 8."""

    def __post_init__(self) -> None:
        if self.chunk_size < 1:
            raise ValueError(f"extraction.chunk_size is {self.chunk_size}; it must be at least 1.")
        if self.stride_sec is not None and self.stride_frames is not None:
            raise ValueError(
                f"extraction.stride_sec ({self.stride_sec}) and extraction.stride_frames ({self.stride_frames}) are both "
                "given; remove one of them."
            )
        if self.stride_sec is not None and not 0 < self.stride_sec < float("inf"):
            raise ValueError(
                f"extraction.stride_sec is {self.stride_sec}; it must be a positive number of seconds."
            )
        if self.stride_frames is not None and self.stride_frames < 1:
            raise ValueError(f"extraction.stride_frames is {self.stride_frames}; it must be at least 1.")


def extraction_grid(grid: GridConfig, *, num_snippets: int, config: ExtractionConfig) -> GridConfig:
    """The grid of an extraction: the recipe's own, or windows of `num_snippets` snippets at the stride that is asked for.

    Raises:
        ValueError: a stride beside a grid that slides already, or in frames of no known rate.
    """
    if config.stride_sec is None and config.stride_frames is None:
        return grid
    key = "stride_sec" if config.stride_frames is None else "stride_frames"
    if grid.mode == "sliding":
        raise ValueError(
            f"extraction.{key} is {getattr(config, key)}, but grid.mode: sliding has a stride of its own, grid.window_sec / "
            "fidelity.num_snippets; remove grid.mode and grid.window_sec."
        )
    stride_sec = config.stride_sec
    if stride_sec is None:
        if grid.spread_frames:
            raise ValueError(
                f"extraction.stride_frames is {config.stride_frames}, but with grid.spread_frames: true there is no rate at which "
                "frames are taken; set extraction.stride_sec (seconds)."
            )
        if grid.frame_rate is None:
            raise ValueError(
                f"extraction.stride_frames is {config.stride_frames}, but grid.frame_rate is null, so that the stride would "
                "be another one in each video; set grid.frame_rate (frames per second), or extraction.stride_sec."
            )
        assert config.stride_frames is not None
        stride_sec = config.stride_frames / grid.frame_rate
    return replace(grid, mode="sliding", window_sec=stride_sec * num_snippets)


@dataclass(frozen=True, kw_only=True)
class ExtractedVideo:
    """The features of one video, or why there are none."""

    video: str
    features: np.ndarray | None
    """(L, D), snippets inside the video alone; R rows to a snippet where the encoder gives R features."""
    failure: str | None = None


def extract_videos(
    encoder: nn.Module, batches: Iterable[WindowBatch], *, config: ExtractionConfig
) -> Iterator[ExtractedVideo]:
    """Encode batches of consecutive windows, and give each video's sequence, in order, when its last snippet is done.

    Args:
        encoder: a `protocols.SnippetEncoder` in eval mode, on its device.
        batches: the windows of a video follow one another in time's order; videos may share a batch.
        config: chunk size and type of the result.
    """
    device = next(iter(encoder.parameters())).device
    videos: deque[_Video] = deque()
    before: tuple[_Chunk, _OnItsWay] | None = None
    for chunk in _chunks(encoder, batches, videos, size=config.chunk_size):
        with torch.inference_mode():
            features_ND = _OnItsWay(encoder(chunk.frames(device)).float())
        if before is not None:
            before[0].hand_out(before[1].arrived().astype(config.dtype))
            yield from _finished(videos)
        before = (chunk, features_ND)
    if before is not None:
        before[0].hand_out(before[1].arrived().astype(config.dtype))
    for video in videos:
        video.is_complete = True
    yield from _finished(videos)


@dataclass(kw_only=True)
class _Video:
    """A video between its first window and its features."""

    name: str
    num_snippets: int = 0
    """Known so far."""
    is_complete: bool = False
    """No window will follow."""
    num_features: int = 0
    """Of those, inside the video."""
    parts: list[np.ndarray] = field(default_factory=list)
    num_encoded: int = 0
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Up to chunk_size snippets: stretches of windows and whose they are."""

    stretches: list[tuple[_Video, Tensor]]
    """(n, C, T, H, W) uint8 each."""

    def frames(self, device: torch.device) -> Tensor:
        """(N, C, T, H, W) on the device; from page-locked memory (loaders pin it) without waiting."""
        moved = [frames.to(device, non_blocking=True) for _, frames in self.stretches]
        return moved[0] if len(moved) == 1 else torch.cat(moved)

    def hand_out(self, rows: np.ndarray) -> None:
        """rows: (N, D) or (N, R, D), each to its video."""
        first = 0
        for video, frames in self.stretches:
            video.parts.append(rows[first : first + len(frames)])
            video.num_encoded += len(frames)
            first += len(frames)


class _OnItsWay:
    """Features on their way to the host. The copy must be asked for before the next chunk is: work is done in the order in
    which it was asked for, and so a copy asked for later would wait for that chunk."""

    def __init__(self, features: Tensor) -> None:
        self._host = features.to("cpu", non_blocking=True)
        self._copied: torch.cuda.Event | None = None
        if features.is_cuda:
            self._copied = torch.cuda.current_stream(features.device).record_event()

    def arrived(self) -> np.ndarray:
        """Wait for them."""
        if self._copied is not None:
            self._copied.synchronize()
        array: np.ndarray = self._host.numpy()
        return array


def num_inside(window: Window, *, num_snippets: int, per_snippet: int = 1) -> tuple[int, int]:
    """Snippets of a window of L that are encoded, and features of them inside the video. They come first: a window never
    begins before its video."""
    features = int(window_mask(window, num_snippets=num_snippets * per_snippet).sum())
    return math.ceil(features / per_snippet), features


def _chunks(
    encoder: nn.Module, batches: Iterable[WindowBatch], videos: deque[_Video], *, size: int
) -> Iterator[_Chunk]:
    """Chunks of `size` snippets, the last one of what is left; videos are added to `videos` as their windows come."""
    waiting: list[tuple[_Video, Tensor]] = []
    num_waiting = 0
    for batch in batches:
        assert batch.frames is not None
        assert batch.views is None, "features are of whole frames"
        failures = dict(batch.failures)
        per_snippet = features_per_snippet(encoder, frames=batch.frames.shape[3])
        for window, mask, frames in zip(batch.windows, batch.mask, batch.frames, strict=True):
            if not videos or videos[-1].name != window.video:
                if videos:
                    videos[-1].is_complete = True
                videos.append(_Video(name=window.video))
            video = videos[-1]
            video.failure = video.failure or failures.get(window.video)
            if video.failure is not None:
                continue
            if per_snippet == 1:
                inside = frames if bool(mask.all()) else frames[mask]
                num_features = len(inside)
            else:
                num_encoded, num_features = num_inside(
                    window, num_snippets=len(frames), per_snippet=per_snippet
                )
                inside = frames[:num_encoded]
            video.num_snippets += len(inside)
            video.num_features += num_features
            while num_waiting + len(inside) >= size:
                cut = size - num_waiting
                yield _Chunk(stretches=[*waiting, (video, inside[:cut])])
                inside, waiting, num_waiting = inside[cut:], [], 0
            if len(inside):
                waiting.append((video, inside))
                num_waiting += len(inside)
    if waiting:
        yield _Chunk(stretches=waiting)


def _finished(videos: deque[_Video]) -> Iterator[ExtractedVideo]:
    """Take the videos whose features are there from the front."""
    while videos and videos[0].is_complete:
        video = videos[0]
        if video.failure is None and video.num_encoded < video.num_snippets:
            return
        videos.popleft()
        features = None if video.failure is not None else _in_a_row(video)
        yield ExtractedVideo(video=video.name, features=features, failure=video.failure)


def _in_a_row(video: _Video) -> np.ndarray:
    """(L, D) of its parts, (N, D) or (N, R, D): only the last snippet can have features outside."""
    features = np.concatenate(video.parts)
    rows: np.ndarray = features.reshape(-1, features.shape[-1])[: video.num_features]
    return rows
