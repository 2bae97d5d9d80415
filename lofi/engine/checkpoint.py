"""Checkpoints: written whole or not at all, checked before they are read, with a plain export beside them.

    checkpoints/step_000120/
        deepspeed/...            DeepSpeed's own files: weights, optimizer states, schedule
        rank_0.pt, rank_1.pt     each rank's random generators and buffers
        weights.safetensors      all weights under plain names ("encoder.*", "head.*"), for anything else to read
        manifest.json            where the run stood, and size and CRC of every file above

A checkpoint is written under a hidden name and renamed when every rank is done; a folder named `step_*` is therefore
complete, and the manifest shows whether it still is.
"""

import json
import os
import shutil
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from lofi.engine import deepspeed_engine
from lofi.engine.earlier_checkpoints import check_fits
from lofi.engine.ema import WeightAverage
from lofi.run_files import WEIGHTS_FILE

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run stands: counts of finished epochs, of batches in the current one, and of steps in all."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint after so many steps."""
    return f"step_{step:06d}"


def save_checkpoint(
    engine: Any,
    folder: Path,
    *,
    position: Position,
    keep: int,
    metadata: dict[str, str],
    spared: Path | None = None,
    average: WeightAverage | None = None,
) -> Path:
    """Write `folder/step_N`, and drop later ones and all but the newest `keep` up to it. Collective.

    Args:
        engine: from `deepspeed_engine.build_engine`.
        folder: the run's `checkpoints/`.
        position: where the run stands.
        keep: how many checkpoints stay.
        metadata: plain strings for the header of weights.safetensors.
        spared: an older checkpoint that stays all the same: the best one.
        average: where it is given, weights.safetensors holds its means.

    Returns:
        The finished checkpoint.
    """
    rank = dist.get_rank()
    final = folder / checkpoint_name(position.step)
    partial = folder / f".{final.name}.partial"
    if rank == 0:
        for left_over in folder.glob(".step_*.partial"):
            shutil.rmtree(left_over)
        partial.mkdir(parents=True)
    deepspeed_engine.wait_for_ranks()
    deepspeed_engine.save_engine(engine, partial, asdict(position))
    torch.save(_rank_state(engine.module), partial / f"rank_{rank}.pt")
    with nullcontext() if average is None else average.in_place():
        weights = deepspeed_engine.full_state_dict(engine)
    if rank == 0:
        save_file(weights, partial / WEIGHTS_FILE, metadata=metadata)
    deepspeed_engine.wait_for_ranks()
    if rank == 0:
        files = {str(path.relative_to(partial)): _fingerprint(path) for path in _files_below(partial)}
        manifest = {"position": asdict(position), "world_size": dist.get_world_size(), "files": files}
        (partial / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        steps = list_checkpoints(folder)
        after = steps.index(final) + 1
        older = [each for each in steps[: max(0, after - keep)] if each != spared]
        for old in [*older, *steps[after:]]:  # later ones were passed over at the start
            shutil.rmtree(old)
    deepspeed_engine.wait_for_ranks()
    return final


def load_checkpoint(engine: Any, checkpoint: Path, *, average: WeightAverage | None = None) -> Position:
    """Restore engine, generators and position, and the running mean of the weights where there is one. Collective; the
    checkpoint must be whole (`newest_whole`). ValueError where an older version wrote it and it does not fit."""
    rank_state = torch.load(checkpoint / f"rank_{dist.get_rank()}.pt", weights_only=True)
    check_fits(engine, checkpoint, buffers=rank_state["buffers"])
    client_state = deepspeed_engine.load_engine(engine, checkpoint)
    if average is not None:
        average.load(checkpoint / WEIGHTS_FILE)
    buffers = dict(engine.module.named_buffers())
    for name, value in rank_state["buffers"].items():
        buffers[name].copy_(value)
    torch.set_rng_state(rank_state["cpu_generator"])
    if torch.cuda.is_available() and rank_state["cuda_generator"] is not None:
        torch.cuda.set_rng_state(rank_state["cuda_generator"])
    return Position(**{key: client_state[key] for key in ("epoch", "batch", "step")})


def list_checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    return sorted(folder.glob("step_[0-9]*"), key=lambda path: int(path.name.removeprefix("step_")))


def is_whole(checkpoint: Path, *, world_size: int) -> tuple[bool, str]:
    """Whether every file is as it was written, and if not, why. A checkpoint of another number of ranks is an error."""
    files, written_by = _read_manifest(checkpoint)
    if not files:
        return False, f"{MANIFEST_FILE} cannot be read"
    for name, expected in files.items():
        path = checkpoint / name
        if not path.is_file():
            return False, f"{name} is missing"
        if _fingerprint(path) != expected:
            return False, f"{name} is not what was written (size or checksum differ)"
    if written_by != world_size:
        raise ValueError(
            f"checkpoint {checkpoint} was written by {written_by} ranks and cannot be resumed by {world_size}; start "
            f"{written_by} ranks, or start a new run from its {WEIGHTS_FILE}."
        )
    return True, ""


def newest_whole(folder: Path, *, world_size: int, device: torch.device) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that every rank finds whole, and a line for each newer one that was passed over. Collective."""
    passed_over: list[str] = []
    for checkpoint in reversed(list_checkpoints(folder)):
        whole, reason = is_whole(checkpoint, world_size=world_size)
        if deepspeed_engine.all_ranks_agree(whole, device):
            return checkpoint, passed_over
        passed_over.append(f"{checkpoint}: {reason or 'another rank finds it damaged'}")
    return None, passed_over


def _read_manifest(checkpoint: Path) -> tuple[dict[str, list[int]], int]:
    """Name -> size and CRC of each file, and the number of ranks; no file where the manifest cannot be read."""
    try:
        manifest = json.loads((checkpoint / MANIFEST_FILE).read_text())
        return dict(manifest["files"]), int(manifest["world_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, 0


def _rank_state(module: torch.nn.Module) -> dict[str, Any]:
    return {
        "cpu_generator": torch.get_rng_state(),
        "cuda_generator": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "buffers": {name: buffer.detach().cpu().clone() for name, buffer in module.named_buffers()},
    }


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _fingerprint(path: Path) -> list[int]:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return [path.stat().st_size, crc]


def whole_weights(checkpoint: Path) -> Path | None:
    """A checkpoint's weights.safetensors; None where it is not as it was written."""
    weights = checkpoint / WEIGHTS_FILE
    files, _ = _read_manifest(checkpoint)
    return weights if weights.is_file() and files.get(WEIGHTS_FILE) == _fingerprint(weights) else None


def newest_weights(folder: Path) -> Path:
    """weights.safetensors of the newest checkpoint in a run's `checkpoints/` in which that file is as it was written."""
    checkpoints = list_checkpoints(folder)
    for checkpoint in reversed(checkpoints):
        weights = whole_weights(checkpoint)
        if weights is not None:
            return weights
    raise ValueError(
        f"{folder} holds {len(checkpoints)} checkpoints and none with a whole {WEIGHTS_FILE}; train the recipe first."
    )


def read_classes(weights: Path) -> tuple[str, ...] | None:
    """The classes that weights were trained for, in order; None where their file does not say."""
    try:
        with safe_open(weights, framework="pt") as file:
            trained_for = json.loads((file.metadata() or {}).get("classes", "null"))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{weights} cannot be read ({error}).") from error
    return None if trained_for is None else tuple(trained_for)


def check_classes(weights: Path, classes: Sequence[str]) -> None:
    """Raise ValueError where weights were trained for other classes, or for the same ones in another order."""
    trained_for = read_classes(weights)
    if trained_for is not None and trained_for != tuple(classes):
        raise ValueError(
            f"{weights} was trained for the classes {', '.join(trained_for)}; data.annotations now has "
            f"{', '.join(classes)}. Use the annotations it was trained with, or train again."
        )


def load_weights(module: torch.nn.Module, weights: Path) -> None:
    """Load a plain export into the module that it was made from; ValueError where it does not fit or cannot be read."""
    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{weights} cannot be read ({error}).") from error
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit this recipe's modules: {error}") from error
