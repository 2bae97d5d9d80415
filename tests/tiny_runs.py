"""Any recipe of configs/synthetic, made so small that a run takes a second or two.

The recipes are the real files; only sizes, counts and paths are overridden.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SYNTHETIC = ROOT / "configs" / "synthetic"

SIDE = 20
"""Pixels: half of it, LoFi's S, is still one that the tiny encoder takes."""
NUM_SNIPPETS = 8
FRAMES = 4
BATCH_SIZE = 2
CHANNELS = (5, 6, 7)
TRIMMED = ("tac", "bsp")
"""Objectives that are trained on the trimmed videos."""
_TINY_PYRAMID = {"embed_width": 8, "levels": 2, "head_layers": 2, "window": 3}
_TINY_MAPS = {"width": 8, "aligned_width": 10, "map_width": 6, "embed_groups": 1, "bins": 4}
TINY_HEADS = {
    "actionformer": _TINY_PYRAMID,
    "tridet": {**_TINY_PYRAMID, "perceptron_width": 12, "norm_groups": 2, "bins": 3},
    "gtad": {**_TINY_MAPS, "groups": 2},
    "bmn": _TINY_MAPS,
}
"""Options of each head, small."""
EPOCHS = {"lofi_cyclic_tiny_actionformer": 3, "lofi_cyclic_tiny_gtad": 3}
"""Where not 2: one for each fidelity of the cycle."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A synthetic benchmark of 6 + 5 untrimmed and 10 + 2 trimmed videos, and folders beside it."""

    data: Path
    frames: Path

    @property
    def annotations(self) -> Path:
        return self.data / "untrimmed" / "annotations.json"

    @property
    def videos(self) -> Path:
        return self.data / "untrimmed" / "videos"


def make_benchmark(folder: Path) -> Benchmark:
    from lofi.data.synthetic import SyntheticConfig, write_benchmark

    config = SyntheticConfig(
        videos=6, trimmed_videos=10, classes=2, size=SIDE, fps=8.0, duration_sec=4.0, clip_sec=0.75
    )
    write_benchmark(config, folder / "data")
    return Benchmark(data=folder / "data", frames=folder / "frames")


def recipe_file(name: str) -> Path:
    return SYNTHETIC / f"{name}.yaml"


def tiny_overrides(name: str, benchmark: Benchmark, output: Path, **changes: object) -> list[str]:
    """Overrides for one recipe of configs/synthetic, by its file name; `changes` are more, "train__epochs" for dots."""
    plain = yaml.safe_load(recipe_file(name).read_text())
    objective = plain.get("objective", "")
    objective = objective if isinstance(objective, str) else objective["name"]
    part = "trimmed" if objective in TRIMMED else "untrimmed"
    values: dict[str, object] = {
        "output": output,
        "data.annotations": benchmark.data / part / "annotations.json",
    }
    if "videos" in plain["data"]:
        values |= {"data.videos": benchmark.data / part / "videos", "data.frame_cache": benchmark.frames}
        if "frame_cache" not in plain["data"]:
            del values["data.frame_cache"]
        values |= {"fidelity.frames": FRAMES, "fidelity.height": SIDE, "fidelity.width": SIDE}
        values["encoder.channels"] = list(CHANNELS)
    if "fidelity" in plain and plain["fidelity"]["num_snippets"] > 1 and objective != "bsp":
        values["fidelity.num_snippets"] = NUM_SNIPPETS
    if plain.get("fidelity", {}).get("cycle") == "short":
        values["fidelity.cycle_every"] = 2
    if "chunk_size" in (plain.get("gradient") if isinstance(plain.get("gradient"), dict) else {}):
        values["gradient.chunk_size"] = 3
    if "head" in plain:
        values |= {f"head.{key}": value for key, value in TINY_HEADS[plain["head"]["name"]].items()}
    if "adapter" in plain:
        values["adapter.hidden_width"] = 6
    if name == "sola_tiny":
        values |= {"objective.window": 6, "objective.positions": 3, "objective.margin": 1}
        values |= {"objective.step": 2, "objective.predictor_width": 5}
    if "train" in plain:
        values |= {"train.epochs": EPOCHS.get(name, 2), "train.batch_size": BATCH_SIZE}
        values["train.checkpoint_every_epochs"] = 1
    if part == "trimmed":
        values |= {"data.clips_per_segment": 1, "train.batch_size": 5}
    if objective in ("tsp", "bsp", "pal"):
        values["objective.validate_every_epochs"] = 1
    if objective == "tsp":
        values["objective.global_features"] = None
    if objective == "pal":
        values |= {"train.batch_size": 3, "objective.queue": 20}
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    return [f"{key}={_written(value)}" for key, value in values.items()]


def read_steps(run: Path) -> list[dict]:
    """The lines of metrics.jsonl, without one that is being written."""
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def child_environment(**more: str) -> dict[str, str]:
    """For a process that a test starts: the program importable, one thread."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    kept = {key: value for key, value in os.environ.items() if key not in _RANK_KEYS}
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


_RANK_KEYS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a run in this process leaves in its environment, and another process must not find."""


def _written(value: object) -> str:
    return "null" if value is None else json.dumps(value) if isinstance(value, list | dict) else str(value)
