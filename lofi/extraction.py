"""Feature extraction: a frozen encoder over the consecutive windows of each video -> one (L, D) sequence per video."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import nn

from lofi.batches import WindowBatch
from lofi.gradients.detached import encode_detached


@dataclass(frozen=True, kw_only=True)
class ExtractionConfig:
    """The `extraction:` block of an extraction recipe."""

    chunk_size: int = 64
    """Snippets per call of the encoder."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the feature files."""

    def __post_init__(self) -> None:
        if self.chunk_size < 1:
            raise ValueError(f"extraction.chunk_size is {self.chunk_size}; it must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class ExtractedVideo:
    """The features of one video, or why there are none."""

    video: str
    features: np.ndarray | None
    """(L, D), snippets inside the video alone."""
    failure: str | None = None


def extract_videos(
    encoder: nn.Module, batches: Iterable[WindowBatch], *, config: ExtractionConfig
) -> Iterator[ExtractedVideo]:
    """Encode batches of consecutive windows, and give each video's sequence when its last window is done.

    Args:
        encoder: a `protocols.SnippetEncoder` in eval mode, on its device.
        batches: the windows of a video follow one another in time's order; videos may share a batch.
        config: chunk size and type of the result.
    """
    video: str | None = None
    parts: list[np.ndarray] = []
    failure: str | None = None
    for batch in batches:
        assert batch.frames is not None
        failures = dict(batch.failures)
        features_BLD = encode_detached(
            encoder, batch.frames, snippet_seeds=None, chunk_size=config.chunk_size, views=batch.views
        )
        features = features_BLD.float().cpu().numpy().astype(config.dtype)
        for window, mask, part in zip(batch.windows, batch.mask.numpy(), features, strict=True):
            if video is not None and window.video != video:
                yield _finished(video, parts, failure)
                parts, failure = [], None
            video = window.video
            failure = failure or failures.get(video)
            parts.append(part[mask])
    if video is not None:
        yield _finished(video, parts, failure)


def _finished(video: str, parts: list[np.ndarray], failure: str | None) -> ExtractedVideo:
    features = None if failure is not None else np.concatenate(parts)
    return ExtractedVideo(video=video, features=features, failure=failure)
