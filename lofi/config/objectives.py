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
from lofi.data.feature_store import FeatureDirectory, check_features, open_feature_directory
from lofi.data.frame_windows import FrameWindows
from lofi.data.pretext_windows import balanced_windows, bare_videos, labelled_stretches, region_windows
from lofi.data.samples import WindowSample
from lofi.data.stretches import PairedStretches, StretchWindows
from lofi.data.windows import clip_windows, training_windows
from lofi.detector import PREDICTION_CHUNK_SNIPPETS, Detector
from lofi.engine.deepspeed_engine import zero_stage
from lofi.engine.validation import Judge
from lofi.heads import HEADS
from lofi.objectives.boundaries import SNIPPETS as BOUNDARY_SNIPPETS
from lofi.objectives.bsp import BspConfig, build_bsp
from lofi.objectives.pal import PalConfig, build_pal
from lofi.objectives.tac import TacConfig, build_tac
from lofi.objectives.tal import TalConfig
from lofi.objectives.tsp import TspConfig, build_tsp
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
    windows = clip_windows(videos, classes=classes, clips_per_segment=recipe.data.clips_per_segment)
    return balanced_windows(windows) if recipe.objective.config.class_balance == "equal" else windows


def _each_segment(recipe: "Recipe", videos: Sequence[AnnotatedVideo], classes: Sequence[str]) -> list[Window]:
    return clip_windows(videos, classes=classes)


def _build_tac(recipe: "Recipe", modules: Modules) -> nn.Module:
    assert modules.encoder is not None
    return build_tac(
        recipe.objective.config,
        encoder=modules.encoder,
        encode=modules.encode,
        feature_width=modules.feature_width,
        num_classes=modules.num_classes,
    )


def _tsp_windows(recipe: "Recipe", videos: Sequence[AnnotatedVideo], classes: Sequence[str]) -> list[Window]:
    _check_global_features(recipe, videos)
    return region_windows(
        videos,
        classes=classes,
        min_background_sec=recipe.objective.config.min_background_sec,
        clips_per_segment=recipe.data.clips_per_segment,
    )


def _each_region(recipe: "Recipe", videos: Sequence[AnnotatedVideo], classes: Sequence[str]) -> list[Window]:
    _check_global_features(recipe, videos)
    min_sec = recipe.objective.config.min_background_sec
    return region_windows(videos, classes=classes, min_background_sec=min_sec)


def _check_global_features(recipe: "Recipe", videos: Sequence[AnnotatedVideo]) -> None:
    path = recipe.objective.config.global_features
    if path is None:
        return
    try:
        check_features(open_feature_directory(path), [video.name for video in videos])
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"objective.global_features: {error}") from error


def _check_tsp(recipe: "Recipe") -> None:
    assert recipe.fidelity is not None
    frame_rate = recipe.grid.frame_rate
    min_sec = recipe.objective.config.min_background_sec
    if frame_rate is not None and min_sec < recipe.fidelity.frames / frame_rate:
        raise ValueError(
            f"objective.min_background_sec is {min_sec}, but a clip of {recipe.fidelity.frames} frames at {frame_rate} a "
            f"second is {recipe.fidelity.frames / frame_rate:g} s long and would reach into the actions; set at least that."
        )


def _build_tsp(recipe: "Recipe", modules: Modules) -> nn.Module:
    assert modules.encoder is not None
    return build_tsp(
        recipe.objective.config,
        encoder=modules.encoder,
        encode=modules.encode,
        feature_width=modules.feature_width,
        num_classes=modules.num_classes,
    )


def _stretch_sec(recipe: "Recipe") -> float:
    """Of the evenly spaced frames that synthetic videos are made from."""
    assert recipe.fidelity is not None
    assert recipe.grid.frame_rate is not None
    return recipe.fidelity.num_snippets * recipe.fidelity.frames / recipe.grid.frame_rate


def _stretches(recipe: "Recipe", frames: FrameWindows) -> StretchWindows:
    assert recipe.grid.frame_rate is not None
    return StretchWindows(frames, frame_rate=recipe.grid.frame_rate, seed=recipe.seed)


def _check_stretches(recipe: "Recipe") -> None:
    """Of objectives that make synthetic videos out of stretches of evenly spaced frames."""
    assert recipe.fidelity is not None
    name = recipe.objective.name
    if recipe.grid.frame_rate is None:
        raise ValueError(
            f"grid.frame_rate is null; objective: {name} makes synthetic videos of evenly spaced frames, so it must be given "
            "(frames per second)."
        )
    if recipe.grid.mode != "rescale":
        raise ValueError(
            f"grid.mode: {recipe.grid.mode} has no effect with objective: {name}, which draws stretches; remove it."
        )
    if recipe.data.frame_cache is not None:
        raise ValueError(
            f"data.frame_cache has no use with objective: {name}, whose stretches lie elsewhere in each epoch; remove it."
        )
    if recipe.data.snippet_jitter > 0:
        raise ValueError(
            f"data.snippet_jitter has no effect with objective: {name}, whose snippets lie side by side; remove it."
        )
    if recipe.fidelity.reduction not in ("none", "space"):
        raise ValueError(
            f"fidelity.reduction: {recipe.fidelity.reduction} changes the length of the stretches of objective: {name}; "
            "only none and space are allowed."
        )


def _pal_windows(recipe: "Recipe", videos: Sequence[AnnotatedVideo], classes: Sequence[str]) -> list[Window]:
    windows_per_video = recipe.objective.config.windows_per_video
    return bare_videos(videos, stretch_sec=_stretch_sec(recipe), windows_per_video=windows_per_video)


