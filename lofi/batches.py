"""What travels from the data room to an objective: one step's windows."""

from dataclasses import dataclass, replace

from torch import Tensor

from lofi.segments import Targets, Window


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
