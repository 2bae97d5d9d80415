"""Sweep: the same comparison at several values of a knob -> one page.

The knob is how often the scene tells the class in the benchmark: then each value is an ordinary comparison in a folder of its
own, with its own data and report. Or it is the share of labelled videos: then all values have one folder of runs, in which they
share the stages that do not see labels, and each has a report in a folder of its own. Either way a sweep goes on from what is
finished, and takes over a value that was run by itself into the same folders.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lofi.config.objective_kinds import Parts
from lofi.config.objectives import OWN_PARTS
from lofi.engine.run_directory import environment
from lofi.files import write_json
from lofi.progress import is_main_rank, say
from lofi.report.knobs import LABELLED_SHARE, SCENE_CORRELATION, Knob
from lofi.report.page import read_report
from lofi.report.sweep import sweep_points
from lofi.report.sweep_page import print_sweep, write_sweep_report
from lofi.stages.chains import SHARE_FOLDER, SWEEP_FOLDER, Comparison, at_labelled_share
from lofi.stages.compare import (
    FinishedChains,
    check_is_comparison,
    prepare_comparison,
    report_chains,
    run_chains,
)


@dataclass(frozen=True, kw_only=True)
class Single:
    """A sweep's ordinary comparison at one value of its knob."""

    value: float
    comparison: Comparison
    folder: Path
    """Of its report."""


def run_sweep(comparison: Comparison, *, restart: bool = False, parts: Parts = OWN_PARTS) -> int:
    """Run the comparison at every value of `scene_correlations` or `labelled_shares`, write their common page and print its
    table. Collective.

    Every benchmark is made before the first training: what is wrong with a folder is said then.

    Returns:
        0, or 1 where a chain failed.
    """
    singles = list(single_comparisons(comparison, parts=parts))
    # Of labelled shares all have the same output, which is prepared once.
    outputs = {single.comparison.output: single.comparison for single in singles}
    if restart and is_main_rank():
        for output in map(Path, outputs):
            if output.exists():
                check_is_comparison(output)
    for first in outputs.values():
        prepare_comparison(first, restart=restart)
    finished: list[FinishedChains] = []
    for single in singles:
        say(f"\n{single.folder.name.replace('_', ' ')} ({len(finished) + 1} of {len(singles)})")
        finished.append(run_chains(single.comparison, report_folder=single.folder, parts=parts))
        if is_main_rank() and not comparison.probe:
            report_chains(finished[-1])
    if is_main_rank():
        if comparison.probe:
            for each in finished:
                report_chains(each)
        _write_report(comparison, singles)
    return max(each.code for each in finished)


def single_comparisons(comparison: Comparison, *, parts: Parts = OWN_PARTS) -> Iterator[Single]:
    """The ordinary comparison at each value of the knob, in rising order."""
    for share in sorted(comparison.labelled_shares):
        single = at_labelled_share(comparison, share, parts=parts)
        yield Single(
            value=share, comparison=single, folder=Path(comparison.output) / f"{SHARE_FOLDER}{share:g}"
        )
    if comparison.labelled_shares:
        return
    assert comparison.synthetic is not None
    assert comparison.data_output is not None
    for value in sorted(comparison.scene_correlations):
        folder = f"{SWEEP_FOLDER}{value:g}"
        single = replace(
            comparison,
            scene_correlations=[],
            synthetic=replace(comparison.synthetic, scene_correlation=value),
            output=str(Path(comparison.output) / folder),
            data_output=str(Path(comparison.data_output) / folder),
        )
        yield Single(value=value, comparison=single, folder=Path(single.output))


def _write_report(comparison: Comparison, singles: Sequence[Single]) -> None:
    output = Path(comparison.output)
    knob = LABELLED_SHARE if comparison.labelled_shares else SCENE_CORRELATION
    benchmark = None
    if comparison.synthetic is not None:
        benchmark = asdict(comparison.synthetic)
        benchmark.pop(knob.key, None)
    rows = [
        {knob.key: single.value, **row}
        for single in singles
        for row in read_report(single.folder / "report.json")["rows"]
    ]
    sweep = {
        "knob": knob.key,
        "title": output.name,
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        "benchmark": benchmark,
        "methods": comparison.methods,
        "seeds": comparison.seeds,
        f"{knob.key}s": [single.value for single in singles],
        "table": _table(rows, knob=knob),
        "rows": rows,
    }
    write_json(output / "sweep.json", sweep)
    paths = write_sweep_report(output)
    print_sweep(sweep)
    say("sweep: " + ", ".join(str(path) for path in [*paths, output / "sweep.json"]))


def _table(rows: Sequence[dict[str, Any]], *, knob: Knob) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over the seeds that gave numbers, of every method at every value."""
    return [
        {
            "method": each.method,
            knob.key: point.value,
            "num_seeds": len(each.seeds),
            "average_mAP": each.average_mAP,
            "deviation": each.deviation,
        }
        for point in sweep_points(rows, knob=knob)
        for each in point.summaries
    ]
