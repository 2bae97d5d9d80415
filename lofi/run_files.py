"""What a run leaves in its `checkpoints/`, for the rooms that read it: encoders, which start from a run, and the engine.

    checkpoints/step_000120/weights.safetensors    all weights under plain names ("encoder.*", "head.*")
    checkpoints/best.json                          where the run was validated while it trained: the best of them

The files are written by `lofi.engine`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

WEIGHTS_FILE = "weights.safetensors"
BEST_FILE = "best.json"


@dataclass(frozen=True, kw_only=True)
class Best:
    """What best.json says."""

    checkpoint: Path
    """The best checkpoint; whether it is still there is not looked at."""
    is_handed_on: bool
    """Whether the run hands on this one, as its recipe says (`evaluation.weights: best`), and not its newest."""


def read_best_file(checkpoints: Path) -> Best | None:
    """The best checkpoint of a run's `checkpoints/`; None where nothing was validated. Raises ValueError."""
    file = checkpoints / BEST_FILE
    try:
        content = json.loads(file.read_text())
        return Best(
            checkpoint=checkpoints / str(content["checkpoint"]), is_handed_on=content["weights"] == "best"
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}); name a checkpoint beside it, or let --resume of the run write it anew."
        ) from error
