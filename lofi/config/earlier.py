"""The recipe that a run directory keeps, read as this version of the package would write it.

A run directory holds its recipe whole, defaults included. Where a block has gained an option since, an older file lacks it
and meant what is now the default; compared as written, it would be another recipe.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from lofi.config.load import plain_to_yaml, read_yaml
from lofi.config.recipe import Choice, Recipe, recipe_to_plain


def written_recipe_text(path: Path, *, like: Recipe) -> str:
    """A recipe file as YAML, with what `like` has and the file does not say at its default, in the order of `like`.

    Blocks of another variant than `like`'s, and options that are no more, stay as they are written. "" where there is no file.
    """
    if not path.is_file():
        return ""
    written = read_yaml(path)
    defaults = {field.name: _default(field) for field in fields(Recipe)}
    whole: dict[str, Any] = {}
    for key in recipe_to_plain(like):
        block, now = written.pop(key, None), getattr(like, key)
        if block is None:
            block = defaults[key]
        if isinstance(block, Mapping) and isinstance(now, Choice):
            whole[key] = _filled(block, now.config) if block.get("name") == now.name else block
        elif isinstance(block, Mapping) and is_dataclass(now):
            whole[key] = _filled(block, now)
        elif block is not None:
            whole[key] = block
    return plain_to_yaml({**whole, **written})


def _filled(block: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """The block with the options of its dataclass, in that one's order."""
    options = {field.name: _default(field) for field in fields(config)}
    known = {key: block.get(key, default) for key, default in options.items()}
    name = {"name": block["name"]} if "name" in block else {}
    return {**name, **known, **{key: value for key, value in block.items() if key not in known}}


def _default(field: Field[Any]) -> Any:
    """As plain values; None where there is none."""
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {key: list(each) if isinstance(each, tuple) else each for key, each in value.items()}
    return None if value is MISSING else list(value) if isinstance(value, tuple) else value