def _each_video(recipe: "Recipe", videos: Sequence[AnnotatedVideo], classes: Sequence[str]) -> list[Window]:
    return bare_videos(videos, stretch_sec=_stretch_sec(recipe))


def _check_pal(recipe: "Recipe") -> None:
    _check_stretches(recipe)
    assert recipe.fidelity is not None
    config: PalConfig = recipe.objective.config
    if config.min_region * recipe.fidelity.num_snippets < 1:
        raise ValueError(
            f"objective.min_region is {config.min_region} of {recipe.fidelity.num_snippets} snippets, less than one; raise it "
            f"to {1 / recipe.fidelity.num_snippets:.3g} at least, or fidelity.num_snippets."
        )
    if recipe.train.batch_size < 3:
        raise ValueError(
            f"train.batch_size is {recipe.train.batch_size}; a region of one video is pasted on two others, so each rank needs "
            "3 at least."
        )
    assert recipe.encoder is not None
    if getattr(recipe.encoder.config, "norm", "frozen") == "train":
        raise ValueError(
            "encoder.norm: train is refused with objective: pal, whose batch statistics would tell a pair from the others; use "
            "frozen or affine."
        )
    if recipe.gradient.name == "detached":
        raise ValueError("gradient.name: detached is refused with objective: pal, which trains the encoder.")
    if zero_stage(recipe.deepspeed) == 3:
        raise ValueError(
            "deepspeed.zero_optimization.stage: 3 is refused with objective: pal: no rank has the whole weights that the "
            "momentum encoder follows; use stage 2."
        )


def _build_pal(recipe: "Recipe", modules: Modules) -> nn.Module:
    assert modules.encoder is not None
    trained_chunk = getattr(recipe.gradient.config, "chunk_size", PREDICTION_CHUNK_SNIPPETS)
    return build_pal(
        recipe.objective.config,
        encoder=modules.encoder,
        encode=modules.encode,
        feature_width=modules.feature_width,
        key_chunk=min(trained_chunk, PREDICTION_CHUNK_SNIPPETS),
    )


def _bsp_windows(recipe: "Recipe", videos: Sequence[AnnotatedVideo], classes: Sequence[str]) -> list[Window]:
    stretch_sec, clips = _stretch_sec(recipe) / 2, recipe.data.clips_per_segment
    return labelled_stretches(videos, classes=classes, stretch_sec=stretch_sec, clips_per_segment=clips)


def _each_stretch(recipe: "Recipe", videos: Sequence[AnnotatedVideo], classes: Sequence[str]) -> list[Window]:
    return labelled_stretches(videos, classes=classes, stretch_sec=_stretch_sec(recipe) / 2)


def _paired_stretches(recipe: "Recipe", frames: FrameWindows) -> PairedStretches:
    assert recipe.grid.frame_rate is not None
    return PairedStretches(frames, frame_rate=recipe.grid.frame_rate, seed=recipe.seed)


def _check_bsp(recipe: "Recipe") -> None:
    _check_stretches(recipe)
    assert recipe.fidelity is not None
    if recipe.fidelity.num_snippets != BOUNDARY_SNIPPETS:
        raise ValueError(
            f"fidelity.num_snippets is {recipe.fidelity.num_snippets}; objective: bsp makes four clips of one snippet out of two "
            f"snippets of a clip and two of another of its class, so it must be {BOUNDARY_SNIPPETS}."
        )
    if recipe.fidelity.frames < 4:
        raise ValueError(
            f"fidelity.frames is {recipe.fidelity.frames}; objective: bsp puts a boundary inside a snippet, which needs 4 frames."
        )


def _build_bsp(recipe: "Recipe", modules: Modules) -> nn.Module:
    assert modules.encoder is not None
    return build_bsp(
        recipe.objective.config,
        encoder=modules.encoder,
        encode=modules.encode,
        feature_width=modules.feature_width,
    )


OBJECTIVES = {
    "tal": ObjectiveKind(
        config=TalConfig,
        windows=_tal_windows,
        build=_build_tal,
        takes=("head", "postprocess", "evaluation", "adapter"),
        needs=("head", "postprocess"),
        data_options=("validation_subset", "joined_features"),
    ),
    "tac": ObjectiveKind(
        config=TacConfig,
        windows=_tac_windows,
        build=_build_tac,
        takes=(),
        source="frames",
        data_options=("clips_per_segment", "validation_subset"),
        takes_clips=True,
        takes_trimmed=True,
        measured_on=_each_segment,
        measure="mean_class_accuracy",
    ),
    "tsp": ObjectiveKind(
        config=TspConfig,
        windows=_tsp_windows,
        build=_build_tsp,
        takes=(),
        source="frames",
        data_options=("clips_per_segment", "validation_subset"),
        takes_clips=True,
        check=_check_tsp,
        measured_on=_each_region,
        measure="mean_of_action_and_region_accuracy",
    ),
    "pal": ObjectiveKind(
        config=PalConfig,
        windows=_pal_windows,
        build=_build_pal,
        takes=(),
        source="frames",
        takes_labels=False,
        data_options=("validation_subset",),
        frame_dataset=_stretches,
        check=_check_pal,
        measured_on=_each_video,
        measure="agreement",
    ),
    "bsp": ObjectiveKind(
        config=BspConfig,
        windows=_bsp_windows,
        build=_build_bsp,
        takes=(),
        source="frames",
        data_options=("clips_per_segment", "validation_subset"),
        takes_trimmed=True,
        frame_dataset=_paired_stretches,
        check=_check_bsp,
        measured_on=_each_stretch,
        measure="boundary_accuracy",
    ),
}

OWN_PARTS = Parts(objectives=OBJECTIVES)
"""What lofi brings itself."""
