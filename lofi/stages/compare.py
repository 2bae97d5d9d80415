"""Compare: whole pipelines of several methods (`chains`), over several seeds -> one report."""

import gc
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lofi.config.objective_kinds import Parts
from lofi.config.objectives import OWN_PARTS
from lofi.config.recipe import ExtractionRecipe
from lofi.data.decode import DecodeError
from lofi.data.synthetic import benchmark_paths, write_benchmark
from lofi.engine import deepspeed_engine
from lofi.engine.loop import NonFiniteError
from lofi.engine.run_directory import RunDirectory, environment
from lofi.files import write_json
from lofi.memory.limits import available_bytes, is_out_of_memory
from lofi.progress import is_main_rank, say
from lofi.report.page import write_report
from lofi.report.tables import print_table
from lofi.report.units import bytes_text
from lofi.stages.chains import SHARE_FOLDER, SWEEP_FOLDER, Comparison, Stage, chain_stages, shared_stages
from lofi.stages.extract import run_extraction
from lofi.stages.probe import probe_chain
from lofi.stages.train import run_training

POLL_SEC = 0.5
"""How often a rank looks whether the main rank has written the benchmark."""


def run_comparison(comparison: Comparison, *, restart: bool = False, parts: Parts = OWN_PARTS) -> int:
    """Make the benchmark, run every chain over every seed, write the report and print its table. Collective.

    On one rank a chain that fails becomes a row with its reason, and the others go on. On several, the error may be that
    of one rank alone while the others wait for it, so it is raised and ends them all; started again, the comparison goes on
    from what is finished.

    Returns:
        0, or 1 where a chain failed.
    """
    prepare_comparison(comparison, restart=restart)
    finished = run_chains(comparison, parts=parts)
    if is_main_rank():
        report_chains(finished)
    return finished.code


@dataclass(frozen=True, kw_only=True)
class FinishedChains:
    """A comparison that was run, and not yet reported."""

    comparison: Comparison
    folder: Path
    """Of its report."""
    rows: list[dict[str, Any]]
    stages: list[list[Stage]]
    """Of each row's chain; none where it failed."""

    @property
    def code(self) -> int:
        """0, or 1 where a chain failed."""
        return 1 if any("error" in row for row in self.rows) else 0


def run_chains(
    comparison: Comparison, *, report_folder: Path | None = None, parts: Parts = OWN_PARTS
) -> FinishedChains:
    """Run the chains of a prepared comparison. Its report is to lie in its output, or in `report_folder`. Collective."""
    is_single = not (comparison.scene_correlations or comparison.labelled_shares)
    assert is_single, "one comparison per value: lofi.stages.sweep"
    folder = Path(comparison.output) if report_folder is None else report_folder
    if comparison.threads is not None:
        torch.set_num_threads(comparison.threads)
    ranks = deepspeed_engine.start_ranks()
    deepspeed_engine.wait_for_ranks()
    rows = []
    finished: list[list[Stage]] = []
    done = 0
    total = len(comparison.seeds) * len(comparison.methods)
    for seed in comparison.seeds:
        for method in comparison.methods:
            done += 1
            say(f"\n[{done}/{total}] {method}, seed {seed}")
            row, stages = _run_chain(
                comparison, method, seed=seed, folder=folder, world_size=ranks.world_size, parts=parts
            )
            rows.append(row)
            finished.append(stages)
    deepspeed_engine.wait_for_ranks()
    return FinishedChains(comparison=comparison, folder=folder, rows=rows, stages=finished)


def report_chains(finished: FinishedChains) -> None:
    """Probe where the comparison says so, write the report and print its table. Main rank only, after everything that the
    ranks do together: probes may take longer than the others would wait."""
    rows = finished.rows
    if finished.comparison.probe:
        rows = [
            row | probe_chain(stages, seed=row["seed"]) if stages else row
            for row, stages in zip(rows, finished.stages, strict=True)
        ]
    _write_report(finished.comparison, rows, folder=finished.folder)


def prepare_comparison(comparison: Comparison, *, restart: bool) -> None:
    """Make output folder and benchmark on the main rank; the others return once the benchmark is whole.

    Before the ranks are joined, because both joining them and a barrier give up after DeepSpeed's time limit (10 minutes),
    and a large benchmark takes longer. An error of the main rank ends the others through the launcher.
    """
    output = Path(comparison.output)
    if not is_main_rank():
        if comparison.data_output is not None:
            paths = benchmark_paths(comparison.data_output)
            while not (paths.trimmed_annotations.exists() and paths.untrimmed_annotations.exists()):
                time.sleep(POLL_SEC)
        return
    if restart and output.exists():
        check_is_comparison(output)
        _delete_runs(output)
    output.mkdir(parents=True, exist_ok=True)
    if comparison.synthetic is not None:
        assert comparison.data_output is not None
        write_benchmark(comparison.synthetic, comparison.data_output)


