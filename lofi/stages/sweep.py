"""Sweep: the same comparison at several values of the benchmark's knob, how often the scene tells the class -> one page.

Each value is an ordinary comparison in a folder of its own, with its own data and report. So a sweep goes on from what is
finished, and takes over a value that was run by itself into the same folders.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lofi.config.objectives import OWN_PARTS, Parts
from lofi.engine import deepspeed_engine
from lofi.engine.run_directory import environment
from lofi.files import write_json
from lofi.progress import is_main_rank, say
from lofi.report.page import read_report
from lofi.report.sweep_page import print_sweep, write_sweep_report
from lofi.stages.chains import SWEEP_FOLDER, Comparison
from lofi.stages.compare import check_is_comparison, prepare_comparison, run_chains


def run_sweep(comparison: Comparison, *, restart: bool = False, parts: Parts = OWN_PARTS) -> int:
    """Run the comparison at every value of `scene_correlations`, write their common page and print its table. Collective.

    Every benchmark is made before the first training: what is wrong with a folder is said then.

    Returns:
        0, or 1 where a chain failed.
    """
    singles = dict(single_comparisons(comparison))
    if restart and is_main_rank():
        for single in singles.values():
            if Path(single.output).exists():
                check_is_comparison(Path(single.output))
    for single in singles.values():
        prepare_comparison(single, restart=restart)
    codes: list[int] = []
    for value, single in singles.items():
        say(f"\nscene correlation {value:g} ({len(codes) + 1} of {len(singles)})")
        codes.append(run_chains(single, parts=parts))
    if is_main_rank():
        _write_report(comparison, singles)
    deepspeed_engine.wait_for_ranks()
    return max(codes)


def single_comparisons(comparison: Comparison) -> Iterator[tuple[float, Comparison]]:
    """Each value of the knob and its ordinary comparison, in rising order."""
    assert comparison.synthetic is not None
    assert comparison.data_output is not None
    for value in sorted(comparison.scene_correlations):
        folder = f"{SWEEP_FOLDER}{value:g}"
        yield (
            value,
            replace(
                comparison,
                scene_correlations=[],
                synthetic=replace(comparison.synthetic, scene_correlation=value),
                output=str(Path(comparison.output) / folder),
                data_output=str(Path(comparison.data_output) / folder),
            ),
        )


def _write_report(comparison: Comparison, singles: dict[float, Comparison]) -> None:
    output = Path(comparison.output)
    assert comparison.synthetic is not None
    benchmark: dict[str, Any] = asdict(comparison.synthetic)
    del benchmark["scene_correlation"]
    sweep = {
        "title": output.name,
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        "benchmark": benchmark,
        "methods": comparison.methods,
        "seeds": comparison.seeds,
        "scene_correlations": list(singles),
        "rows": [
            {"scene_correlation": value, **row}
            for value, single in singles.items()
            for row in read_report(Path(single.output) / "report.json")["rows"]
        ],
    }
    write_json(output / "sweep.json", sweep)
    paths = write_sweep_report(output)
    print_sweep(sweep)
    say("sweep: " + ", ".join(str(path) for path in [*paths, output / "sweep.json"]))
