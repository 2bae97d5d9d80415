"""YAML and `key=value` overrides -> a checked `Recipe`. The only place that imports omegaconf.

Every problem becomes a `RecipeError` of one message that names the file and the key, says what is allowed, and comes
before any work.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lofi.config.objective_kinds import Parts
from lofi.config.objectives import OWN_PARTS
from lofi.config.recipe import (
    Choice,
    ExtractionRecipe,
    Recipe,
    check_extraction_recipe,
    check_recipe,
    recipe_to_plain,
)
from lofi.data.frame_windows import DataConfig
from lofi.data.grid import GridConfig
from lofi.encoders import ENCODERS, FORMER_ENCODERS
from lofi.engine.loop import TrainConfig
from lofi.engine.optimizers import OPTIMIZERS
from lofi.engine.schedules import SCHEDULES
from lofi.evaluation.mean_average_precision import EvaluationConfig
from lofi.extraction import ExtractionConfig
from lofi.fidelity import FidelityConfig
from lofi.gradients import GRADIENTS
from lofi.heads import HEADS
from lofi.heads.postprocess import PostprocessConfig
from lofi.memory.budget import MemoryConfig


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names file, key and what is allowed."""


BLOCKS = {
    "data": DataConfig,
    "grid": GridConfig,
    "fidelity": FidelityConfig,
    "train": TrainConfig,
    "memory": MemoryConfig,
    "postprocess": PostprocessConfig,
    "evaluation": EvaluationConfig,
    "extraction": ExtractionConfig,
}

FIXED_CHOICES: dict[str, dict[str, type]] = {
    "encoder": {name: config for name, (config, _) in ENCODERS.items()},
    "gradient": {name: config for name, (config, _) in GRADIENTS.items()},
    "head": {name: config for name, (config, _) in HEADS.items()},
    "optimizer": dict(OPTIMIZERS),
    "schedule": dict(SCHEDULES),
}

REQUIRED = ("data", "objective", "gradient", "optimizer", "schedule", "train")
PLAIN = ("seed", "output", "deepspeed")
TRAINING = (
    *PLAIN,
    *(key for key in BLOCKS if key != "extraction"),
    *FIXED_CHOICES,
    "objective",
    "adapter",
)


def load_recipe(path: str | Path, overrides: list[str] | None = None, *, parts: Parts = OWN_PARTS) -> Recipe:
    """Read a training recipe, apply `key=value` overrides and check it.

    Args:
        path: the YAML file.
        overrides: such as "train.epochs=3" or "encoder.weights=runs/tac"; "block=null" removes a block.
        parts: the objectives and adapters that it can name.

    Raises:
        RecipeError: naming file and key.
    """
    return build_recipe(read_with_overrides(Path(path), overrides), where=str(path), parts=parts)


def load_extraction_recipe(path: str | Path, overrides: list[str] | None = None) -> ExtractionRecipe:
    """The same for an extraction recipe: data, grid, fidelity, encoder, extraction, output."""
    where = str(path)
    plain = read_with_overrides(Path(path), overrides)
    allowed = ("data", "grid", "fidelity", "encoder", "extraction", "output")
    return _build(
        ExtractionRecipe,
        plain,
        allowed=allowed,
        required=("data", "fidelity", "encoder"),
        check=check_extraction_recipe,
        where=where,
    )


def build_recipe(plain: dict[str, Any], *, where: str, parts: Parts = OWN_PARTS) -> Recipe:
    """Nested plain values -> a checked `Recipe`; `where` begins every message."""
    return _build(
        Recipe,
        plain,
        allowed=TRAINING,
        required=REQUIRED,
        check=check_recipe,
        where=where,
        parts=parts,
    )


def is_extraction_recipe(path: str | Path) -> bool:
    """Whether a recipe extracts features (no objective) or trains."""
    return "objective" not in read_yaml(Path(path))


