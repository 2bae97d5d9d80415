"""A recipe's place on the three axes, in words: how the rows of memory tables are named and ordered."""

from lofi.config.recipe import Recipe
from lofi.fidelity import FidelityConfig

FIDELITY_NAMES = {"space": "LoFi S", "time": "LoFi T", "space_time": "LoFi ST"}


def method_name(recipe: Recipe) -> str:
    """Such as "full end-to-end", "LoFi S, checkpointed", "chunked exact", "frozen features", "TAC"."""
    path = recipe.gradient.name
    if recipe.objective.name == "similarity_matching":
        return "SoLa, adapter"
    if recipe.objective.name != "tal":
        name = recipe.objective.name.upper()
        return name if path == "joint" else f"{name}, {path}"
    if recipe.adapter is not None:
        return "SoLa, head"
    if recipe.reads_features:
        return "frozen features"
    if path == "detached":
        return "frozen encoder"
    assert recipe.fidelity is not None
    reduced = _reduction_name(recipe.fidelity)
    if reduced is not None:
        return reduced if path == "joint" else f"{reduced}, {path}"
    named = {"joint": "full end-to-end", "chunked": "chunked exact", "sampled": "sampled gradient"}
    return named.get(path, f"full, {path}")


def _reduction_name(fidelity: FidelityConfig) -> str | None:
    """None for full fidelity."""
    if fidelity.reduction == "none":
        return None
    if fidelity.reduction == "cyclic":
        return f"LoFi cyclic, {fidelity.cycle}"
    return FIDELITY_NAMES[fidelity.reduction]
