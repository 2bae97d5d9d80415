"""What the rest of the program must know of an objective: its options, the blocks it takes, its windows, its module.

`OBJECTIVES` is the table of lofi's own. A package beside lofi adds its objectives and adapters by `Parts`, which the
scripts hand to `config.load.load_recipe`; lofi itself never imports such a package.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils.data import Dataset

from lofi.data.annotations import AnnotatedVideo, Annotations
from lofi.data.feature_store import FeatureDirectory
from lofi.data.samples import WindowSample
from lofi.data.windows import clip_windows, training_windows
from lofi.detector import PREDICTION_CHUNK_SNIPPETS, Detector
from lofi.engine.validation import Judge
from lofi.heads import HEADS
from lofi.objectives.tac import TacConfig, build_tac
from lofi.objectives.tal import TalConfig
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
    """Windows are single trimmed clips, whose place is jittered in training; else stretches of untrimmed videos."""
    takes_grid: bool = True
    """False where the `grid:` block has no effect: the windows are drawn otherwise."""
    feature_dataset: "Callable[[Recipe, Sequence[Window], FeatureDirectory], Dataset[WindowSample]] | None" = None
    """Its training samples of features, one per window, where they are not simply the windows' rows
    (`data.feature_windows`)."""
    judge: "Callable[[Recipe, Annotations, torch.device], Judge | None] | None" = None
    """How its modules are judged while they train, where they are no detectors."""


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


def _tal_windows(recipe: "Recipe", videos: Sequence[AnnotatedVideo], classes: Sequence[str]) -> list[Window]:
    return training_windows(videos, classes=classes, grid=recipe.grid)


def _build_tal(recipe: "Recipe", modules: Modules) -> Detector:
    assert recipe.head is not None
    head: nn.Module = HEADS[recipe.head.name][1](
        recipe.head.config, feature_width=modules.feature_width, num_classes=modules.num_classes
    )
    trained_chunk = getattr(recipe.gradient.config, "chunk_size", PREDICTION_CHUNK_SNIPPETS)
    return Detector(
        encoder=modules.encoder,
        adapter=modules.adapter,
        head=head,
        encode=modules.encode,
        prediction_chunk=min(trained_chunk, PREDICTION_CHUNK_SNIPPETS),
    )


def _tac_windows(recipe: "Recipe", videos: Sequence[AnnotatedVideo], classes: Sequence[str]) -> list[Window]:
    return clip_windows(videos, classes=classes, clips_per_segment=recipe.data.clips_per_segment)


def _build_tac(recipe: "Recipe", modules: Modules) -> nn.Module:
    assert modules.encoder is not None
    return build_tac(
        recipe.objective.config,
        encoder=modules.encoder,
        encode=modules.encode,
        feature_width=modules.feature_width,
        num_classes=modules.num_classes,
    )


OBJECTIVES = {
    "tal": ObjectiveKind(
        config=TalConfig,
        windows=_tal_windows,
        build=_build_tal,
        takes=("head", "postprocess", "evaluation", "adapter"),
        needs=("head", "postprocess"),
        data_options=("validation_subset",),
    ),
    "tac": ObjectiveKind(
        config=TacConfig,
        windows=_tac_windows,
        build=_build_tac,
        takes=(),
        source="frames",
        data_options=("clips_per_segment",),
        takes_clips=True,
    ),
}

OWN_PARTS = Parts(objectives=OBJECTIVES)
"""What lofi brings itself."""
