"""A recipe's training steps without its data: random batches of the recipe's sizes, and assumed numbers where only data
could tell them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from lofi.batches import WindowBatch
from lofi.config.recipe import Recipe
from lofi.data.annotations import read_annotations
from lofi.data.feature_store import MANIFEST_NAME
from lofi.data.frame_windows import decoded_fidelity
from lofi.fidelity import Fidelity, FidelitySchedule
from lofi.memory.made_up_batch import made_up_batch
from lofi.stages.build import feature_width_of, training_schedule

SEGMENTS_PER_WINDOW = 2
DEFAULT_FEATURE_WIDTH = 512
"""D of features from disk where nobody says it."""


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What to take where neither annotations nor a feature directory are there to ask."""

    classes: int = 20
    """K, of the head or classifier."""
    feature_width: int | None = None
    """D of features from disk; null is what `head.streams` have together, else 512."""
    num_snippets: int = 128
    """L of features from disk."""

    def __post_init__(self) -> None:
        for name in ("classes", "feature_width", "num_snippets"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class InputShape:
    """What a step's modules and batches depend on besides the recipe."""

    classes: tuple[str, ...]
    feature_width: int | None
    """D of features from disk; None where an encoder makes them."""
    schedule: FidelitySchedule
    assumptions: tuple[str, ...]
    """What was assumed, for the reader of a number."""


def input_shape(recipe: Recipe, *, assumed: Assumed) -> InputShape:
    """From the recipe's annotations and features where they exist, else as assumed. Raises ValueError where a file is
    there and wrong."""
    assumptions = []
    if Path(recipe.data.annotations).is_file():
        classes = read_annotations(recipe.data.annotations).classes
    else:
        classes = tuple(f"class {index}" for index in range(assumed.classes))
        assumptions.append(f"{assumed.classes} classes")
    feature_width, schedule = None, None
    if recipe.data.features is None:
        schedule = training_schedule(recipe)
    elif (Path(recipe.data.features) / MANIFEST_NAME).is_file():
        schedule, feature_width = training_schedule(recipe), feature_width_of(recipe)
    else:
        feature_width, source = _assumed_width(recipe, assumed.feature_width)
        one = Fidelity(num_snippets=assumed.num_snippets, frames=1, height=1, width=1)
        schedule = FidelitySchedule(fidelities=(one,))
        assumptions.append(f"features of {assumed.num_snippets} snippets x {feature_width}{source}")
    window = getattr(recipe.objective.config, "window", None)
    if (
        recipe.reads_features and window is not None
    ):  # an objective that draws windows of its own from the features
        one = Fidelity(num_snippets=window, frames=1, height=1, width=1)
        schedule = FidelitySchedule(fidelities=(one,))
    return InputShape(
        classes=classes, feature_width=feature_width, schedule=schedule, assumptions=tuple(assumptions)
    )


def _assumed_width(recipe: Recipe, width: int | None) -> tuple[int, str]:
    """D of features that are not there, and where it is from, for the reader."""
    streams = getattr(getattr(recipe.head, "config", None), "streams", None)
    if streams is None:
        return width or DEFAULT_FEATURE_WIDTH, ""
    together = sum(each for each, _ in streams)
    if width not in (None, together):
        raise ValueError(
            f"feature_width is {width}, but head.streams have widths {[each for each, _ in streams]}, {together} together; "
            "leave feature_width out."
        )
    return together, " (head.streams)"


def decoded_size(recipe: Recipe, fidelity: Fidelity) -> Fidelity | None:
    """Size of the frames that the device cuts `fidelity` out of, mirrors, recolours or blurs; None where it does none of it."""
    data = recipe.data
    if data.videos is None or not data.changes_frames:
        return None
    return decoded_fidelity(fidelity, random_crop=recipe.data.random_crop)


def drawn_changes(recipe: Recipe) -> list[str]:
    """What is drawn for the views of a batch beside place and mirror: names of their values."""
    data = recipe.data
    shares = {"color_factors": data.color_jitter, "is_grey": data.grayscale, "blur_sigma": data.blur}
    return [name for name, share in shares.items() if share > 0]


def synthetic_batches(recipe: Recipe, shape: InputShape, *, fidelity: Fidelity) -> Iterator[WindowBatch]:
    """The same random batch for ever: every snippet valid, two segments a window (one for a single snippet)."""
    batch = made_up_batch(
        fidelity,
        num_windows=recipe.train.batch_size,
        num_segments=SEGMENTS_PER_WINDOW if fidelity.num_snippets > 1 else 1,
        num_classes=len(shape.classes),
        feature_width=shape.feature_width,
        decoded=decoded_size(recipe, fidelity),
        drawn=drawn_changes(recipe),
    )
    # Zeros would be computed faster than frames: a GPU that toggles fewer bits clocks higher.
    generator = torch.Generator().manual_seed(0)
    if batch.frames is not None:
        batch.frames.random_(0, 256, generator=generator)
    if batch.features is not None:
        batch.features.normal_(generator=generator)
    if torch.cuda.is_available():
        batch = batch.pin_memory()
    while True:
        yield batch
