"""A folder with memory.json -> memory.md and memory.html beside it. The page stands alone, as `page` does."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lofi.files import write_text
from lofi.report import memory_plots
from lofi.report.memory_rows import KINDS, PARTS, MemoryLine, is_end_to_end, memory_lines, notes
from lofi.report.memory_tables import kinds_table, markdown_memory_table, seconds_table, summary_table
from lofi.report.plots import method_colour
from lofi.report.svg_style import STYLE_SHEET
from lofi.report.tables import escape_markdown, markdown_lines
from lofi.report.units import bytes_text

TEMPLATE = Path(__file__).with_name("memory_page.html.j2")

Row = Mapping[str, Any]


def write_memory_report(folder: str | Path, *, title: str, date: str | None = None) -> tuple[Path, Path]:
    """Read FOLDER/memory.json and write FOLDER/memory.md and FOLDER/memory.html. Returns their paths."""
    folder = Path(folder)
    rows = read_memory_rows(folder / "memory.json")
    markdown, page = folder / "memory.md", folder / "memory.html"
    write_text(markdown, render_memory_markdown(rows, title=title))
    write_text(page, render_memory_page(rows, title=title, date=date))
    return markdown, page


def read_memory_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a memory.json. Raises FileNotFoundError or ValueError, which say what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; it must be a memory.json: a list with one row per recipe."
        )
    try:
        rows = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} is no memory.json: it must be a list with one row (an object) per recipe.")
    return rows


def render_memory_markdown(rows: Sequence[Row], *, title: str) -> str:
    """The rows as Markdown tables."""
    lines = memory_lines(rows)
    parts = [
        f"# {escape_markdown(title)}\n",
        f"**{escape_markdown(headline(lines))}**\n",
        markdown_memory_table(summary_table(lines)),
        "".join(f"- {escape_markdown(note)}\n" for note in notes(lines)),
    ]
    failures = [line for line in lines if line.failure is not None and not line.is_out_of_memory]
    if failures:
        parts.append("".join(f"- {escape_markdown(f'{line.recipe}: {line.failure}')}\n" for line in failures))
    parts += ["## Bytes by kind and phase\n", markdown_memory_table(kinds_table(lines))]
    if any(line.measured for line in lines):
        parts += ["## Seconds of a step\n", markdown_memory_table(seconds_table(lines))]
    made = [[escape_markdown(name), escape_markdown(value)] for name, value in how_it_was_made(rows)]
    parts += ["## How it was made\n", markdown_lines(["what", "value"], made, num_left=2)]
    return "\n".join(parts)


def render_memory_page(rows: Sequence[Row], *, title: str, date: str | None = None) -> str:
    """The rows as one HTML page."""
    lines = memory_lines(rows)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = _breakable
    return environment.from_string(TEMPLATE.read_text()).render(
        title=title,
        date=date,
        style=Markup(STYLE_SHEET.read_text()),
        headline=headline(lines),
        kind_sentence=_kind_sentence(lines),
        colours={
            line.recipe: method_colour(index, num_methods=len(lines)) for index, line in enumerate(lines)
        },
        summary=summary_table(lines),
        kinds=kinds_table(lines),
        seconds=seconds_table(lines) if any(line.measured for line in lines) else None,
        notes=notes(lines),
        failures=[line for line in lines if line.failure is not None and not line.is_out_of_memory],
        figures=_figures(lines),
        byte_kinds=list(enumerate(KINDS)),
        parts=list(enumerate(PARTS)),
        curves=memory_curves(lines),
        made=how_it_was_made(rows),
    )


def memory_curves(lines: Sequence[MemoryLine]) -> list[dict[str, Any]]:
    """Title, peak and figure of every line that has a curve; a measured one is taken before a predicted one."""
    found = []
    for index, line in enumerate(lines):
        for row in (line.measured, line.predicted):
            if row is not None and row.get("curve"):
                svg = memory_plots.plot_curve(row["curve"], name=f"curve-{index}")
                peak = bytes_text(max(map(sum, zip(*row["curve"]["live_bytes"].values(), strict=True))))
                found.append({"title": line.label, "peak": peak, "kind": row["kind"], "svg": Markup(svg)})
                break
    return found


def headline(lines: Sequence[MemoryLine]) -> str:
    """The least peak beside the greatest, in one sentence: of what was measured, else predicted; of the methods that
    train end to end, where there are several."""
    for kind in ("measured", "predicted"):
        peaks = [
            (float(row["peak_bytes"]), line)
            for line in lines
            if (row := memory_plots.row_of(line, kind)) and row.get("peak_bytes")
        ]
        end_to_end = [(peak, line) for peak, line in peaks if is_end_to_end(line)]
        if len(end_to_end) > 1:
            peaks = end_to_end
        if not peaks:
            continue
        least, low = min(peaks, key=lambda each: each[0])
        most, high = max(peaks, key=lambda each: each[0])
        start = f"{low.label}: {bytes_text(least)} at the peak"
        if most > 1.05 * least:
            start += f", {most / least:.1f} times less than {high.label} ({bytes_text(most)})"
        return f"{start}, {kind}"
    return "No recipe gave numbers."


def how_it_was_made(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Name and value of what one needs to know to make the numbers again; of several values, all."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        environment = dict(row.get("environment") or {})
        command = environment.pop("command", None)
        packages = environment.pop("packages", None) or row.get("versions") or {}
        values = {
            "kinds": row["kind"],
            "command": shlex.join(command) if isinstance(command, list) else command,
            "device": row.get("device"),
            "precision": row.get("precision"),
            "input": row.get("input"),
            "warm-up steps": row.get("warm_up"),
            "timed steps": row.get("steps") if row["kind"] == "measured" else None,
            **{name.replace("_", " "): value for name, value in environment.items() if name != "device"},
            "packages": ", ".join(f"{name} {version}" for name, version in packages.items()) or None,
        }
        for name, value in values.items():
            if value is not None:
                found.setdefault(name, {})[str(value)] = None
    return [(name, "; ".join(values)) for name, values in found.items()]


def _breakable(name: str) -> Markup:
    """A recipe's name that a narrow column may break after an underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _kind_sentence(lines: Sequence[MemoryLine]) -> str:
    measured = [line.measured for line in lines if line.measured is not None]
    parts = []
    if measured:
        devices = ", ".join(dict.fromkeys(str(row.get("device")) for row in measured))
        parts.append(f"Measured on {devices}")
    if any(line.predicted is not None for line in lines):
        parts.append(
            "predicted numbers stand in columns and figures of their own"
            if parts
            else "Every number is predicted"
        )
    return f"{'; '.join(parts)}." if parts else ""


def _figures(lines: Sequence[MemoryLine]) -> dict[str, Markup]:
    """Name -> figure, of those whose numbers are there."""
    figures = {}
    for kind in ("measured", "predicted"):
        if any((row := memory_plots.row_of(line, kind)) and row.get("bytes") for line in lines):
            figures[kind] = Markup(memory_plots.plot_bytes_by_kind(lines, kind=kind))
    measured = [line.measured for line in lines if line.measured is not None]
    if any(row.get("peak_bytes") and row.get("snippets_per_sec") for row in measured):
        figures["speed"] = Markup(memory_plots.plot_memory_and_speed(lines))
    if any(row.get("seconds") for row in measured):
        figures["seconds"] = Markup(memory_plots.plot_seconds(lines))
    return figures
