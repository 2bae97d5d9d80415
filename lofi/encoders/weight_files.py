"""Which file a path of a recipe means: a file of weights, a checkpoint, or a run directory."""

import json
import re
from pathlib import Path

WEIGHTS_FILE = "weights.safetensors"
BEST_FILE = "best.json"
TORCHVISION_PREFIX = "torchvision:"


def find_weights(source: str | Path) -> Path:
    """The file that a path stands for: itself, a checkpoint's weights, or those of a run's newest checkpoint (its best one,
    where the run's recipe says `evaluation.weights: best`)."""
    path = Path(source)
    if path.is_file():
        return path
    if not path.exists():
        raise ValueError(
            f"encoder.weights: {path} does not exist; it must be a file, a run directory or {TORCHVISION_PREFIX}NAME."
        )
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    best = _best_checkpoint(path / "checkpoints")
    if best is not None:
        return best / WEIGHTS_FILE
    steps = [
        (int(match.group(1)), folder / WEIGHTS_FILE)
        for folder in (path / "checkpoints").glob("step_*")
        if (match := re.fullmatch(r"step_(\d+)", folder.name)) and (folder / WEIGHTS_FILE).is_file()
    ]
    if not steps:
        raise ValueError(
            f"encoder.weights: the directory {path} has no {WEIGHTS_FILE}, neither directly nor in "
            f"checkpoints/step_*/; has its run saved a checkpoint?"
        )
    return max(steps)[1]


def _best_checkpoint(checkpoints: Path) -> Path | None:
    """The checkpoint that best.json names, where the run hands on its best and not its newest."""
    file = checkpoints / BEST_FILE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text())
        best = checkpoints / content["checkpoint"]
        is_handed_on = content["weights"] == "best"
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"encoder.weights: {file} cannot be read ({error}); name a checkpoint beside it."
        ) from error
    if not is_handed_on:
        return None
    if not (best / WEIGHTS_FILE).is_file():
        raise ValueError(
            f"encoder.weights: {file} names {best.name}, which has no {WEIGHTS_FILE}; name another checkpoint."
        )
    return best
