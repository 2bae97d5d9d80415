"""What travels from the data room to an objective: one step's windows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from lofi.segments import Targets, Window


@dataclass(frozen=True, kw_only=True)
class Views:
    """What each window (or snippet) shows of its frames: a rectangle, mirrored or not, in its own or other colours or none,
    blurred or not.

    The same for all frames of a window. Made on the device, chunk by chunk, from frames that are uint8 still.
    """

    height: int
    """h, pixels, at most the frames' H."""
    width: int
    """w, pixels, at most the frames' W."""
    top: Tensor
    """(B,) int64, first row, 0 to H - h."""
    left: Tensor
    """(B,) int64, first column, 0 to W - w."""
    is_mirrored: Tensor
    """(B,) bool, left to right."""
    color_factors: Tensor | None = None
    """(B, 3) float32, of brightness, contrast and saturation, 1 changes nothing; None: all as they are."""
    is_grey: Tensor | None = None
    """(B,) bool, shown without colours; None: none is."""
    blur_sigma: Tensor | None = None
    """(B,) float32, deviation of the Gaussian that blurs, in pixels, 0 for none; None: nothing is blurred."""

    @classmethod
    def joined(cls, views: "Sequence[Views]") -> "Views":
        """Views of the same size and of the same changes, one after another."""
        first = views[0]
        assert len({(view.height, view.width, *view._drawn()) for view in views}) == 1
        drawn: dict[str, Any] = {
            name: torch.cat([view._drawn()[name] for view in views]) for name in first._drawn()
        }
        return replace(first, **drawn)

    def per_snippet(self, num_snippets: int) -> "Views":
        """Of B windows -> of B x L snippets."""
        return self.mapped(lambda drawn: drawn.repeat_interleave(num_snippets, dim=0))

    def split(self, size: int) -> "list[Views]":
        """In stretches of `size`; the last one may be shorter."""
        return [self._stretch(first, size) for first in range(0, len(self.top), size)]

    def to(self, device: torch.device) -> "Views":
        """The same on a device."""
        return self.mapped(lambda drawn: drawn.to(device))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Views":
        """Views whose drawn values, (B, ...) each, are what `change` makes of these."""
        drawn: dict[str, Any] = {name: change(value) for name, value in self._drawn().items()}
        return replace(self, **drawn)

    def _stretch(self, first: int, size: int) -> "Views":
        return self.mapped(lambda drawn: drawn[first : first + size])

    def _drawn(self) -> dict[str, Tensor]:
        """Name -> what is drawn for each window."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


@dataclass(frozen=True, kw_only=True)
class WindowBatch:
    """B windows at one fidelity; either frames (the encoder runs) or features (read from disk), never both.

    The tensors stay on the CPU: a gradient path moves what it needs when it needs it.
    """

    windows: tuple[Window, ...]
    """B windows, in batch order."""
    targets: tuple[Targets, ...]
    """B targets, in snippet index of this batch's L."""
    mask: Tensor
    """(B, L) bool, True where the snippet lies inside its video."""
    frames: Tensor | None = None
    """(B, L, C, T, H, W) uint8 RGB."""
    views: Views | None = None
    """What of the frames the encoder sees; None: all."""
    features: Tensor | None = None
    """(B, L, D) float32."""
    failures: tuple[tuple[str, str], ...] = ()
    """(video, reason) of windows that could not be decoded; their mask is all False, so that they carry no loss."""

    @property
    def num_windows(self) -> int:
        return len(self.windows)

    @property
    def num_snippets(self) -> int:
        """B x L, padding included: what the encoder computes."""
        return self.mask.numel()

    def pin_memory(self) -> "WindowBatch":
        """The same batch in page-locked memory, from where copies to a CUDA device are quick; loaders call it."""
        return replace(
            self,
            mask=self.mask.pin_memory(),
            frames=None if self.frames is None else self.frames.pin_memory(),
            features=None if self.features is None else self.features.pin_memory(),
        )
