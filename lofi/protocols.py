"""The seams: what a snippet encoder, an adapter, a head, a gradient path and an objective promise to one another."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from lofi.batches import Views, WindowBatch
from lofi.fidelity import Fidelity
from lofi.segments import Detections, Targets

RunBlock = Callable[..., Any]
"""How an encoder runs one of its blocks: plainly (`call_block`), or under a checkpoint. Called with the block and what it
takes: tensors first, then whatever else it needs to give the same result when it is run again (sizes, seeds)."""


def call_block(block: nn.Module, *arguments: Any) -> Any:
    """Run a block plainly: the default `RunBlock`."""
    return block(*arguments)


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """The losses of one step: `total` is what is minimised, `parts` what is logged (scalars, detached)."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class SnippetEncoder(Protocol):
    """A short run of frames -> ONE vector, or R of them, one after the other in time. An nn.Module.

    R is 1 unless the encoder has `frames_per_feature` (see `features_per_snippet`).

    A snippet's feature must not depend on the other snippets of the call (norm layers frozen or per sample): this is
    what makes the chunked gradient exact. Frames come as uint8; casting and normalising are the encoder's first step, so
    that float frames exist for one call alone.
    """

    feature_width: int
    """D."""
    has_temporal_convolution: bool
    """True where some convolution's kernel is longer than one frame (see `engine.precision`)."""

    @property
    def stages(self) -> list[nn.Module]:
        """What `frozen_stages` counts, from the input on; the first is the stem."""
        ...

    @property
    def all_blocks(self) -> list[nn.Module]:
        """What `run_block` runs, in order. A layer's depth is its place here."""
        ...

    def __call__(
        self, frames: Tensor, *, snippet_seeds: Tensor | None = None, run_block: RunBlock = call_block
    ) -> Tensor:
        """Encode snippets.

        Args:
            frames: (N, C, T, H, W) uint8 RGB.
            snippet_seeds: (N,) int64, one random seed per snippet for dropout in training, so that a snippet's mask
                does not depend on which snippets it is encoded with; None switches dropout off.
            run_block: how to run each block.

        Returns:
            (N, D) float, or (N, R, D): feature r is of the r-th of the R equal parts of the snippet's frames.
        """
        ...

    def check_fidelity(self, fidelity: Fidelity) -> None:
        """Raise ValueError, naming the nearest usable values, where this encoder cannot take the fidelity."""
        ...

    def parameters(self) -> Iterable[nn.Parameter]: ...


def features_per_snippet(encoder: Any, *, frames: int) -> int:
    """R: how many features an encoder gives for a snippet of T frames.

    1, unless it has `frames_per_feature`, a number of frames: then T divided by that. The head of a detector then sees
    L x R positions in place of L snippets.
    """
    each: int | None = getattr(encoder, "frames_per_feature", None)
    return 1 if each is None else frames // each


class FeatureAdapter(Protocol):
    """A temporal feature sequence -> one of the same shape. An nn.Module between features and head."""

    def __call__(self, features: Tensor, *, mask: Tensor) -> Tensor:
        """features (B, L, D) float; mask (B, L) bool, False where a snippet lies outside its video -> (B, L, D)."""
        ...


class TalHead(Protocol):
    """A temporal feature sequence -> losses (train) or detections (predict). An nn.Module that takes any L."""

    def losses(self, features: Tensor, *, mask: Tensor, targets: Sequence[Targets]) -> StepLosses:
        """Args: features (B, D, L) float; mask (B, L) bool; targets, B of them, in snippet index."""
        ...

    def detect(self, features: Tensor, *, mask: Tensor) -> list[Detections]:
        """The same inputs -> B detections in snippet index, before any suppression."""
        ...


class GradientPath(Protocol):
    """How the loss reaches the encoder: a function from a window's frames to its features."""

    def __call__(
        self, encoder: nn.Module, frames: Tensor, *, snippet_seeds: Tensor | None, views: Views | None = None
    ) -> Tensor:
        """frames (B, L, C, T, H, W) uint8, on any device; snippet_seeds (B, L) int64; views of B windows, what they show
        of their frames -> (B, L, D) on the encoder's device; (B, L, R, D) of an encoder with R features per snippet."""
        ...


class Objective(Protocol):
    """What is minimised. An nn.Module that owns the trained modules; the engine wraps it and calls it each step."""

    def __call__(self, batch: WindowBatch) -> StepLosses: ...
