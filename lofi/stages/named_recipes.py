"""Several recipe files of one command, each with the name of its row."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lofi.config.load import load_recipe
from lofi.config.objective_kinds import Parts
from lofi.config.objectives import OWN_PARTS
from lofi.config.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class NamedRecipe:
    """A recipe and the name of its row."""

    name: str
    recipe: Recipe


def load_recipes(
    paths: Sequence[str], overrides: Sequence[str], *, parts: Parts = OWN_PARTS
) -> list[NamedRecipe]:
    """Read every recipe with the same overrides; files of one name are told apart by their folder. Raises RecipeError."""
    stems = [Path(path).stem for path in paths]
    names = [
        stem if stems.count(stem) == 1 else f"{Path(path).parent.name}/{stem}"
        for stem, path in zip(stems, paths, strict=True)
    ]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} is given more than once; each recipe may stand there once.")
    return [
        NamedRecipe(name=name, recipe=load_recipe(path, list(overrides), parts=parts))
        for name, path in zip(names, paths, strict=True)
    ]