def read_with_overrides(path: Path, overrides: list[str] | None) -> dict[str, Any]:
    """A YAML mapping with `key=value` overrides, as plain values; `output` is runs/FILE where it says none."""
    raw = _read(path)
    for override in overrides or []:
        if "=" not in override or not override.split("=")[0].strip():
            raise RecipeError(f"{path}: override {override!r} is not of the form key=value.")
    try:
        merged = OmegaConf.merge(raw, OmegaConf.from_dotlist(list(overrides or [])))
        plain = OmegaConf.to_container(merged, resolve=False)
    except Exception as error:  # omegaconf's own, or YAML's where a value is no YAML
        raise RecipeError(f"{path}: overrides {_list(overrides or [])}: {_first_line(error)}") from error
    assert isinstance(plain, dict)
    named: dict[str, Any] = {str(key): value for key, value in plain.items()}
    if not named.get("output"):
        named["output"] = f"runs/{path.stem}"
    return named


def _build(
    recipe_class: Any,
    plain: dict[str, Any],
    *,
    allowed: tuple[str, ...],
    required: tuple[str, ...],
    check: Any,
    where: str,
    parts: Parts = OWN_PARTS,
) -> Any:
    _refuse_interpolation(plain, where=where)
    for key in plain:
        if key not in allowed:
            raise RecipeError(
                f"{where}: {key} is no block of this recipe{_nearest(key, allowed)}; allowed: {_list(allowed)}."
            )
    blocks: dict[str, Any] = {key: value for key, value in plain.items() if value is not None}
    for key in required:
        if key not in blocks:
            raise RecipeError(f"{where}: {key} is missing.")
    values: dict[str, Any] = {}
    for key, value in blocks.items():
        if key in BLOCKS:
            values[key] = _build_block(BLOCKS[key], value, key=key, where=where)
        elif key in FIXED_CHOICES:
            values[key] = _build_choice(key, value, variants=FIXED_CHOICES[key], where=where)
        elif key == "objective":
            kinds = {name: kind.config for name, kind in parts.objectives.items()}
            choice = _build_choice(key, value, variants=kinds, where=where)
            values[key] = replace(choice, maker=parts.objectives[choice.name])
        elif key == "adapter":
            configs = {name: config for name, (config, _) in parts.adapters.items()}
            choice = _build_choice(key, value, variants=configs, where=where)
            values[key] = replace(choice, maker=parts.adapters[choice.name][1])
        else:
            values[key] = _build_plain(key, value, where=where)
    try:
        recipe = recipe_class(**values)
        check(recipe)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error
    return recipe


def recipe_to_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML, defaults included."""
    return plain_to_yaml(recipe_to_plain(recipe))


def plain_to_yaml(plain: dict[str, Any]) -> str:
    """Nested plain values as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(plain))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping as plain values; RecipeError where it is none."""
    plain = OmegaConf.to_container(_read(path), resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def build_from_plain(config_class: type, plain: dict[str, Any], *, key: str, where: str) -> Any:
    """Plain values -> a config dataclass, with the same messages as a recipe's blocks."""
    return _build_block(config_class, plain, key=key, where=where)


def _read(path: Path) -> DictConfig:
    if not path.is_file():
        near = sorted(path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        listed = f"; there: {_list([each.name for each in near])}" if near else ""
        raise RecipeError(f"{path}: no such recipe{listed}.")
    try:
        raw = OmegaConf.load(path)
    except Exception as error:
        raise RecipeError(f"{path}: not YAML ({' '.join(str(error).split())}).") from error
    if isinstance(raw, ListConfig) or not len(raw):
        raise RecipeError(
            f"{path}: a recipe is a mapping of blocks, this is {'a list' if len(raw) else 'empty'}."
        )
    return raw


def _build_choice(key: str, value: Any, *, variants: dict[str, type], where: str) -> Choice:
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict) or "name" not in value:
        raise RecipeError(f"{where}: {key}.name is missing; allowed: {_list(variants)}.")
    name = value["name"]
    if key == "encoder" and str(name) in FORMER_ENCODERS:
        raise RecipeError(f"{where}: encoder.name: {name} is now {FORMER_ENCODERS[name]}.")
    if not isinstance(name, str) or name not in variants:
        raise RecipeError(
            f"{where}: {key}.name is {name!r}{_nearest(str(name), variants)}; allowed: {_list(variants)}."
        )
    fields = variants[name].__dataclass_fields__  # type: ignore[attr-defined]
    # "gradient.share=null" takes away an option that the file set for another variant.
    rest = {
        option: each
        for option, each in value.items()
        if option != "name" and (each is not None or option in fields)
    }
    _explain_other_variants(key, name, rest, variants=variants, where=where)
    return Choice(name=name, config=_build_block(variants[name], rest, key=key, where=where))


