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
from lofi.fidelity import Fidelity, FidelitySchedule
from lofi.segments import Targets, Window
from lofi.stages.build import feature_width_of, training_schedule

SEGMENTS_PER_WINDOW = 2
WINDOW_SEC = 60.0


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What to take where neither annotations nor a feature directory are there to ask."""

    classes: int = 20
    """K, of the head or classifier."""
    feature_width: int = 512
    """D of features from disk."""
    num_snippets: int = 128
    """L of features from disk."""

    def __post_init__(self) -> None:
        for name in ("classes", "feature_width", "num_snippets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")


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
        feature_width = assumed.feature_width
        one = Fidelity(num_snippets=assumed.num_snippets, frames=1, height=1, width=1)
        schedule = FidelitySchedule(fidelities=(one,))
        assumptions.append(f"features of {assumed.num_snippets} snippets x {feature_width}")
    return InputShape(
        classes=classes, feature_width=feature_width, schedule=schedule, assumptions=tuple(assumptions)
    )


def synthetic_batches(recipe: Recipe, shape: InputShape, *, fidelity: Fidelity) -> Iterator[WindowBatch]:
    """The same random batch for ever: every snippet valid, two segments a window (one for a single snippet)."""
    batch = synthetic_batch(
        fidelity,
        batch_size=recipe.train.batch_size,
        num_classes=len(shape.classes),
        feature_width=shape.feature_width,
    )
    if torch.cuda.is_available():
        batch = batch.pin_memory()
    while True:
        yield batch


def synthetic_batch(
    fidelity: Fidelity, *, batch_size: int, num_classes: int, feature_width: int | None
) -> WindowBatch:
    """frames (B, L, 3, T, H, W) uint8, or features (B, L, D) float32 where a feature width is given."""
    generator = torch.Generator().manual_seed(0)
    num_snippets = fidelity.num_snippets
    frames = features = None
    if feature_width is None:
        size = (batch_size, num_snippets, 3, fidelity.frames, fidelity.height, fidelity.width)
        frames = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    else:
        features = torch.randn(batch_size, num_snippets, feature_width, generator=generator)
    return WindowBatch(
        windows=tuple(
            Window(
                video=f"synthetic {index}",
                start_sec=0.0,
                end_sec=WINDOW_SEC,
                video_duration_sec=WINDOW_SEC,
            )
            for index in range(batch_size)
        ),
        targets=tuple(_targets(index, fidelity, num_classes=num_classes) for index in range(batch_size)),
        mask=torch.ones(batch_size, num_snippets, dtype=torch.bool),
        frames=frames,
        features=features,
    )


def _targets(index: int, fidelity: Fidelity, *, num_classes: int) -> Targets:
    count = SEGMENTS_PER_WINDOW if fidelity.num_snippets > 1 else 1
    edges = torch.linspace(0, fidelity.num_snippets, 2 * count + 1)
    starts = edges[0 : 2 * count : 2]
    return Targets(
        segments=torch.stack([starts, edges[1 : 2 * count : 2]], dim=1),
        labels=(torch.arange(count) + index) % num_classes,
    )
