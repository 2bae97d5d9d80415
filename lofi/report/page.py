"""A folder with report.json -> report.md and report.html beside it.

The page stands alone: styles and figures are inside it, it loads nothing and runs nothing, and it follows the reader's
light or dark setting. Every number of it is one of report.json, as a mean over seeds where it says so.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lofi.files import write_text
from lofi.report import plots
from lofi.report.comparison import (
    MethodSummary,
    failure_reason,
    headline,
    notes,
    shown_tious,
    summarise,
    summarise_stages,
    tiou_keys,
)
from lofi.report.loss_curves import read_loss_curves
from lofi.report.memory_plots import plot_curve
from lofi.report.memory_rows import KINDS
from lofi.report.probes import COLUMNS as PROBE_COLUMNS
from lofi.report.probes import TITLE as PROBE_TITLE
from lofi.report.probes import probe_lines, probe_notes
from lofi.report.svg_style import NUM_PART_COLOURS, STYLE_SHEET
from lofi.report.tables import (
    escape_markdown,
    gain_text,
    markdown_lines,
    markdown_stages,
    markdown_table,
)
from lofi.report.units import bytes_text, count_text, duration_text, percent, rate_text

TEMPLATE = Path(__file__).with_name("page.html.j2")


def write_report(folder: str | Path) -> tuple[Path, Path]:
    """Read FOLDER/report.json and write FOLDER/report.md and FOLDER/report.html. Returns their paths.

    Loss curves are added for every stage whose run directory in the folder holds a metrics.jsonl.
    """
    folder = Path(folder)
    report = read_report(folder / "report.json")
    markdown, page = folder / "report.md", folder / "report.html"
    write_text(markdown, render_markdown(report))
    write_text(page, render_page(report, folder=folder))
    return markdown, page


def read_report(path: Path) -> dict[str, Any]:
    """The comparison at `path`. Raises FileNotFoundError or ValueError, which say what is wrong with it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a report needs the report.json of a comparison.")
    try:
        report = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(report, dict) or not isinstance(report.get("rows"), list):
        raise ValueError(f'{path} has no list "rows"; it must be an object with one row per method and seed.')
    return report


def render_markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    rows = report["rows"]
    summaries, stages = summarise(rows), summarise_stages(rows)
    parts = [
        f"# {escape_markdown(_title(report))}\n",
        f"**{escape_markdown(headline(summaries))}**\n",
        markdown_table(summaries),
        "".join(f"- {escape_markdown(note)}\n" for note in notes(rows)),
    ]
    if stages:
        parts += ["## Stages\n", "Means over the runs of each stage.\n", markdown_stages(stages)]
    made = [[escape_markdown(name), escape_markdown(value)] for name, value in how_it_was_made(report)]
    probed = [[escape_markdown(name), *cells] for name, cells in probe_lines(summaries, rows)]
    if probed:
        noted = "".join(f"- {escape_markdown(note)}\n" for note in probe_notes(rows))
        parts += [f"## {PROBE_TITLE}\n", markdown_lines(["method", *PROBE_COLUMNS], probed), noted]
    parts += ["## How it was made\n", markdown_lines(["what", "value"], made, num_left=2)]
    return "\n".join(parts)


def render_page(report: Mapping[str, Any], *, folder: Path) -> str:
    """The report as one HTML page; `folder` is where the runs lie."""
    rows = report["rows"]
    summaries, stages = summarise(rows), summarise_stages(rows)
    keys = tiou_keys(summaries)
    lead, _, claim = headline(summaries).partition(": ")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        percent=percent, bytes=bytes_text, duration=duration_text, rate=rate_text, count=count_text
    )
    return environment.from_string(TEMPLATE.read_text()).render(
        title=_title(report),
        style=Markup(STYLE_SHEET.read_text()),
        date=report.get("date"),
        headline_lead=lead if claim else "",
        headline_claim=claim or lead,
        methods=[
            {
                "summary": each,
                "colour": plots.method_colour(index, num_methods=len(summaries)),
                "gain": gain_text(each),
            }
            for index, each in enumerate(summaries)
        ],
        best=max((each.average_mAP or 0.0 for each in summaries), default=0.0),
        has_spread=any(len(each.seeds) > 1 for each in summaries),
        has_gain=len(summaries) > 1,
        tious=keys,
        shown_tious=shown_tious(keys),
        notes=notes(rows),
        kinds=list(dict.fromkeys(kind for each in summaries for kind in each.kinds)),
        kind_sentence=_kind_sentence(summaries, report=report),
        figures=_figures(summaries),
        byte_kinds=[
            {"name": kind, "colour": place % NUM_PART_COLOURS}
            for place, kind in enumerate(plots.byte_kinds(summaries))
        ],
        losses=[
            {"title": each.title, "svg": Markup(plots.plot_losses(each, name=f"loss-{index}"))}
            for index, each in enumerate(read_loss_curves(folder, stages))
        ],
        memory_curves=_memory_curves(rows, folder=folder),
        curve_kinds=list(enumerate(KINDS)),
        rows=[{"values": row, "reason": failure_reason(row)} for row in rows],
        stages=stages,
        probe_title=PROBE_TITLE,
        probe_columns=PROBE_COLUMNS,
        probe_cells=[cells for _, cells in probe_lines(summaries, rows)],
        probe_notes=probe_notes(rows),
        made=how_it_was_made(report),
    )


