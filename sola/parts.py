"""What lofi's recipes can name of this package: the objective similarity_matching and the adapter sola."""

from collections.abc import Sequence

from torch import nn

from lofi.config.objectives import Modules, ObjectiveKind, Parts
from lofi.config.recipe import Recipe
from lofi.data.annotations import AnnotatedVideo
from lofi.data.feature_store import FeatureDirectory
from lofi.segments import Window
from sola.adapter import SolaAdapterConfig, build_adapter
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


SIMILARITY_MATCHING = ObjectiveKind(
    config=SimilarityMatchingConfig,
    windows=_whole_videos,
    build=_build,
    takes=("adapter",),
    needs=("adapter",),
    source="features",
    feature_dataset=_stretches,
)

PARTS = Parts(
    objectives={"similarity_matching": SIMILARITY_MATCHING},
    adapters={"sola": (SolaAdapterConfig, build_adapter)},
)
