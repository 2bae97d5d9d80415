"""What the rest of the program must know of an objective: its options, the blocks it takes, its windows, its module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils.data import Dataset

from lofi.data.annotations import AnnotatedVideo, Annotations
from lofi.data.feature_store import FeatureDirectory
from lofi.data.frame_windows import FrameWindows
from lofi.data.samples import WindowSample
from lofi.engine.validation import Judge
from lofi.protocols import GradientPath
from lofi.segments import Window

if TYPE_CHECKING:
    from lofi.config.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Modules:
    """What the other blocks of a recipe became, for an objective to put together."""

    encoder: nn.Module | None
    """None where features come from disk."""
    adapter: nn.Module | None
    """Between features and head; None where the recipe has none."""
    scale: nn.Module | None
    """What brings features from disk to a common scale; None where the recipe has none."""
    encode: GradientPath
    feature_width: int
    """D."""
    num_classes: int
    """K."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveKind:
    """One objective."""

    config: type
    """Its options: the `objective:` block."""
    windows: "Callable[[Recipe, Sequence[AnnotatedVideo], Sequence[str]], list[Window]]"
    """(recipe, videos, classes) -> its training windows."""
    left_out: "Callable[[Recipe, Sequence[AnnotatedVideo]], str] | None" = None
    """(recipe, videos) -> which of them or of their segments no window is made of, in words; "" for none."""
    build: "Callable[[Recipe, Modules], nn.Module]"
    """The module that the engine trains."""
    takes: tuple[str, ...]
    """Of head, postprocess, evaluation and adapter, those that have an effect."""
    needs: tuple[str, ...] = ()
    """Of them, those that must be there."""
    source: Literal["frames", "features", "either"] = "either"
    """What it can be trained on."""
    data_options: tuple[str, ...] = ()
    """Options of `data` that have an effect only with some objectives, this one among them."""
    takes_clips: bool = False
    """Windows are single clips, whose place is jittered in training; else stretches of untrimmed videos."""
    takes_trimmed: bool = False
    """Of the synthetic benchmark, it is trained on the trimmed videos."""
    takes_labels: bool = True
    """False where it trains on videos or features without their annotations."""
    takes_grid: bool = True
    """False where the `grid:` block has no effect: the windows are drawn otherwise."""
    feature_dataset: "Callable[[Recipe, Sequence[Window], FeatureDirectory], Dataset[WindowSample]] | None" = None
    """Its training samples of features, one per window, where they are not simply the windows' rows
    (`data.feature_windows`)."""
    frame_dataset: "Callable[[Recipe, FrameWindows], Any] | None" = None
    """Its samples of frames, one per window, where they are not simply the windows' (`data.stretches`)."""
    check: "Callable[[Recipe], None] | None" = None
    """What it asks of the other blocks; raises ValueError."""
    judge: "Callable[[Recipe, Annotations, torch.device], Judge | None] | None" = None
    """How its modules are judged while they train, where they are no detectors."""
    measured_on: "Callable[[Recipe, Sequence[AnnotatedVideo], Sequence[str]], list[Window]] | None" = None
    """(recipe, videos, classes) -> the windows of the validation subset that its modules are measured on while they train
    (`objectives.accuracies.Measurable`); its options then have validate_every_epochs and weights."""
    measure: str = ""
    """Name of that score."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Choices that a recipe can name beside lofi's fixed tables."""

    objectives: Mapping[str, ObjectiveKind]
    adapters: Mapping[str, tuple[type, Any]] = field(default_factory=dict)
    """name -> (config dataclass, `build(config, *, feature_width, with_weights) -> nn.Module`)."""

    def joined(self, other: "Parts") -> "Parts":
        """Both together."""
        return Parts(
            objectives={**self.objectives, **other.objectives}, adapters={**self.adapters, **other.adapters}
        )
