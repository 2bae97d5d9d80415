"""The training losses of a comparison's runs, read from their metrics.jsonl and thinned for a small plot."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lofi.report.comparison import StageSummary

MAX_POINTS = 120


@dataclass(frozen=True, kw_only=True)
class LossCurves:
    """One stage's losses, one curve per run. steps and losses of each curve: (N,), N at most `MAX_POINTS`."""

    title: str
    curves: tuple[tuple[np.ndarray, np.ndarray], ...]


def read_loss_curves(folder: Path, stages: Sequence[StageSummary]) -> list[LossCurves]:
    """Curves of the stages that left a log; stages without one are left out."""
    found = []
    for stage in stages:
        curves = tuple(
            curve for run in stage.runs if (curve := _read_curve(folder / run / "metrics.jsonl")) is not None
        )
        if curves:
            owner = "shared" if stage.method is None else stage.method
            found.append(LossCurves(title=f"{owner}: {stage.name}", curves=curves))
    return found


def thin(steps: np.ndarray, values: np.ndarray, *, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Average neighbours, so that at most `most` points are left. steps, values: (N,)."""
    if len(steps) <= most:
        return steps, values
    edges = np.linspace(0, len(steps), most + 1).astype(int)
    sizes = np.diff(edges)
    return np.add.reduceat(steps, edges[:-1]) / sizes, np.add.reduceat(values, edges[:-1]) / sizes


def _read_curve(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    if not path.is_file():
        return None
    # A run that was killed may have left half a line at the end.
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]
    points = [(entry["step"], entry["loss"]) for entry in map(json.loads, lines) if "loss" in entry]
    finite = [(step, loss) for step, loss in points if math.isfinite(loss)]
    if len(finite) < 2:
        return None
    steps, losses = np.array(finite, dtype=np.float64).T
    return thin(steps, losses, most=MAX_POINTS)
