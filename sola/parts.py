"""What lofi's recipes can name of this package: the objective similarity_matching and the adapter sola."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lofi.config.objective_kinds import Modules, ObjectiveKind, Parts
from lofi.config.recipe import Recipe
from lofi.data.annotations import AnnotatedVideo, Annotations
from lofi.data.feature_failures import failed_videos, refuse_failed_videos
from lofi.data.feature_store import (
    FeatureDirectory,
    check_features,
    open_feature_directory,
)
from lofi.engine.deepspeed_engine import gather_from_ranks
from lofi.engine.validation import Judge, Scored
from lofi.progress import is_main_rank
from lofi.segments import Window
from sola.adapter import SolaAdapterConfig, build_adapter
from sola.linear_evaluation import LinearEvaluation, evaluate_linearly, label_snippets, read_snippets
from sola.objective import SimilarityMatching, SimilarityMatchingConfig
from sola.sampling import RandomStretches


def _whole_videos(recipe: Recipe, videos: Sequence[AnnotatedVideo], classes: Sequence[str]) -> list[Window]:
    return [
        Window(
            video=video.name,
            start_sec=0.0,
            end_sec=video.duration_sec,
            video_duration_sec=video.duration_sec,
            segments=(),
        )
        for video in videos
    ]


def _stretches(recipe: Recipe, windows: Sequence[Window], directory: FeatureDirectory) -> RandomStretches:
    config: SimilarityMatchingConfig = recipe.objective.config
    return RandomStretches(
        windows,
        directory,
        num_snippets=config.window,
        stride_jitter=config.stride_jitter,
        seed=recipe.seed,
    )


def _build(recipe: Recipe, modules: Modules) -> nn.Module:
    assert modules.adapter is not None
    return SimilarityMatching(
        adapter=modules.adapter, feature_width=modules.feature_width, config=recipe.objective.config
    )


def _judge(recipe: Recipe, annotations: Annotations, device: torch.device) -> Judge | None:
    """Linear evaluation of the adapted features, where the recipe asks for it; before training, of the features as they are.

    Raises:
        ValueError: videos whose features could not be made, or snippets of one class alone.
    """
    config: SimilarityMatchingConfig = recipe.objective.config
    if config.linear_evaluation_every_epochs is None:
        return None
    assert recipe.data.features is not None
    directory = open_feature_directory(recipe.data.features)
    left_out = failed_videos(directory) if recipe.data.on_decode_error == "skip" else {}
    subsets = [
        [video for video in annotations.subset(subset) if video.name not in left_out]
        for subset in (recipe.data.training_subset, recipe.data.validation_subset)
    ]
    names = [video.name for videos in subsets for video in videos]
    refuse_failed_videos(directory, names)
    check_features(directory, names)
    training, validation = (
        label_snippets(videos, directory, max_videos=config.linear_evaluation_videos, seed=recipe.seed)
        for videos in subsets
    )

    def evaluate(module: nn.Module) -> LinearEvaluation:
        adapter: nn.Module = module.adapter  # type: ignore[assignment]

        def adapt(features: Tensor) -> Tensor:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=device)
            adapted: Tensor = adapter(features.to(device), mask=mask)
            return adapted

        return evaluate_linearly(
            read_snippets(training, directory, adapt=adapt),
            read_snippets(validation, directory, adapt=adapt),
        )

    def score(module: nn.Module, title: str) -> Scored:
        begin = time.perf_counter()
        # Every rank has the same module: one of them computes, the others wait.
        found = gather_from_ranks(evaluate(module) if is_main_rank() else None)[0]
        return Scored(
            score=found.balanced_accuracy,
            details={"linear_accuracy": found.accuracy, "action_share": found.action_share},
            seconds=time.perf_counter() - begin,
        )

    return Judge(
        measure="balanced_linear_accuracy",
        every_epochs=config.linear_evaluation_every_epochs,
        weights=config.weights,
        subset=recipe.data.validation_subset,
        score=score,
        judges_start=True,
    )


SIMILARITY_MATCHING = ObjectiveKind(
    config=SimilarityMatchingConfig,
    windows=_whole_videos,
    build=_build,
    takes=("adapter",),
    needs=("adapter",),
    source="features",
    takes_grid=False,
    takes_labels=False,
    data_options=("validation_subset",),
    feature_dataset=_stretches,
    judge=_judge,
)

PARTS = Parts(
    objectives={"similarity_matching": SIMILARITY_MATCHING},
    adapters={"sola": (SolaAdapterConfig, build_adapter)},
)
