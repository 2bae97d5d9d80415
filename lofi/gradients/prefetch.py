"""A window's frames on the encoder's device, a chunk at a time, each copied while the chunk before it is encoded.

Frames wait on the host as uint8 and come to the device by chunks, in the forward pass from the first to the last and in
the backward pass, which recomputes, from the last to the first. So the device holds the frames of two chunks at most: of
the one that is encoded, and of the one that comes next.

On CUDA the copy runs on a stream of its own, from page-locked memory (loaders pin it). The memory that it writes to belongs
to the stream that computes: the copy waits for what that stream had still to do, which may be reading what lay there
before, and the computation waits for the copy. Nothing else shares that memory, so that no `record_stream` is needed,
whose late releases would make the peak a matter of chance.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lofi.batches import Views

BLUR_RADIUS = 6
"""Pixels to either side that a blurred one is made of: three deviations of MoCo-v2's strongest blur."""


@dataclass(frozen=True, kw_only=True)
class _Ahead:
    """A chunk on its way."""

    index: int
    frames: Tensor
    copied: torch.cuda.Event | None


class ChunkFrames:
    """The frames of B x L snippets, chunk by chunk."""

    def __init__(
        self,
        frames: Tensor,
        *,
        chunk_size: int,
        device: torch.device,
        views: Views | None = None,
        recomputed: Iterable[int] | None = None,
    ) -> None:
        """Nothing is copied yet.

        Args:
            frames: (B, L, C, T, H, W) uint8, on any device.
            chunk_size: N, snippets of a chunk; the last one may have fewer.
            device: where they are encoded.
            views: what each of the B windows shows of its frames; None: all.
            recomputed: chunks that the backward pass takes again, from the last on; None: all. A guess to copy ahead by:
                any chunk may be taken at any time.
        """
        self._chunks = frames.flatten(0, 1).split(chunk_size)
        self._views: list[Views | None] = [None] * len(self._chunks)
        if views is not None:
            self._views = list(views.to(device).per_snippet(frames.shape[1]).split(chunk_size))
        self._device = device
        self._recomputed = sorted(range(len(self._chunks)) if recomputed is None else recomputed)
        self._is_there = frames.device == device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" and not self._is_there else None
        self._last_taken = -1
        self._ahead: _Ahead | None = None

    def __len__(self) -> int:
        return len(self._chunks)

    def __del__(self) -> None:
        self._await_copy()

    def take(self, index: int) -> Tensor:
        """A chunk, (N, C, T, H, W) uint8 on the device, as its views show it; the copy of the next one begins."""
        if self._is_there:
            frames = self._chunks[index]
        else:
            if self._ahead is None or self._ahead.index != index:
                self._start(index)
            frames = self._arrived()
            following = self._following(index)
            self._last_taken = index
            if following is not None:
                self._start(following)
        views = self._views[index]
        return frames if views is None else show(frames, views)

    def _following(self, index: int) -> int | None:
        """The chunk that is likely taken next: the next one forward, or the one before that is recomputed."""
        if index > self._last_taken:
            return index + 1 if index + 1 < len(self) else None
        return max((each for each in self._recomputed if each < index), default=None)

    def _start(self, index: int) -> None:
        self._await_copy()
        chunk = self._chunks[index]
        if self._stream is None:
            self._ahead = _Ahead(index=index, frames=chunk.to(self._device), copied=None)
            return
        frames = torch.empty_like(chunk, device=self._device)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            frames.copy_(chunk, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._ahead = _Ahead(index=index, frames=frames, copied=copied)

    def _arrived(self) -> Tensor:
        assert self._ahead is not None
        frames = self._ahead.frames
        self._await_copy()
        return frames

    def _await_copy(self) -> None:
        """Let the stream that computes wait for the copy; also where nobody takes it, before its memory is given away."""
        ahead, self._ahead = getattr(self, "_ahead", None), None
        if ahead is not None and ahead.copied is not None:
            torch.cuda.current_stream(self._device).wait_event(ahead.copied)


def show(frames: Tensor, views: Views) -> Tensor:
    """Cut out, mirror, recolour and blur what each snippet shows.

    Args:
        frames: (N, C, T, H, W) uint8.
        views: of N snippets, on the same device.

    Returns:
        (N, C, T, h, w) uint8, h x w as the views say.
    """
    height, width = views.height, views.width
    down = torch.arange(height, device=frames.device)
    across = torch.arange(width, device=frames.device)
    rows_Nh = views.top[:, None] + down
    columns_Nw = views.left[:, None] + torch.where(views.is_mirrored[:, None], width - 1 - across, across)
    place = rows_Nh[:, :, None] * frames.shape[-1] + columns_Nw[:, None, :]
    place_NCThw = place.flatten(1)[:, None, None].expand(-1, *frames.shape[1:3], -1)
    shown = frames.flatten(3).gather(3, place_NCThw).unflatten(3, (height, width))
    if views.color_factors is not None:
        shown = recolour(shown, views.color_factors)
    if views.is_grey is not None:
        shown = remove_colour(shown, views.is_grey)
    return shown if views.blur_sigma is None else blur(shown, views.blur_sigma)


def recolour(frames: Tensor, factors: Tensor) -> Tensor:
    """Brightness, then contrast about the snippet's mean grey, then saturation about each pixel's grey.

    A snippet's result depends on itself alone, so that a chunk recomputed gives the same.

    Args:
        frames: (N, C=3, T, h, w) uint8 RGB.
        factors: (N, 3) float32, of brightness, contrast and saturation.

    Returns:
        (N, C, T, h, w) uint8, rounded.
    """
    brightness, contrast, saturation = (x.view(-1, 1, 1, 1, 1) for x in factors.unbind(1))
    colours = frames.float() * brightness
    grey = _grey(colours)
    mean = grey.mean(dim=(1, 2, 3, 4), keepdim=True)
    colours.sub_(mean).mul_(contrast).add_(mean)
    grey.sub_(mean).mul_(contrast).add_(mean)
    colours.sub_(grey).mul_(saturation).add_(grey)
    return colours.clamp_(0, 255).round_().to(torch.uint8)


def remove_colour(frames: Tensor, is_grey: Tensor) -> Tensor:
    """Snippets (N, C=3, T, h, w) uint8 RGB, those that `is_grey` (N,) bool names in greys."""
    grey = _grey(frames.float()).round_().to(torch.uint8)
    return torch.where(is_grey.view(-1, 1, 1, 1, 1), grey, frames)


def blur(frames: Tensor, sigma: Tensor) -> Tensor:
    """Each snippet blurred by a Gaussian of its own, one axis after the other; frames are mirrored at their edges.

    Sums of shifted frames in place of a convolution: a snippet's result then depends on itself alone to the bit, whatever it
    is computed with, and no value of sigma is waited for.

    Args:
        frames: (N, C, T, h, w) uint8, both sides longer than `BLUR_RADIUS`.
        sigma: (N,) float32, pixels; 0 changes nothing, MoCo-v2's largest is 2.

    Returns:
        (N, C, T, h, w) uint8, rounded.
    """
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=frames.device)
    # Of a sigma of 0 the centre alone has weight: its own is exp(0), the others' exp(-inf) or nearly.
    exponents = -0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]).square()
    weights = exponents.exp()
    weights_NK = weights / weights.sum(dim=1, keepdim=True)
    blurred = frames.float()
    for axis in (3, 4):
        blurred = _blur_axis(blurred, weights_NK, axis=axis)
    return blurred.round_().clamp_(0, 255).to(torch.uint8)


def _blur_axis(frames: Tensor, weights_NK: Tensor, *, axis: int) -> Tensor:
    length = frames.shape[axis]
    margins = (0, 0, BLUR_RADIUS, BLUR_RADIUS) if axis == 3 else (BLUR_RADIUS, BLUR_RADIUS, 0, 0)
    padded = F.pad(frames.flatten(1, 2), margins, mode="reflect").unflatten(1, frames.shape[1:3])
    blurred = torch.zeros_like(frames)
    for place, weight in enumerate(weights_NK.unbind(1)):
        blurred.addcmul_(padded.narrow(axis, place, length), weight.view(-1, 1, 1, 1, 1))
    return blurred


def _grey(frames: Tensor) -> Tensor:
    """(N, 3, T, h, w) -> (N, 1, T, h, w), luma as ITU-R BT.601 weighs it."""
    red, green, blue = frames.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
