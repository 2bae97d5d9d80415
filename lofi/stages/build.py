"""Recipe -> modules, windows and datasets: the one place where names of a recipe become objects."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lofi.config.objective_kinds import Modules
from lofi.config.recipe import Choice, Recipe
from lofi.data.annotations import (
    NUM_NAMES_SHOWN,
    AnnotatedVideo,
    Annotations,
    check_videos_exist,
    find_video,
    read_annotations,
)
from lofi.data.feature_failures import FAILURES_NAME, failed_videos
from lofi.data.feature_moments import feature_moments
from lofi.data.feature_store import FeatureDirectory, open_feature_directory
from lofi.data.feature_windows import FeatureWindows
from lofi.data.frame_cache import check_cache_room, estimate_cache_bytes
from lofi.data.frame_windows import DataConfig, FrameWindows, decoded_fidelity
from lofi.data.grid import GridConfig
from lofi.data.joined_features import check_streams, join_features
from lofi.data.labelled_share import draw_labelled, repeat_windows
from lofi.data.windows import prediction_windows
from lofi.encoders.build import build_encoder
from lofi.encoders.freezing import norm_is_frozen
from lofi.fidelity import Fidelity, FidelitySchedule, build_schedule
from lofi.gradients import GRADIENTS
from lofi.heads.feature_scale import FeatureScale
from lofi.heads.postprocess import read_video_scores, scores_of_video
from lofi.progress import say
from lofi.segments import Window


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a run reads: annotations, windows, and a dataset of them."""

    annotations: Annotations
    training: Any
    """A dataset over the training windows, indexed by `SampleKey`."""
    schedule: FidelitySchedule
    """Fidelity of each training step."""
    feature_width: int | None
    """D of features from disk; None where an encoder makes them."""
    skipped_videos: dict[str, str] = field(default_factory=dict)
    """Video -> reason, of the training videos that were left out: those without features, where the recipe says skip."""


def open_source(recipe: Recipe) -> Source:
    """Read annotations, find every video or feature file, and lay out the training windows. Raises ValueError."""
    annotations = read_annotations(recipe.data.annotations)
    feature_width = feature_width_of(recipe)
    all_videos = annotations.subset(recipe.data.training_subset)
    videos = draw_labelled(all_videos, share=recipe.data.labelled_share, seed=recipe.seed)
    validation = None if recipe.evaluation is None else _open_validation(recipe, annotations)
    skipped = _skipped_videos(recipe, videos)
    videos = [video for video in videos if video.name not in skipped]
    if recipe.data.features is not None:
        _say_unknown_features(recipe.data, annotations)
    windows = recipe.kind.windows(recipe, videos, annotations.classes)
    say_left_out(recipe, videos, subset=recipe.data.training_subset)
    if recipe.data.repeat_labelled:
        failed = _failed_features(recipe)
        usable = [video for video in all_videos if video.name not in failed]
        count = len(recipe.kind.windows(recipe, usable, annotations.classes))
        windows = repeat_windows(windows, count=count)
    schedule = training_schedule(recipe)
    if recipe.reads_features and recipe.kind.feature_dataset is not None:
        directory = open_features(recipe.data)
        training = recipe.kind.feature_dataset(recipe, windows, directory)
    else:
        training = open_windows(recipe, annotations, windows)
    if recipe.data.frame_cache is not None:
        crop = recipe.data.random_crop
        decoded = [decoded_fidelity(fidelity, random_crop=crop) for fidelity in schedule.fidelities]
        num_bytes = estimate_cache_bytes(windows, decoded, jitter=recipe.kind.takes_clips)
        if validation is not None:
            num_bytes += estimate_cache_bytes(validation.windows, [full_fidelity(recipe)])
        say_cache_size(recipe.data.frame_cache, num_bytes=num_bytes)
    return Source(
        annotations=annotations,
        training=training,
        schedule=schedule,
        feature_width=feature_width,
        skipped_videos=skipped,
    )


def say_left_out(recipe: Recipe, videos: Sequence[AnnotatedVideo], *, subset: str) -> None:
    """Say how many videos or segments of a subset the objective makes no window of."""
    left_out = "" if recipe.kind.left_out is None else recipe.kind.left_out(recipe, videos)
    if left_out:
        say(f"{subset}: {left_out}")


def _skipped_videos(recipe: Recipe, videos: Sequence[AnnotatedVideo]) -> dict[str, str]:
    """Those that have no features because making them failed, and may be left out; says how many."""
    failed = _failed_features(recipe)
    skipped = {video.name: failed[video.name] for video in videos if video.name in failed}
    if skipped:
        say(
            f"{len(skipped)} of {len(videos)} training videos have no features, since making them failed, and are left "
            f"out; see {open_features(recipe.data).path / FAILURES_NAME}"
        )
    return skipped


