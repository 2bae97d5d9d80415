"""The pretexts TAC, TSP, BSP and PAL, as a recipe names them: their windows, what they ask of other blocks, their modules."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from lofi.config.objective_kinds import Modules, ObjectiveKind
from lofi.data.annotations import AnnotatedVideo
from lofi.data.feature_store import check_features, open_feature_directory
from lofi.data.frame_windows import FrameWindows
from lofi.data.pretext_windows import (
    balanced_windows,
    bare_videos,
    labelled_stretches,
    region_windows,
    short_segments,
    short_videos,
)
from lofi.data.stretches import PairedStretches, StretchWindows
from lofi.data.windows import clip_windows
from lofi.detector import PREDICTION_CHUNK_SNIPPETS
from lofi.engine.deepspeed_engine import zero_stage
from lofi.objectives.boundaries import SNIPPETS as BOUNDARY_SNIPPETS
from lofi.objectives.bsp import BspConfig, build_bsp
from lofi.objectives.pal import PalConfig, build_pal
from lofi.objectives.tac import TacConfig, build_tac
from lofi.objectives.tsp import TspConfig, build_tsp
from lofi.segments import Window

if TYPE_CHECKING:
    from lofi.config.recipe import Recipe


def _tac_windows(recipe: "Recipe", videos: Sequence[AnnotatedVideo], classes: Sequence[str]) -> list[Window]:
    windows = clip_windows(videos, classes=classes, clips_per_segment=recipe.data.clips_per_segment)
    return balanced_windows(windows) if recipe.objective.config.class_balance == "equal" else windows


def _each_segment(recipe: "Recipe", videos: Sequence[AnnotatedVideo], classes: Sequence[str]) -> list[Window]:
    return clip_windows(videos, classes=classes)


def _built_by(
    build: Callable[..., nn.Module], *, has_classes: bool
) -> Callable[["Recipe", Modules], nn.Module]:
    """For an objective that is a head on an encoder's features: it is told K where it has classes."""

    def build_pretext(recipe: "Recipe", modules: Modules) -> nn.Module:
        assert modules.encoder is not None
        classes = {"num_classes": modules.num_classes} if has_classes else {}
        return build(
            recipe.objective.config,
            encoder=modules.encoder,
            encode=modules.encode,
            feature_width=modules.feature_width,
            **classes,
        )

    return build_pretext


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


def _short_videos(recipe: "Recipe", videos: Sequence[AnnotatedVideo]) -> str:
    return short_videos(videos, stretch_sec=_stretch_sec(recipe))


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


def _short_segments(recipe: "Recipe", videos: Sequence[AnnotatedVideo]) -> str:
    return short_segments(videos, stretch_sec=_stretch_sec(recipe) / 2)


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


_pretext = partial(ObjectiveKind, takes=(), source="frames")
"""What all pretexts are alike in."""

_labelled_pretext = partial(_pretext, data_options=("clips_per_segment", "validation_subset"))

PRETEXTS = {
    "tac": _labelled_pretext(
        config=TacConfig,
        windows=_tac_windows,
        build=_built_by(build_tac, has_classes=True),
        takes_clips=True,
        takes_trimmed=True,
        measured_on=_each_segment,
        measure="mean_class_accuracy",
    ),
    "tsp": _labelled_pretext(
        config=TspConfig,
        windows=_tsp_windows,
        build=_built_by(build_tsp, has_classes=True),
        takes_clips=True,
        check=_check_tsp,
        measured_on=_each_region,
        measure="mean_of_action_and_region_accuracy",
    ),
    "bsp": _labelled_pretext(
        config=BspConfig,
        windows=_bsp_windows,
        left_out=_short_segments,
        build=_built_by(build_bsp, has_classes=False),
        takes_trimmed=True,
        frame_dataset=_paired_stretches,
        check=_check_bsp,
        measured_on=_each_stretch,
        measure="boundary_accuracy",
    ),
    "pal": _pretext(
        config=PalConfig,
        windows=_pal_windows,
        left_out=_short_videos,
        build=_build_pal,
        data_options=("validation_subset",),
        takes_labels=False,
        frame_dataset=_stretches,
        check=_check_pal,
        measured_on=_each_video,
        measure="agreement",
    ),
}
