"""Compare: whole pipelines of several methods, over several seeds -> one report.

A method is a chain of recipes. The links are made here: a training recipe with an encoder starts from the weights of the
stage before it, an extraction recipe takes the encoder of the stage before it, a recipe that reads features takes those
of the last extraction, and a recipe whose adapter stays as it is takes the last stage that trained one. Chains that begin
alike share those stages.
"""

import gc
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lofi.config.load import (
    build_from_plain,
    is_extraction_recipe,
    load_extraction_recipe,
    load_recipe,
    read_with_overrides,
)
from lofi.config.objectives import OWN_PARTS, Parts
from lofi.config.recipe import ExtractionRecipe, Recipe
from lofi.data.decode import DecodeError
from lofi.data.synthetic import SyntheticConfig, benchmark_paths, write_benchmark
from lofi.engine import deepspeed_engine
from lofi.engine.loop import NonFiniteError
from lofi.engine.run_directory import RunDirectory, environment
from lofi.files import write_json
from lofi.memory.limits import device_bytes, is_out_of_memory
from lofi.progress import is_main_rank, say
from lofi.report.page import write_report
from lofi.report.tables import print_table
from lofi.report.units import bytes_text
from lofi.stages.extract import run_extraction
from lofi.stages.train import run_training

POLL_SEC = 0.5
"""How often a rank looks whether the main rank has written the benchmark."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison file: which chains, over which seeds, on which data."""

    methods: dict[str, list[str]]
    """Name -> its chain of recipe files, in order."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Each chain is run once per seed; the recipes' own `seed` is replaced."""
    output: str = ""
    """Folder of all runs and of the report."""
    synthetic: SyntheticConfig | None = None
    """Make the synthetic benchmark first; absent: the recipes name data that is there."""
    data_output: str | None = None
    """Folder of the synthetic benchmark. Every recipe reads this one, whatever its own data.annotations, data.videos and
    data.frame_cache say."""
    threads: int | None = None
    """CPU threads of the process; null leaves it to PyTorch. For very small models one is nearly as fast as two on an idle
    machine, and many times as fast beside other work."""

    def __post_init__(self) -> None:
        if not self.methods or not all(self.methods.values()):
            raise ValueError("methods is empty, or one of its chains is; each needs at least one recipe.")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(
                f"seeds is {self.seeds}; it must name at least one seed, each once, none of them negative."
            )
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is {self.threads}; it must be at least 1, or null.")
        if (self.synthetic is None) != (self.data_output is None):
            raise ValueError("synthetic and data_output go together: what to make, and where.")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One link of a chain, placed: its recipe, linked to the stage before it, and where it writes."""

    name: str
    recipe: Recipe | ExtractionRecipe
    path: Path


def load_comparison(
    path: str | Path, overrides: list[str] | None = None, *, parts: Parts = OWN_PARTS
) -> Comparison:
    """Read a comparison file and check it and every recipe it names, by the `parts` they can name. Raises RecipeError."""
    where = str(path)
    plain = read_with_overrides(Path(path), overrides)
    if plain.get("synthetic") is not None:  # by itself first: its messages then name its own keys
        build_from_plain(SyntheticConfig, plain["synthetic"], key="synthetic", where=where)
    comparison: Comparison = build_from_plain(Comparison, plain, key="comparison", where=where)
    for method in comparison.methods:
        list(chain_stages(comparison, method, seed=comparison.seeds[0], parts=parts))
    return comparison


def chain_stages(
    comparison: Comparison, method: str, *, seed: int, parts: Parts = OWN_PARTS
) -> Iterator[Stage]:
    """The stages of one method and seed, each linked to those before."""
    names: list[str] = []
    before: list[Stage] = []
    for file in comparison.methods[method]:
        names.append(Path(file).stem)
        path = Path(comparison.output) / f"seed_{seed}" / "__".join(names)
        recipe: Recipe | ExtractionRecipe
        if is_extraction_recipe(file):
            recipe = replace(load_extraction_recipe(file), output=str(path))
        else:
            recipe = replace(load_recipe(file, parts=parts), output=str(path), seed=seed)
        if comparison.data_output is not None:
            recipe = _read_benchmark(recipe, comparison.data_output)
        if before:
            recipe = _link(recipe, before)
        stage = Stage(name=names[-1], recipe=recipe, path=path)
        yield stage
        before.append(stage)


def _link(recipe: Recipe | ExtractionRecipe, before: list[Stage]) -> Recipe | ExtractionRecipe:
    """Take up what stages before left in their folders: features, an adapter, or weights for the encoder."""
    if recipe.data.features is None:
        assert recipe.encoder is not None
        config = replace(recipe.encoder.config, weights=str(before[-1].path))
        return replace(recipe, encoder=replace(recipe.encoder, config=config))
    extracted = [stage.path for stage in before if isinstance(stage.recipe, ExtractionRecipe)]
    features = extracted[-1] if extracted else before[-1].path
    recipe = replace(recipe, data=replace(recipe.data, features=str(features)))
    if isinstance(recipe, Recipe) and recipe.adapter is not None and recipe.adapter.config.frozen:
        adapted = [
            stage.path for stage in before if isinstance(stage.recipe, Recipe) and stage.recipe.adapter
        ]
        if adapted:
            config = replace(recipe.adapter.config, weights=str(adapted[-1]))
            recipe = replace(recipe, adapter=replace(recipe.adapter, config=config))
    return recipe


def _read_benchmark(recipe: Recipe | ExtractionRecipe, data_output: str) -> Recipe | ExtractionRecipe:
    """Let a recipe read the benchmark that the comparison makes: classification its trimmed part, the rest the other."""
    paths = benchmark_paths(data_output)
    is_trimmed = isinstance(recipe, Recipe) and recipe.kind.takes_clips
    videos = paths.trimmed_videos if is_trimmed else paths.untrimmed_videos
    data = replace(
        recipe.data,
        annotations=str(paths.trimmed_annotations if is_trimmed else paths.untrimmed_annotations),
        videos=None if recipe.data.videos is None else str(videos),
        frame_cache=None if recipe.data.frame_cache is None else str(paths.root / "frames"),
    )
    return replace(recipe, data=data)


def run_comparison(comparison: Comparison, *, restart: bool = False, parts: Parts = OWN_PARTS) -> int:
    """Run every chain over every seed, write the report and print its table. Collective.

    On one rank a chain that fails becomes a row with its reason, and the others go on. On several, the error may be that
    of one rank alone while the others wait for it, so it is raised and ends them all; started again, the comparison goes on
    from what is finished.

    Returns:
        0, or 1 where a chain failed.
    """
    if comparison.threads is not None:
        torch.set_num_threads(comparison.threads)
    _prepare(comparison, restart=restart)
    ranks = deepspeed_engine.start_ranks()
    deepspeed_engine.wait_for_ranks()
    rows = []
    done = 0
    total = len(comparison.seeds) * len(comparison.methods)
    for seed in comparison.seeds:
        for method in comparison.methods:
            done += 1
            say(f"\n[{done}/{total}] {method}, seed {seed}")
            rows.append(_run_chain(comparison, method, seed=seed, world_size=ranks.world_size, parts=parts))
    if is_main_rank():
        _write_report(comparison, rows)
    deepspeed_engine.wait_for_ranks()
    return 1 if any("error" in row for row in rows) else 0


def _prepare(comparison: Comparison, *, restart: bool) -> None:
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
        _check_is_comparison(output)
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    if comparison.synthetic is not None:
        assert comparison.data_output is not None
        write_benchmark(comparison.synthetic, comparison.data_output)


def _check_is_comparison(output: Path) -> None:
    """Raise ValueError for a folder that no comparison has written, before it is deleted."""
    if not (output / "report.json").is_file() and not all(
        path.name.startswith("seed_") for path in output.iterdir()
    ):
        raise ValueError(
            f"output {output} is no output of a comparison (no report.json); not deleted. Choose another output."
        )


def _run_chain(
    comparison: Comparison, method: str, *, seed: int, world_size: int, parts: Parts
) -> dict[str, Any]:
    stages = []
    for stage in chain_stages(comparison, method, seed=seed, parts=parts):
        reason = _run_stage(stage, world_size=world_size)
        if reason is not None:
            _free_memory()
            say(f"{method}, seed {seed}: {stage.name} failed: {reason}")
            return {"method": method, "seed": seed, "error": f"{stage.name}: {reason}"}
        stages.append(stage)
    return _row(comparison, method, seed=seed, stages=stages)


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
            return f"needs more than {bytes_text(device_bytes())} of memory"
        if isinstance(error, RuntimeError) and not isinstance(error, DecodeError | NonFiniteError):
            raise
        return str(error)
    return None


def _free_memory() -> None:
    """Let go of what a failed stage held. After the error is gone: its traceback holds the stage's tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _row(comparison: Comparison, method: str, *, seed: int, stages: list[Stage]) -> dict[str, Any]:
    """The result of a finished chain. Peak and throughput are those of the method's own training stages: the one with
    the greatest peak; of a method that shares them all with others, those of its last training stage."""
    is_shared = _shared_stages(comparison, method)
    listed = []
    for index, stage in enumerate(stages):
        summary = json.loads(RunDirectory(path=stage.path).summary.read_text())
        listed.append(
            {
                "name": stage.name,
                "kind": "extract" if isinstance(stage.recipe, ExtractionRecipe) else "train",
                "run": str(stage.path.relative_to(comparison.output)),
                "shared": is_shared[index],
                "seconds": summary["training_seconds"] + summary["evaluation_seconds"],
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
        "stages": listed,
    }


def _shared_stages(comparison: Comparison, method: str) -> list[bool]:
    """For each stage of a chain: whether another method's chain is the same up to and including it."""
    chain = comparison.methods[method]
    others = [other for name, other in comparison.methods.items() if name != method]
    lengths = range(1, len(chain) + 1)
    return [any(other[:length] == chain[:length] for other in others) for length in lengths]


def _write_report(comparison: Comparison, rows: list[dict[str, Any]]) -> None:
    output = Path(comparison.output)
    report = {
        "title": output.name,
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        "benchmark": None if comparison.synthetic is None else asdict(comparison.synthetic),
        "methods": comparison.methods,
        "seeds": comparison.seeds,
        "rows": rows,
    }
    write_json(output / "report.json", report)
    paths = write_report(output)
    print_table(report)
    say("report: " + ", ".join(str(path) for path in [*paths, output / "report.json"]))
