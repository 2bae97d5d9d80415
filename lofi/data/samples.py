"""A sample: one window with its targets and its frames or features; what it is asked for by, and how a batch is made of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lofi.batches import Views, WindowBatch
from lofi.data.grid import snippet_centres_sec, snippet_mask
from lofi.fidelity import Fidelity
from lofi.segments import Targets, Window


@dataclass(frozen=True, kw_only=True)
class SampleKey:
    """Which sample, and in what form."""

    index: int
    """Position in the dataset's windows."""
    fidelity: Fidelity
    epoch: int = 0
    training: bool = False
    """True flips, crops and jitters, where the dataset does that."""


@dataclass(frozen=True, kw_only=True)
class WindowSample:
    """One window of a batch; the fields are those of `WindowBatch` without B."""

    window: Window
    targets: Targets
    mask: Tensor
    """(L,) bool."""
    frames: Tensor | None = None
    """(L, C, T, H, W) uint8."""
    view: Views | None = None
    """What it shows of its frames: of one window (B = 1); None: all."""
    features: Tensor | None = None
    """(L, D) float32."""
    failure: tuple[str, str] | None = None
    """(video, reason) where the video could not be decoded."""


def collate(samples: Sequence[WindowSample]) -> WindowBatch:
    """Samples of one fidelity -> a batch. Either all of them have a view or none. Whole videos, of different lengths, are
    padded to the longest of them."""
    longest = max(len(sample.mask) for sample in samples)
    samples = [_padded(sample, num_snippets=longest) for sample in samples]
    frames = [sample.frames for sample in samples if sample.frames is not None]
    features = [sample.features for sample in samples if sample.features is not None]
    views = [sample.view for sample in samples if sample.view is not None]
    return WindowBatch(
        windows=tuple(sample.window for sample in samples),
        targets=tuple(sample.targets for sample in samples),
        mask=torch.stack([sample.mask for sample in samples]),
        frames=torch.stack(frames) if frames else None,
        views=Views.joined(views) if views else None,
        features=torch.stack(features) if features else None,
        failures=tuple(sample.failure for sample in samples if sample.failure is not None),
    )


def _padded(sample: WindowSample, *, num_snippets: int) -> WindowSample:
    """The same features in a window of so many snippets, the new ones masked."""
    more = num_snippets - len(sample.mask)
    if more == 0:
        return sample
    assert sample.features is not None
    step_sec = sample.window.length_sec / len(sample.mask)
    return replace(
        sample,
        window=replace(sample.window, end_sec=sample.window.end_sec + more * step_sec),
        mask=F.pad(sample.mask, (0, more)),
        features=F.pad(sample.features, (0, 0, 0, more)),
    )


def window_mask(window: Window, *, num_snippets: int) -> Tensor:
    """(L,) bool, True where the snippet's centre lies inside the video, and before the window's `valid_end_sec`."""
    centres = snippet_centres_sec(window.start_sec, window.end_sec, num_snippets=num_snippets)
    end_sec = window.video_duration_sec
    if window.valid_end_sec is not None:
        end_sec = min(end_sec, window.valid_end_sec)
    return torch.from_numpy(snippet_mask(centres, duration_sec=end_sec))


def failed_sample(
    window: Window,
    reason: str,
    *,
    frames: Tensor | None = None,
    view: Views | None = None,
    features: Tensor | None = None,
) -> WindowSample:
    """All masked and without targets. Args: frames (L, C, T, H, W) with a view where the others have one, or features
    (L, D): something to fill the batch."""
    content = frames if frames is not None else features
    assert content is not None
    return WindowSample(
        window=window,
        targets=Targets(segments=torch.zeros(0, 2), labels=torch.zeros(0, dtype=torch.int64)),
        mask=torch.zeros(len(content), dtype=torch.bool),
        frames=frames,
        view=view,
        features=features,
        failure=(window.video, reason),
    )
