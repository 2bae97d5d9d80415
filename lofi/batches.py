"""What travels from the data room to an objective: one step's windows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lofi.segments import Targets, Window


@dataclass(frozen=True, kw_only=True)
class Views:
    """What each window (or snippet) shows of its frames: a rectangle, mirrored or not, in its own or in other colours.

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

    @classmethod
    def joined(cls, views: "Sequence[Views]") -> "Views":
        """Views of the same size, one after another."""
        assert len({(view.height, view.width, view.color_factors is None) for view in views}) == 1
        factors = [view.color_factors for view in views if view.color_factors is not None]
        return cls(
            height=views[0].height,
            width=views[0].width,
            top=torch.cat([view.top for view in views]),
            left=torch.cat([view.left for view in views]),
            is_mirrored=torch.cat([view.is_mirrored for view in views]),
            color_factors=torch.cat(factors) if factors else None,
        )

    def per_snippet(self, num_snippets: int) -> "Views":
        """Of B windows -> of B x L snippets."""
        return self._with([x.repeat_interleave(num_snippets, dim=0) for x in self._tensors()])

    def split(self, size: int) -> "list[Views]":
        """In stretches of `size`; the last one may be shorter."""
        stretches = zip(*(x.split(size) for x in self._tensors()), strict=True)
        return [self._with(stretch) for stretch in stretches]

    def to(self, device: torch.device) -> "Views":
        """The same on a device."""
        return self._with([x.to(device) for x in self._tensors()])

    def _tensors(self) -> list[Tensor]:
        always = [self.top, self.left, self.is_mirrored]
        return always if self.color_factors is None else [*always, self.color_factors]

    def _with(self, tensors: Sequence[Tensor]) -> "Views":
        top, left, is_mirrored, *factors = tensors
        return replace(
            self,
            top=top,
            left=left,
            is_mirrored=is_mirrored,
            color_factors=factors[0] if factors else None,
        )


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
