"""The comparison as a table: for the terminal (rich) and in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lofi.progress import console, is_main_rank
from lofi.report.comparison import (
    MethodSummary,
    StageSummary,
    headline,
    notes,
    summarise,
    tiou_keys,
)
from lofi.report.probes import COLUMNS, probe_lines, probe_notes
from lofi.report.units import bytes_text, duration_text, percent, points, rate_text

PIPED_COLUMNS = 100
"""Width where the output is no terminal."""
LONGEST_NAME = 24
"""Longer names of methods are folded in the terminal."""
NAME_COLUMNS = 20
TIOU_COLUMNS = len(" 100.0")
"""Widths in a table of tIoUs alone: at least for the names and the edges, and of one tIoU. Ten of them take 80 columns."""


def print_table(report: Mapping[str, Any]) -> None:
    """Print headline, table and notes of a report.json, on the main rank only."""
    if not is_main_rank():
        return
    rows = report["rows"]
    summaries = summarise(rows)
    out = console if console.is_terminal else Console(file=console.file, width=PIPED_COLUMNS)
    out.print()
    out.print(Text(headline(summaries), style="bold"), soft_wrap=False)
    for table in terminal_tables(summaries, console=out):
        out.print(table, soft_wrap=False)
    probed = probe_lines(summaries, rows)
    if probed:
        out.print(probe_table(probed), soft_wrap=False)
    for summary in summaries:
        for failure in summary.failures:
            line = f"{summary.method}, seed {failure.seed}, failed: {_one_line(failure.reason)}"
            out.print(Text(line, style="red"), soft_wrap=False)
    out.print(Text(" ".join([*notes(rows), *probe_notes(rows)]), style="dim"), soft_wrap=False)


def terminal_tables(summaries: Sequence[MethodSummary], *, console: Console) -> list[Table]:
    """One line per method, with every tIoU; where the console is too narrow for that, the tIoUs have their own table,
    or several below 80 columns."""
    keys = tiou_keys(summaries)
    whole = _results_table(summaries, keys)
    unlimited = console.options.update(width=10_000)
    if not keys or console.measure(whole, options=unlimited).maximum <= console.width:
        return [whole]
    count = max(1, (console.width - NAME_COLUMNS) // TIOU_COLUMNS)
    parts = [keys[first : first + count] for first in range(0, len(keys), count)]
    return [_results_table(summaries, []), *(_tiou_table(summaries, part) for part in parts)]


def _results_table(summaries: Sequence[MethodSummary], keys: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", overflow="fold", max_width=LONGEST_NAME)
    table.add_column("average mAP", justify="right", no_wrap=True)
    for key in keys:
        table.add_column(_tiou_header(key), justify="right", no_wrap=True)
    for name in ("peak memory", "snippets/s", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for summary in summaries:
        if summary.average_mAP is None:
            table.add_row(Text(summary.method), Text("failed", style="red"))
        else:
            table.add_row(Text(summary.method), *_cells(summary, keys))
    return table


def _tiou_table(summaries: Sequence[MethodSummary], keys: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("mAP at tIoU", overflow="fold", max_width=LONGEST_NAME)
    for key in keys:
        table.add_column(_tiou_header(key), justify="right", no_wrap=True, min_width=TIOU_COLUMNS - 1)
    for summary in summaries:
        if summary.average_mAP is not None:
            table.add_row(Text(summary.method), *(percent(summary.mAP.get(key)) for key in keys))
    return table


def probe_table(lines: Sequence[tuple[str, list[str]]]) -> Table:
    """What `probes.probe_lines` gives."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("features of", overflow="fold", max_width=LONGEST_NAME)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for method, cells in lines:
        table.add_row(Text(method), *cells)
    return table


def _tiou_header(key: str) -> str:
    return f"@{key.removeprefix('0')}"


def markdown_table(summaries: Sequence[MethodSummary]) -> str:
    """One line per method with every tIoU, and one per failed seed."""
    keys = tiou_keys(summaries)
    has_gain = len(summaries) > 1
    header = ["method", "average mAP", *(["gain"] if has_gain else []), *(f"mAP@{key}" for key in keys)]
    header += ["peak memory", "snippets/s", "time", "seeds", "kind"]
    lines = []
    for summary in summaries:
        name = escape_markdown(summary.method)
        if summary.average_mAP is not None:
            cells = _cells(summary, keys)
            gain = [gain_text(summary)] if has_gain else []
            kind = ", ".join(summary.kinds)
            lines.append([name, cells[0], *gain, *cells[1:], str(len(summary.seeds)), escape_markdown(kind)])
        for failure in summary.failures:
            reason = f"failed, seed {failure.seed}: {escape_markdown(_one_line(failure.reason))}"
            lines.append([name, reason, *[""] * (len(header) - 2)])
    return markdown_lines(header, lines)


def markdown_stages(stages: Sequence[StageSummary]) -> str:
    """One line per stage."""
    header = ["stage", "of", "does", "runs", "time", "peak memory", "snippets/s", "skipped videos"]
    lines = [
        [
            escape_markdown(stage.name),
            "shared" if stage.method is None else escape_markdown(stage.method),
            escape_markdown(stage.kind),
            str(stage.num_runs),
            duration_text(stage.seconds),
            bytes_text(stage.peak_bytes),
            rate_text(stage.snippets_per_sec),
            str(stage.skipped_videos),
        ]
        for stage in stages
    ]
    return markdown_lines(header, lines, num_left=3)


def markdown_lines(header: Sequence[str], lines: Sequence[Sequence[str]], *, num_left: int = 1) -> str:
    """A Markdown table; the first `num_left` columns are aligned left. Cells are Markdown already."""
    rule = [":--"] * num_left + ["--:"] * (len(header) - num_left)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *lines))


def escape_markdown(text: str) -> str:
    """Text that shows as it is in a cell of a Markdown table."""
    for character in "\\|`*_<>[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def gain_text(summary: MethodSummary) -> str:
    """Points over the first method; empty for the first method itself."""
    return "" if summary.gain is None else points(summary.gain.mean, summary.gain.deviation)


def _cells(summary: MethodSummary, keys: Sequence[str]) -> list[str]:
    return [
        percent(summary.average_mAP, summary.deviation),
        *(percent(summary.mAP.get(key)) for key in keys),
        bytes_text(summary.peak_bytes),
        rate_text(summary.snippets_per_sec),
        duration_text(summary.seconds),
    ]


def _one_line(text: str, *, most: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
