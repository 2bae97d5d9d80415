"""Which file a path of a recipe means: a file of weights, a checkpoint, or a run directory."""

import re
from pathlib import Path

from lofi.run_files import BEST_FILE, WEIGHTS_FILE, read_best_file

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
    try:
        best = read_best_file(checkpoints)
    except ValueError as error:
        raise ValueError(f"encoder.weights: {error}") from error
    if best is None or not best.is_handed_on:
        return None
    if not (best.checkpoint / WEIGHTS_FILE).is_file():
        raise ValueError(
            f"encoder.weights: {checkpoints / BEST_FILE} names {best.checkpoint.name}, which has no {WEIGHTS_FILE}; name "
            "another checkpoint."
        )
    return best.checkpoint
