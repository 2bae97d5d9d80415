"""The objectives that a recipe can name.

`OBJECTIVES` is the table of lofi's own. A package beside lofi adds its objectives and adapters by `objective_kinds.Parts`, which the
scripts hand to `config.load.load_recipe`; lofi itself never imports such a package.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from lofi.config.objective_kinds import Modules, ObjectiveKind, Parts
from lofi.config.pretexts import PRETEXTS
from lofi.data.annotations import AnnotatedVideo
from lofi.data.windows import training_windows
from lofi.detector import PREDICTION_CHUNK_SNIPPETS, Detector
from lofi.heads import HEADS
from lofi.objectives.tal import TalConfig
from lofi.segments import Window

if TYPE_CHECKING:
    from lofi.config.recipe import Recipe


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
        scale=modules.scale,
        head=head,
        encode=modules.encode,
        prediction_chunk=min(trained_chunk, PREDICTION_CHUNK_SNIPPETS),
    )


OBJECTIVES = {
    "tal": ObjectiveKind(
        config=TalConfig,
        windows=_tal_windows,
        build=_build_tal,
        takes=("head", "postprocess", "evaluation", "adapter"),
        needs=("head", "postprocess"),
        data_options=("validation_subset", "joined_features", "standardize_features"),
    ),
    **PRETEXTS,
}

OWN_PARTS = Parts(objectives=OBJECTIVES)
"""What lofi brings itself."""