def _failed_features(recipe: Recipe) -> dict[str, str]:
    """Video -> why it has no features; none where the recipe does not allow that."""
    if recipe.data.features is None or recipe.data.on_decode_error != "skip":
        return {}
    return failed_videos(open_features(recipe.data))


def _say_unknown_features(data: DataConfig, annotations: Annotations) -> None:
    """Features of videos that no annotation names are harmless, but often a sign of other annotations than were meant."""
    unknown = sorted(open_features(data).existing_videos() - annotations.videos.keys())
    if unknown:
        shown = ", ".join(unknown[:NUM_NAMES_SHOWN]) + (", ..." if len(unknown) > NUM_NAMES_SHOWN else "")
        say(
            f"{len(unknown)} feature files in {data.features} are of videos that {annotations.path} lacks, and not used: {shown}"
        )


def say_cache_size(folder: str, *, num_bytes: int) -> None:
    """Say how much of the disk the frame cache may take. Raises ValueError where the disk lacks the room."""
    free_bytes = check_cache_room(folder, num_bytes=num_bytes)
    say(
        f"frame cache {folder}: up to {num_bytes / 2**30:.2f} GiB for this run, {free_bytes / 2**30:.1f} GiB free on "
        "its disk"
    )


def _open_validation(recipe: Recipe, annotations: Annotations) -> FrameWindows | FeatureWindows:
    """Find now what the evaluation would stumble over after hours of training."""
    subset = recipe.data.validation_subset
    videos = annotations.subset(subset)
    if not any(video.segments for video in videos):
        raise ValueError(
            f"{annotations.path}: none of the {len(videos)} videos of subset {subset} has an annotated segment, so there "
            "is nothing to evaluate; set data.validation_subset, or evaluation: null."
        )
    validation = open_prediction(recipe, annotations)
    if recipe.postprocess is not None and recipe.postprocess.video_scores is not None:
        scores = read_video_scores(recipe.postprocess.video_scores, classes=annotations.classes)
        for video in videos:
            scores_of_video(scores, video.name)
    return validation


def training_schedule(recipe: Recipe) -> FidelitySchedule:
    """Fidelity of each training step; with features from disk, that of the features."""
    if recipe.fidelity is None:
        return FidelitySchedule(fidelities=(full_fidelity(recipe),))
    return build_schedule(recipe.fidelity)


def full_fidelity(recipe: Recipe) -> Fidelity:
    """Fidelity of prediction: the recipe's, or that of the features it reads."""
    if recipe.fidelity is not None:
        return recipe.fidelity.full
    manifest = open_features(recipe.data).manifest
    fidelity = replace(Fidelity(**manifest.fidelity), num_snippets=manifest.rows_per_window)
    stride_sec, window_sec = manifest.snippet_stride_sec, recipe.grid.window_sec
    if stride_sec is None or window_sec is None:
        return fidelity
    # Dense features keep their stride in windows of any length: a row is a snippet.
    return replace(fidelity, num_snippets=max(1, round(window_sec / stride_sec)))


def feature_width_of(recipe: Recipe) -> int | None:
    """D of the features that a recipe reads; None where an encoder makes them. Raises ValueError where the head's streams are
    not those that are joined."""
    if recipe.data.features is None:
        return None
    directory = open_features(recipe.data)
    streams = getattr(getattr(recipe.head, "config", None), "streams", None)
    if streams is not None:
        check_streams(directory, streams)
    return directory.manifest.feature_width


def open_features(data: DataConfig) -> FeatureDirectory:
    """The features that a recipe reads: one directory, or several joined."""
    assert data.features is not None
    return join_features(
        [open_feature_directory(path) for path in (data.features, *(data.joined_features or ()))]
    )


def open_prediction(recipe: Recipe, annotations: Annotations) -> FrameWindows | FeatureWindows:
    """The validation windows of a localization recipe."""
    videos = annotations.subset(recipe.data.validation_subset)
    windows = prediction_windows(videos, classes=annotations.classes, grid=recipe.grid)
    dataset: FrameWindows | FeatureWindows = open_windows(recipe, annotations, windows)
    return dataset


def open_windows(recipe: Recipe, annotations: Annotations, windows: Sequence[Window]) -> Any:
    """The dataset behind windows: decoded frames, or features from disk. Missing files are found here."""
    if recipe.reads_features:
        return FeatureWindows(
            windows,
            open_features(recipe.data),
            grid=recipe.grid,
            seed=recipe.seed,
            on_decode_error=recipe.data.on_decode_error,
        )
    frames = open_frame_windows(
        recipe.data,
        annotations,
        windows,
        grid=recipe.grid,
        seed=recipe.seed,
        jitter=recipe.kind.takes_clips,
    )
    return frames if recipe.kind.frame_dataset is None else recipe.kind.frame_dataset(recipe, frames)


