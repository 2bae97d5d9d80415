"""A folder with sweep.json -> sweep.md, sweep.html and sweep.svg beside it, and its table for the terminal. The page stands
alone, as `page` does, and so does the figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lofi.files import write_text
from lofi.progress import console, is_main_rank
from lofi.report import plots, sweep_plots
from lofi.report.comparison import MethodSummary
from lofi.report.knobs import KNOBS, SCENE_CORRELATION, Knob
from lofi.report.page import how_it_was_made, read_report
from lofi.report.probes import COLUMNS as PROBE_COLUMNS
from lofi.report.probes import TITLE as PROBE_TITLE
from lofi.report.probes import probe_lines, probe_notes
from lofi.report.svg_style import STYLE_SHEET, standalone_svg
from lofi.report.sweep import (
    SweepPoint,
    cell,
    cost_notes,
    cost_point,
    failure_lines,
    findings,
    headline,
    map_notes,
    sweep_points,
    where,
)
from lofi.report.tables import PIPED_COLUMNS, escape_markdown, markdown_lines
from lofi.report.units import bytes_text, count_text, duration_text, rate_text

TEMPLATE = Path(__file__).with_name("sweep_page.html.j2")
COST_COLUMNS = ("peak memory", "snippets/s", "time", "trained parameters")


def write_sweep_report(folder: str | Path) -> list[Path]:
    """Read FOLDER/sweep.json and write FOLDER/sweep.md, FOLDER/sweep.html and, where there are numbers, its figure as
    FOLDER/sweep.svg. Returns their paths."""
    folder = Path(folder)
    report = read_report(folder / "sweep.json")
    texts = {"sweep.md": render_sweep_markdown(report), "sweep.html": render_sweep_page(report)}
    sweep = sweep_points(report["rows"], knob=_knob(report))
    if _has_numbers(sweep):
        texts["sweep.svg"] = standalone_svg(sweep_plots.plot_sweep(sweep, legend=True))
    else:
        (folder / "sweep.svg").unlink(missing_ok=True)  # of a sweep that was here before
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def render_sweep_markdown(report: Mapping[str, Any]) -> str:
    """The sweep as Markdown tables."""
    knob = _knob(report)
    sweep = sweep_points(report["rows"], knob=knob)
    columns = ["method", *(f"at {knob.text(point.value)}" for point in sweep)]
    lines = [[escape_markdown(name), *cells] for name, cells in _map_cells(sweep)]
    parts = [
        f"# {escape_markdown(_title(report))}\n",
        f"**{escape_markdown(headline(sweep))}**\n",
        _markdown_list(findings(sweep)),
        f"## Average mAP against {knob.title}\n",
        markdown_lines(columns, lines),
        _markdown_list([*map_notes(sweep), *failure_lines(sweep)]),
    ]
    point = cost_point(sweep)
    if point is not None:
        costs = [[escape_markdown(each.method), *_cost_cells(each)] for each in point.summaries]
        parts += [
            f"## Memory, speed and time {where(point)}\n",
            markdown_lines(["method", *COST_COLUMNS], costs),
            _markdown_list(cost_notes(sweep)),
        ]
    for here in sweep:
        probed = [[escape_markdown(name), *cells] for name, cells in probe_lines(here.summaries, here.rows)]
        if probed:
            parts += [
                f"## {PROBE_TITLE} {where(here)}\n",
                markdown_lines(["method", *PROBE_COLUMNS], probed),
                _markdown_list(probe_notes(here.rows)),
            ]
    made = [[escape_markdown(name), escape_markdown(value)] for name, value in _made(report)]
    parts += ["## How it was made\n", markdown_lines(["what", "value"], made, num_left=2)]
    return "\n".join(parts)


def render_sweep_page(report: Mapping[str, Any]) -> str:
    """The sweep as one HTML page."""
    knob = _knob(report)
    sweep = sweep_points(report["rows"], knob=knob)
    point = cost_point(sweep)
    summaries = point.summaries if point is not None else ()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = _breakable
    lead, _, claim = headline(sweep).partition(": ")
    return environment.from_string(TEMPLATE.read_text()).render(
        title=_title(report),
        date=report.get("date"),
        style=Markup(STYLE_SHEET.read_text()),
        headline_lead=lead if claim else "",
        headline_claim=claim or lead,
        kind_sentence=_kind_sentence(sweep, report=report),
        findings=findings(sweep),
        knob=knob,
        values=[knob.text(each.value) for each in sweep],
        methods=[
            {
                "name": each.method,
                "colour": plots.method_colour(index, num_methods=len(summaries)),
                "averages": [
                    {"text": cell(here.summaries[index]), "is_best": _is_best(here, index)} for here in sweep
                ],
                "costs": _cost_cells(each),
            }
            for index, each in enumerate(summaries)
        ],
        has_spread=any(len(each.seeds) > 1 for here in sweep for each in here.summaries),
        cost_place=None if point is None else where(point),
        cost_columns=COST_COLUMNS,
        map_notes=map_notes(sweep),
        cost_notes=cost_notes(sweep),
        failures=failure_lines(sweep),
        probe_title=PROBE_TITLE,
        probe_columns=PROBE_COLUMNS,
        probes=[
            {
                "place": where(here),
                "lines": [
                    {
                        "name": name,
                        "colour": plots.method_colour(index, num_methods=len(lines)),
                        "cells": cells,
                    }
                    for index, (name, cells) in enumerate(lines)
                ],
                "notes": probe_notes(here.rows),
            }
            for here in sweep
            if (lines := probe_lines(here.summaries, here.rows))
        ],
        figures=_figures(sweep),
        made=_made(report),
    )


def print_sweep(report: Mapping[str, Any]) -> None:
    """Print headline, table and failures of a sweep.json, on the main rank only."""
    if not is_main_rank():
        return
    knob = _knob(report)
    sweep = sweep_points(report["rows"], knob=knob)
    out = console if console.is_terminal else Console(file=console.file, width=PIPED_COLUMNS)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"average mAP, {knob.column}", overflow="fold", max_width=24)
    for point in sweep:
        table.add_column(knob.text(point.value), justify="right")
    for name, cells in _map_cells(sweep):
        table.add_row(Text(name), *cells)
    out.print()
    out.print(Text(headline(sweep), style="bold"), soft_wrap=False)
    out.print(table, soft_wrap=False)
    for line in failure_lines(sweep):
        out.print(Text(line, style="red"), soft_wrap=False)
    out.print(Text(" ".join([*findings(sweep), *map_notes(sweep)]), style="dim"), soft_wrap=False)


def _map_cells(sweep: Sequence[SweepPoint]) -> list[tuple[str, list[str]]]:
    """Method and its average mAP at every value."""
    names = [each.method for each in sweep[0].summaries] if sweep else []
    return [(name, [cell(point.summaries[index]) for point in sweep]) for index, name in enumerate(names)]


def _cost_cells(summary: MethodSummary) -> list[str]:
    return [
        bytes_text(summary.peak_bytes),
        rate_text(summary.snippets_per_sec),
        duration_text(summary.seconds),
        count_text(summary.trained_parameters),
    ]


def _is_best(point: SweepPoint, index: int) -> bool:
    averages = [each.average_mAP for each in point.summaries if each.average_mAP is not None]
    return bool(averages) and point.summaries[index].average_mAP == max(averages)


def _figures(sweep: Sequence[SweepPoint]) -> dict[str, Markup]:
    """Name -> figure, of those whose numbers are there."""
    point = cost_point(sweep)
    if point is None or not _has_numbers([point]):
        return {}
    figures = {"sweep": Markup(sweep_plots.plot_sweep(sweep))}
    if any(each.peak_bytes and each.snippets_per_sec for each in point.summaries if each.seeds):
        figures["speed"] = Markup(plots.plot_memory_and_throughput(point.summaries))
    return figures


def _has_numbers(sweep: Sequence[SweepPoint]) -> bool:
    return any(each.average_mAP is not None for point in sweep for each in point.summaries)


def _breakable(name: str) -> Markup:
    """A method's name that a narrow column may break after an underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _kind_sentence(sweep: Sequence[SweepPoint], *, report: Mapping[str, Any]) -> str:
    kinds = dict.fromkeys(kind for point in sweep for each in point.summaries for kind in each.kinds)
    environment = report.get("environment") or {}
    where = " on ".join(str(environment[key]) for key in ("device", "machine") if environment.get(key))
    return (
        f"Every number on this page is {' or '.join(kinds)}{f', on {where}' if where else ''}."
        if kinds
        else ""
    )


def _made(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    knob = _knob(report)
    values = ", ".join(f"{value:g}" for value in report.get(f"{knob.key}s") or ())
    made = how_it_was_made(report)
    if values:
        made.append((f"{knob.key.replace('_', ' ')}s", f"{values}; {knob.made}"))
    return made


def _knob(report: Mapping[str, Any]) -> Knob:
    return KNOBS[report.get("knob", SCENE_CORRELATION.key)]


def _markdown_list(sentences: Sequence[str]) -> str:
    return "".join(f"- {escape_markdown(sentence)}\n" for sentence in sentences)


def _title(report: Mapping[str, Any]) -> str:
    return str(report.get("title") or "Sweep")
