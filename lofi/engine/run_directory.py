"""The run directory: everything that a run leaves behind.

    recipe.yaml  environment.json  metrics.jsonl  tensorboard/  memory.json  checkpoints/  summary.json
    predictions.json  results.json          (where the objective is localization)
    validation.jsonl  checkpoints/best.json (where it is validated while training)

`summary.json` is written last: its presence says that the run is finished.
"""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lofi.files import write_json, write_text

RECORDED_PACKAGES = ("lofi-sola", "torch", "torchvision", "deepspeed", "decord", "timm", "numpy")


@dataclass(frozen=True, kw_only=True)
class RunDirectory:
    """Paths of one run."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def validation(self) -> Path:
        return self.path / "validation.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def memory(self) -> Path:
        return self.path / "memory.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.json"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def is_finished(self) -> bool:
        return self.summary.is_file()


def check_run_directory(run: RunDirectory, *, recipe_text: str, written_text: str, resume: bool) -> None:
    """Raise ValueError where the directory belongs to another recipe, or holds a run that was not asked to go on.

    Args:
        run: its directory need not exist.
        recipe_text: the recipe that wants it, as YAML.
        written_text: the recipe that the directory keeps, as this version would write it (`config.earlier`).
        resume: go on with a run that is there.
    """
    if not run.path.exists() or not any(run.path.iterdir()):
        return
    if not run.recipe.is_file():
        raise ValueError(
            f"output {run.path} is not empty and holds no {run.recipe.name}; choose another output."
        )
    before, now = written_text.splitlines(), recipe_text.splitlines()
    if before != now:
        gone = [line.strip() for line in before if line not in now]
        new = [line.strip() for line in now if line not in before]
        raise ValueError(
            f"output {run.path} belongs to another recipe (it says {gone or 'nothing more'}, this one says "
            f"{new or 'nothing more'}); choose another output=..., or --restart to delete that run."
        )
    if not resume:
        state = "is finished" if run.is_finished else "was interrupted"
        raise ValueError(
            f"output {run.path} holds a run of this recipe that {state}; --resume goes on, --restart begins again."
        )


def open_run_directory(path: Path, *, recipe_text: str, restart: bool) -> RunDirectory:
    """Make the directory and write recipe and environment. Main rank only."""
    run = RunDirectory(path=path)
    if restart and path.exists():
        if not run.recipe.is_file():
            raise ValueError(f"output {path} is no run directory (no {run.recipe.name}); not deleted.")
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    if not run.recipe.is_file():
        write_text(run.recipe, recipe_text)
        write_json(run.environment, environment())
    return run


def environment() -> dict[str, Any]:
    """Versions, device and machine, as every report carries them."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "packages": package_versions(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "device_count": torch.cuda.device_count() if cuda else os.cpu_count(),
        "cuda": torch.version.cuda if cuda else None,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}",
        "command": sys.argv,
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    return {name: _version(name) for name in RECORDED_PACKAGES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed as a distribution"