def check_is_comparison(output: Path) -> None:
    """Raise ValueError for a folder that no comparison has written, before it is deleted."""
    if not (output / "report.json").is_file() and not all(
        path.name.startswith(("seed_", SHARE_FOLDER, "sweep.")) for path in output.iterdir()
    ):
        raise ValueError(
            f"output {output} is no output of a comparison (no report.json); not deleted. Choose another output."
        )


def _delete_runs(output: Path) -> None:
    """Empty the folder, except for a sweep's comparisons that lie in folders of their own, and its page."""
    paths = list(output.iterdir())
    has_sweep = any(path.name.startswith(SWEEP_FOLDER) for path in paths)
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            if not path.name.startswith(SWEEP_FOLDER):
                shutil.rmtree(path)
        elif not (has_sweep and path.name.startswith("sweep.")):
            path.unlink()


def _run_chain(
    comparison: Comparison, method: str, *, seed: int, folder: Path, world_size: int, parts: Parts
) -> tuple[dict[str, Any], list[Stage]]:
    """A chain's row and its stages; of one that failed, none."""
    stages = []
    for stage in chain_stages(comparison, method, seed=seed, parts=parts):
        reason = _run_stage(stage, world_size=world_size)
        if reason is not None:
            _free_memory()
            say(f"{method}, seed {seed}: {stage.name} failed: {reason}")
            return {"method": method, "seed": seed, "error": f"{stage.name}: {reason}"}, []
        stages.append(stage)
    return _row(comparison, method, seed=seed, stages=stages, folder=folder), stages


def _run_stage(stage: Stage, *, world_size: int) -> str | None:
    """Run one stage; returns why it failed, where that need not stop the other chains. Raises on several ranks."""
    try:
        if isinstance(stage.recipe, ExtractionRecipe):
            run_extraction(stage.recipe)
        else:
            run_training(stage.recipe, resume=True)
    except (ValueError, OSError, DecodeError, NonFiniteError, RuntimeError, MemoryError) as error:
        if world_size > 1:
            raise
        if is_out_of_memory(error):
            return f"needs more than {bytes_text(available_bytes())} of memory"
        if isinstance(error, RuntimeError) and not isinstance(error, DecodeError | NonFiniteError):
            raise
        return str(error)
    return None


def _free_memory() -> None:
    """Let go of what a failed stage held. After the error is gone: its traceback holds the stage's tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _row(
    comparison: Comparison, method: str, *, seed: int, stages: list[Stage], folder: Path
) -> dict[str, Any]:
    """The result of a finished chain. Peak and throughput are those of the method's own training stages: the one with
    the greatest peak; of a method that shares them all with others, those of its last training stage."""
    is_shared = shared_stages(comparison, method)
    listed = []
    for index, stage in enumerate(stages):
        summary = json.loads(RunDirectory(path=stage.path).summary.read_text())
        listed.append(
            {
                "name": stage.name,
                "kind": "extract" if isinstance(stage.recipe, ExtractionRecipe) else "train",
                "run": os.path.relpath(stage.path, folder),
                "shared": is_shared[index],
                "seconds": summary["training_seconds"] + summary["evaluation_seconds"],
                "training_seconds": summary["training_seconds"],
                "peak_bytes": summary["peak_bytes"],
                "bytes": summary["bytes"],
                "snippets_per_sec": summary["snippets_per_sec"],
                "trained_parameters": summary["trained_parameters"],
                "skipped_videos": len(summary["skipped_videos"]),
            }
        )
    training = [each for each in listed if each["kind"] == "train"] or listed
    own = [each for each in training if not each["shared"]] or training[-1:]
    greatest = max(own, key=lambda each: each["peak_bytes"] or 0)
    results_file = RunDirectory(path=stages[-1].path).results
    results = json.loads(results_file.read_text()) if results_file.is_file() else {}
    return {
        "method": method,
        "seed": seed,
        "kind": "measured",
        "average_mAP": results.get("average_mAP"),
        "mAP": results.get("mAP", {}),
        "memory_run": greatest["run"],
        "peak_bytes": greatest["peak_bytes"],
        "bytes": greatest["bytes"],
        "snippets_per_sec": greatest["snippets_per_sec"],
        "trained_parameters": greatest["trained_parameters"],
        "seconds": sum(each["seconds"] for each in listed),
        "training_seconds": sum(each["training_seconds"] for each in listed if each["kind"] == "train"),
        "stages": listed,
    }


def _write_report(comparison: Comparison, rows: list[dict[str, Any]], *, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "title": folder.name,
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        "benchmark": None if comparison.synthetic is None else asdict(comparison.synthetic),
        "methods": comparison.methods,
        "seeds": comparison.seeds,
        "rows": rows,
    }
    write_json(folder / "report.json", report)
    paths = write_report(folder)
    print_table(report)
    say("report: " + ", ".join(str(path) for path in [*paths, folder / "report.json"]))