def _explain_other_variants(
    key: str, name: str, options: dict[str, Any], *, variants: dict[str, type], where: str
) -> None:
    """A key of another variant is said to be one, before omegaconf calls it unknown."""
    for option in options:
        if option in variants[name].__dataclass_fields__:  # type: ignore[attr-defined]
            continue
        owners = [other for other, config in variants.items() if option in config.__dataclass_fields__]  # type: ignore[attr-defined]
        if owners:
            raise RecipeError(
                f"{where}: {key}.{option} is an option of {key}.name: {_list(owners)}, and has no effect with {name}."
            )


def _build_block(config_class: type, value: Any, *, key: str, where: str) -> Any:
    fields = list(config_class.__dataclass_fields__)  # type: ignore[attr-defined]
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: {key} is {value!r}; it must be a mapping of {_list(fields)}.")
    for option in value:
        if option not in fields:
            raise RecipeError(
                f"{where}: {key}.{option} is not an option{_nearest(str(option), fields)}; allowed: {_list(fields)}."
            )
        _check_list(option, value[option], config_class=config_class, key=key, where=where)
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config_class), value))
    except OmegaConfBaseException as error:
        option = f"{key}.{error.full_key}" if error.full_key else key
        raise RecipeError(f"{where}: {option}: {_first_line(error)}") from error
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{where}: {_first_line(error)}") from error


def _check_list(option: str, value: Any, *, config_class: type, key: str, where: str) -> None:
    """Say what is no list, or no list of lists, where omegaconf would not name the option."""
    field = config_class.__dataclass_fields__[option]  # type: ignore[attr-defined]
    kind = str(field.type)
    if value is None or not kind.startswith("list["):
        return
    is_nested = "list[list[" in kind
    if not isinstance(value, list) or (is_nested and not all(isinstance(each, list) for each in value)):
        of_each = f" of {field.metadata.get('each', 'lists')}" if is_nested else ""
        raise RecipeError(f"{where}: {key}.{option} is {value!r}; it must be a list{of_each}.")


def _build_plain(key: str, value: Any, *, where: str) -> Any:
    kinds: dict[str, type] = {"seed": int, "output": str, "deepspeed": dict}
    if not isinstance(value, kinds[key]) or isinstance(value, bool):
        raise RecipeError(f"{where}: {key} is {value!r}; it must be of type {kinds[key].__name__}.")
    if isinstance(value, int) and value < 0:
        raise RecipeError(f"{where}: seed is {value}; it must not be negative.")
    return value


def _refuse_interpolation(value: Any, *, where: str, key: str = "") -> None:
    if isinstance(value, dict):
        for name, each in value.items():
            _refuse_interpolation(each, where=where, key=f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for each in value:
            _refuse_interpolation(each, where=where, key=key)
    elif isinstance(value, str) and "${" in value:
        raise RecipeError(
            f"{where}: {key} is {value!r}; a recipe is whole, without interpolation: write the value."
        )


def _nearest(word: str, allowed: Any) -> str:
    import difflib

    near = difflib.get_close_matches(word, list(allowed), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _list(names: Any) -> str:
    return ", ".join(str(name) for name in names)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") + "."