def open_frame_windows(
    data: DataConfig,
    annotations: Annotations,
    windows: Sequence[Window],
    *,
    grid: GridConfig,
    seed: int,
    jitter: bool = False,
) -> FrameWindows:
    """The dataset of decoded windows; one message names every missing video."""
    assert data.videos is not None
    folder = Path(data.videos)
    videos = [annotations.videos[name] for name in sorted({window.video for window in windows})]
    check_videos_exist(videos, folder)
    return FrameWindows(
        windows,
        {video.name: find_video(video, folder) for video in videos},
        grid=grid,
        seed=seed,
        resize=data.resize,
        flip=data.flip,
        random_crop=data.random_crop,
        jitter=jitter,
        on_decode_error=data.on_decode_error,
        frame_cache=data.frame_cache,
        mirror_unsafe=_class_indices(data.mirror_unsafe_classes or (), annotations.classes),
        color_jitter=data.color_jitter,
        grayscale=data.grayscale,
        blur=data.blur,
        snippet_jitter=data.snippet_jitter,
        decoder=data.decoder,
        decode_timeout_sec=data.decode_timeout_sec,
    )


def _class_indices(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise ValueError(
            f"data.mirror_unsafe_classes holds {', '.join(map(repr, unknown))}, which the annotations do not have; allowed "
            f"are {', '.join(map(repr, classes))}."
        )
    return [classes.index(name) for name in names]


def build_objective(
    recipe: Recipe, *, classes: Sequence[str], feature_width: int | None, with_weights: bool = True
) -> nn.Module:
    """The module that the engine trains. Raises ValueError for weights that do not fit and fidelities not taken.

    Args:
        recipe: of the run.
        classes: of the annotations.
        feature_width: D of features from disk, None where the recipe has an encoder.
        with_weights: load the initial weights of encoder and adapter, and read the features for their moments; False where a
            whole checkpoint follows.
    """
    encoder = None if recipe.encoder is None else open_encoder(recipe.encoder, with_weights=with_weights)
    if encoder is not None:
        assert recipe.fidelity is not None
        for fidelity in (recipe.fidelity.full, *build_schedule(recipe.fidelity).fidelities):
            encoder.check_fidelity(fidelity)
        feature_width = encoder.feature_width
        _check_norms(encoder, gradient=recipe.gradient.name)
    assert feature_width is not None
    encode = GRADIENTS[recipe.gradient.name][1](recipe.gradient.config)  # type: ignore[operator]
    if encoder is not None and recipe.gradient.name == "detached":
        encoder.requires_grad_(False)
    adapter: nn.Module | None = None
    if recipe.adapter is not None:
        with torch.random.fork_rng(
            devices=[]
        ):  # a head starts from the same weights with an adapter as without
            adapter = recipe.adapter.maker(
                recipe.adapter.config, feature_width=feature_width, with_weights=with_weights
            )
    modules = Modules(
        encoder=encoder,
        adapter=adapter,
        scale=_feature_scale(recipe, feature_width, with_moments=with_weights),
        encode=encode,
        feature_width=feature_width,
        num_classes=len(classes),
    )
    return recipe.kind.build(recipe, modules)


def _feature_scale(recipe: Recipe, feature_width: int, *, with_moments: bool) -> FeatureScale | None:
    """With the moments of the training videos' features, or before a whole checkpoint follows, without."""
    if not recipe.data.standardize_features:
        return None
    scale = FeatureScale(feature_width)
    if with_moments:
        annotations = read_annotations(recipe.data.annotations)
        videos = draw_labelled(
            annotations.subset(recipe.data.training_subset),
            share=recipe.data.labelled_share,
            seed=recipe.seed,
        )
        failed = _failed_features(recipe)
        names = [video.name for video in videos if video.name not in failed]
        scale.set_moments(*feature_moments(open_features(recipe.data), names))
    return scale


def _check_norms(encoder: nn.Module, *, gradient: str) -> None:
    """The recipe's own check sees the option `encoder.norm`; this one the layers, whatever made them."""
    if gradient != "joint" and not norm_is_frozen(encoder):
        raise ValueError(
            f"gradient.name: {gradient} is refused with {type(encoder).__name__}, some of whose batch norms train: "
            "recomputation and chunks would change their statistics. Use encoder.norm: frozen or affine, or "
            "gradient.name: joint."
        )


def open_encoder(choice: Choice, *, with_weights: bool = True) -> Any:
    """Build an encoder with its weights and freezing, and say what was loaded."""
    encoder, report = build_encoder(choice.name, choice.config, with_weights=with_weights)
    if report is not None:
        say(report.summary())
    return encoder