def how_it_was_made(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of everything that one needs to know to make the numbers again."""
    environment = dict(report.get("environment") or {})
    recorded = environment.pop("command", None)
    command = report.get("command") or (shlex.join(recorded) if isinstance(recorded, list) else recorded)
    seeds = sorted({row["seed"] for row in report["rows"]})
    packages = environment.pop("packages", None) or {}
    made = [
        ("command", command),
        ("seeds", f"{len(seeds)} ({', '.join(map(str, seeds))})" if seeds else None),
    ]
    for method, chain in (report.get("methods") or {}).items():
        made.append((f"chain of {method}", " -> ".join(map(_link, chain))))
    made += [
        (name.replace("_", " "), _plain(value)) for name, value in environment.items() if value is not None
    ]
    made.append(("packages", ", ".join(f"{name} {version}" for name, version in packages.items()) or None))
    if report.get("benchmark") is not None:
        made.append(("benchmark", _plain(report["benchmark"])))
    return [(name, str(value)) for name, value in made if value is not None]


def _link(recipe: str) -> str:
    """A recipe file of a chain, which values may follow: its name, and those."""
    file, *overrides = shlex.split(recipe)
    return " ".join([Path(file).stem, *overrides])


def _title(report: Mapping[str, Any]) -> str:
    return str(report.get("title") or "Comparison")


def _kind_sentence(summaries: Sequence[MethodSummary], *, report: Mapping[str, Any]) -> str:
    kinds = list(dict.fromkeys(kind for each in summaries for kind in each.kinds))
    if not kinds:
        return ""
    if len(kinds) > 1:
        return f"The numbers are of several kinds ({', '.join(kinds)}); the table says which."
    environment = report.get("environment") or {}
    device, machine = environment.get("device"), environment.get("machine")
    where = " on ".join(str(part) for part in (device, machine) if part)
    return f"Every number on this page is {kinds[0]}{f', on {where}' if where else ''}."


def _figures(summaries: Sequence[MethodSummary]) -> dict[str, Markup]:
    """Name -> figure, of those whose numbers are there."""
    measured = [each for each in summaries if each.average_mAP is not None]
    figures = {}
    if measured:
        figures["average"] = Markup(plots.plot_average_map(summaries))
    if len(tiou_keys(measured)) > 1:
        figures["tiou"] = Markup(plots.plot_map_at_tiou(summaries))
    if any(each.bytes_by_kind for each in measured):
        figures["bytes"] = Markup(plots.plot_bytes(summaries))
    if any(each.peak_bytes and each.snippets_per_sec for each in measured):
        figures["speed"] = Markup(plots.plot_memory_and_throughput(summaries))
    return figures


def _memory_curves(rows: Sequence[Mapping[str, Any]], *, folder: Path) -> list[dict[str, Any]]:
    """Method and figure of every method one of whose runs counted a step: its memory.json holds the curve."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        file = folder / str(row.get("memory_run")) / "memory.json"
        if row["method"] in found or row.get("memory_run") is None or not file.is_file():
            continue
        measured = json.loads(file.read_text())[0]
        if measured.get("curve"):
            svg = plot_curve(measured["curve"], name=f"memory-{len(found)}")
            found[row["method"]] = {
                "title": row["method"],
                "peak": bytes_text(measured["peak_bytes"]),
                "svg": Markup(svg),
            }
    return list(found.values())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)
