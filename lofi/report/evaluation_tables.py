"""results.json as tables for the terminal: mAP and recall per tIoU, the best and worst classes, errors, a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lofi.progress import console, is_main_rank
from lofi.report.evaluation import (
    class_averages,
    comparison_rows,
    comparison_sentence,
    error_rows,
    missed_sentence,
    subject,
    warnings,
)

PIPED_COLUMNS = 100
"""Width where the output is no terminal."""
NUM_RECALLS_SHOWN = 5
"""Of AR: the largest numbers of proposals."""
NUM_CLASSES_SHOWN = 5
"""Of the best and of the worst, where there are more than twice as many."""


def print_evaluation(results: Mapping[str, Any], *, notes: Sequence[str] = ()) -> None:
    """Print a results.json and further notes, on the main rank only; no escape codes where the output is no terminal."""
    if not is_main_rank():
        return
    out = console if console.is_terminal else Console(file=console.file, width=PIPED_COLUMNS)
    _line(out, subject(results), style="dim")
    interval = results.get("bootstrap")
    average = f"average mAP {two_digits(results['average_mAP'])} %"
    if interval:
        low, high = map(two_digits, interval["average_mAP"])
        average += (
            f"  ({100 * interval['confidence']:.0f} % interval {low} to {high}, {interval['samples']:,} "
            "bootstrap samples of videos)"
        )
    _line(out, average, style="bold")
    _tables(out, _tiou_tables(results, width=out.width))
    recalls = ", ".join(
        f"AR@{count} {two_digits(value)}" for count, value in [*results["AR"].items()][-NUM_RECALLS_SHOWN:]
    )
    _line(out, f"{recalls}, area under AR {two_digits(results['AUC'])} %")
    if results.get("AP"):
        _tables(out, [_class_table(results)])
    if results.get("errors"):
        _tables(out, [_error_table(results["errors"])])
        _line(out, missed_sentence(results["errors"]))
    if results.get("against"):
        _line(out, f"against {results['against']['predictions']}")
        _tables(out, _comparison_tables(results, width=out.width))
        _line(out, comparison_sentence(results["against"]), style="bold")
    for note in [*warnings(results.get("counts", {})), *notes]:
        _line(out, f"note: {note}", style="yellow")


def two_digits(fraction: float) -> str:
    """A fraction in percent, as the field's tables print it."""
    return f"{100 * fraction:.2f}"


def _line(out: Console, text: str, *, style: str = "") -> None:
    out.print(Text(text, style=style), soft_wrap=False)


def _tables(out: Console, tables: Sequence[Table]) -> None:
    for table in tables:
        out.print(table, soft_wrap=False)


def _tiou_tables(results: Mapping[str, Any], *, width: int) -> list[Table]:
    """mAP and recall at k x, a column per tIoU; several tables where one is too wide."""
    rows = {"mAP": results["mAP"]}
    for multiple, recall in results.get("recall_at_kx", {}).items():
        rows[f"recall at {multiple} x"] = recall
    return _by_tiou("tIoU", rows, tious=list(results["mAP"]), width=width, text=two_digits)


def _comparison_tables(results: Mapping[str, Any], *, width: int) -> list[Table]:
    return _by_tiou("mAP", comparison_rows(results), tious=list(results["mAP"]), width=width, text=_text)


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else two_digits(value)


def _by_tiou(
    corner: str, rows: Mapping[str, Mapping[str, Any]], *, tious: Sequence[str], width: int, text: Any
) -> list[Table]:
    names = max(len(name) for name in [corner, *rows])
    count = max(1, (width - names - 3) // 7)
    tables = []
    for first in range(0, len(tious), count):
        part = tious[first : first + count]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
        table.add_column(corner, no_wrap=True)
        for tiou in part:
            table.add_column(tiou, justify="right", no_wrap=True, min_width=6)
        for name, values in rows.items():
            table.add_row(name, *(text(values[tiou]) if tiou in values else "-" for tiou in part))
        tables.append(table)
    return tables


def _class_table(results: Mapping[str, Any]) -> Table:
    """Classes by average AP: all where they are few, else the best and the worst."""
    ordered = class_averages(results)
    instances = results.get("instances", {})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    is_whole = len(ordered) <= 2 * NUM_CLASSES_SHOWN
    titles = ("class",) if is_whole else (f"{NUM_CLASSES_SHOWN} best of {len(ordered)} classes", "worst")
    for title in titles:
        table.add_column(title, overflow="ellipsis", no_wrap=True, max_width=26)
        table.add_column("AP", justify="right", no_wrap=True)
        table.add_column("instances", justify="right", no_wrap=True)
    columns = [ordered] if is_whole else [ordered[:NUM_CLASSES_SHOWN], ordered[: -NUM_CLASSES_SHOWN - 1 : -1]]
    for row in zip(*columns, strict=True):
        cells: list[Text | str] = []
        for name, value in row:
            cells += [Text(name), two_digits(value), f"{instances.get(name, 0):,}"]
        table.add_row(*cells)
    return table


def _error_table(errors: Mapping[str, Any]) -> Table:
    """Each kind of error: its share of the best predictions, and what average mAP would gain without it."""
    header, rows = error_rows(errors)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column(header[0], no_wrap=True)
    for title in header[1:]:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*row)
    return table
