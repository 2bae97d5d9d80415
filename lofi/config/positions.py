"""Encoders with several features per snippet: what these ask of the other blocks of a recipe."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lofi.data.grid import GridConfig
from lofi.extraction import extraction_grid
from lofi.fidelity import Fidelity, build_schedule

if TYPE_CHECKING:
    from lofi.config.recipe import Choice, ExtractionRecipe, Recipe


def check_positions(recipe: "Recipe") -> None:
    """Several features per snippet are for a head, and are evenly spaced in time. Raises ValueError that names the key."""
    if recipe.encoder is None or _is_one(recipe.encoder):
        return
    assert recipe.fidelity is not None
    key = f"encoder.feature: {recipe.encoder.config.feature}"
    if recipe.objective.name != "tal":
        raise ValueError(
            f"{key} is refused with objective: {recipe.objective.name}, which takes one vector per snippet; set encoder.feature: "
            "snippet (the weights are the same for both)."
        )
    if recipe.data.snippet_jitter > 0:
        raise ValueError(
            f"data.snippet_jitter is refused with {key}: it moves the features of a snippet together, so that they would no longer "
            "be evenly spaced in time; remove it."
        )
    _check_touching(
        recipe.encoder,
        recipe.grid,
        fidelities=(recipe.fidelity.full, *build_schedule(recipe.fidelity).fidelities),
    )


def check_extracted_positions(recipe: "ExtractionRecipe") -> None:
    """The same of an extraction, at the stride that is asked for."""
    if _is_one(recipe.encoder):
        return
    full = recipe.fidelity.full
    grid = extraction_grid(recipe.grid, num_snippets=full.num_snippets, config=recipe.extraction)
    _check_touching(recipe.encoder, grid, fidelities=[full])


def _is_one(encoder: "Choice") -> bool:
    return getattr(encoder.config, "feature", "snippet") == "snippet"


def _check_touching(encoder: "Choice", grid: GridConfig, *, fidelities: Iterable[Fidelity]) -> None:
    """The parts of a window's snippets are evenly spaced only where its snippets leave no gap and do not overlap."""
    if grid.spread_frames:
        return
    for fidelity in fidelities:
        if grid.window_sec is None or grid.frame_rate is None:
            where = f"grid.mode: {grid.mode} and grid.frame_rate: {grid.frame_rate or 'null'}"
            so = "leave gaps or overlap, other ones in each video"
        else:
            cell_sec, snippet_sec = (
                grid.window_sec / fidelity.num_snippets,
                fidelity.frames / grid.frame_rate,
            )
            if math.isclose(cell_sec, snippet_sec, rel_tol=1e-6):
                continue
            where = f"fidelity {fidelity}, one every {cell_sec:g} s"
            so = f"are {snippet_sec:g} s long (fidelity.frames / grid.frame_rate)"
        raise ValueError(
            f"encoder.feature: {encoder.config.feature} needs snippets that touch, so that their features are evenly spaced in "
            f"time; with {where}, they {so}. Set grid.spread_frames: true (frames are spread evenly over each snippet's share of "
            "the window), or mode: sliding with window_sec = fidelity.num_snippets * fidelity.frames / frame_rate."
        )
