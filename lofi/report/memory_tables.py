"""Tables of memory: for the page, in Markdown, and for the terminal, from the same cells."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lofi.progress import console, is_main_rank
from lofi.report.memory_plots import row_of, seconds_text
from lofi.report.memory_rows import KINDS, PARTS, MemoryLine, memory_lines, notes
from lofi.report.tables import escape_markdown, markdown_lines
from lofi.report.units import NOT_MEASURED, bytes_text, percent, rate_text

PIPED_COLUMNS = 110
"""Width where the output is no terminal."""

Cell = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, kw_only=True)
class MemoryTable:
    """Cells as people read them. The first column names the line; every other belongs to one kind of number."""

    columns: tuple[str, ...]
    """Without the first."""
    kinds: tuple[str, ...]
    """"measured" or "predicted", one per column."""
    lines: tuple[tuple[MemoryLine, tuple[str, ...]], ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """(kind, how many columns), from left to right."""
        return [(kind, self.kinds.count(kind)) for kind in dict.fromkeys(self.kinds)]


def summary_table(lines: Sequence[MemoryLine]) -> MemoryTable:
    """Peak and speed of every line. Columns that no line fills are left out."""
    measured: dict[str, Cell] = {
        "peak": lambda row: bytes_text(row.get("peak_bytes")),
        "reserved": lambda row: bytes_text(row.get("reserved_bytes")),
        "resident": lambda row: bytes_text(row.get("resident_bytes")) if row.get("device") == "cpu" else "-",
        "snippets/s": lambda row: rate_text(row.get("snippets_per_sec")),
        "videos/s": lambda row: _rate(row.get("videos_per_sec")),
        "step": lambda row: seconds_text(row.get("sec_per_step")),
        "waits for data": lambda row: _share(row.get("data_share")),
        "average mAP": lambda row: percent(row.get("average_mAP")),
    }
    predicted: dict[str, Cell] = {
        "peak": lambda row: bytes_text(row.get("peak_bytes")),
        "allocated": lambda row: bytes_text(row.get("allocated_bytes")),
        "reserved": lambda row: bytes_text(row.get("reserved_bytes")),
        "for": lambda row: str(row.get("device") or NOT_MEASURED),
    }
    return _table(lines, measured=measured, predicted=predicted)


def kinds_table(lines: Sequence[MemoryLine]) -> MemoryTable:
    """Bytes by kind at the peak, and the peak of each phase."""
    by_kind: dict[str, Cell] = {kind: _of("bytes", kind, bytes_text) for kind in KINDS}
    by_phase: dict[str, Cell] = {
        f"peak in {phase}": _of("phase_peak_bytes", phase, bytes_text)
        for phase in ("forward", "backward", "optimizer")
    }
    return _table(lines, measured={**by_kind, **by_phase}, predicted=by_kind)


def seconds_table(lines: Sequence[MemoryLine]) -> MemoryTable:
    """Seconds of a step by part."""
    parts: dict[str, Cell] = {part: _of("seconds", part, seconds_text) for part in PARTS}
    whole: dict[str, Cell] = {
        "step": lambda row: seconds_text(row.get("sec_per_step")),
        "transfer alone": lambda row: seconds_text(row.get("transfer_sec")),
    }
    return _table(lines, measured={**parts, **whole}, predicted={})


def markdown_memory_table(table: MemoryTable) -> str:
    """The table in Markdown; the kind of every column stands in its header."""
    header = [
        "method",
        "recipe",
        *(f"{name} ({kind})" for name, kind in zip(table.columns, table.kinds, strict=True)),
    ]
    lines = [
        [escape_markdown(line.method), escape_markdown(line.recipe), *cells] for line, cells in table.lines
    ]
    return markdown_lines(header, lines, num_left=2)


def print_memory_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the summary and its notes, on the main rank only."""
    if not is_main_rank():
        return
    lines = memory_lines(rows)
    out = console if console.is_terminal else Console(file=console.file, width=PIPED_COLUMNS)
    table = summary_table(lines)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("method", overflow="fold", max_width=28)
    for name, kind in zip(table.columns, table.kinds, strict=True):
        shown.add_column(name if kind == "measured" else f"{name}, predicted", justify="right")
    for line, cells in table.lines:
        shown.add_row(Text(line.label), *cells)
    out.print()
    out.print(shown, soft_wrap=False)
    for line in lines:
        if line.failure is not None and not line.is_out_of_memory:
            out.print(Text(f"{line.recipe}: {' '.join(line.failure.split())}", style="red"), soft_wrap=False)
    out.print(Text(" ".join(notes(lines)), style="dim"), soft_wrap=False)


def _table(
    lines: Sequence[MemoryLine], *, measured: Mapping[str, Cell], predicted: Mapping[str, Cell]
) -> MemoryTable:
    columns = [(name, "measured", cell) for name, cell in measured.items()]
    columns += [(name, "predicted", cell) for name, cell in predicted.items()]
    filled = [
        [NOT_MEASURED if row is None else cell(row) for line in lines for row in (row_of(line, kind),)]
        for _, kind, cell in columns
    ]
    kept = [index for index, cells in enumerate(filled) if any(cell != NOT_MEASURED for cell in cells)]
    if not kept:
        kept = [0]
    tried = [index for index in kept if columns[index][1] == "measured"]
    rows = []
    for place, line in enumerate(lines):
        cells = [filled[index][place] for index in kept]
        if line.failure is not None and tried and tried[0] == kept[0]:
            cells[0] = line.failure if line.is_out_of_memory else "failed"
        rows.append((line, tuple(cells)))
    return MemoryTable(
        columns=tuple(columns[index][0] for index in kept),
        kinds=tuple(columns[index][1] for index in kept),
        lines=tuple(rows),
    )


def _of(block: str, name: str, text: Callable[[float | None], str]) -> Cell:
    return lambda row: text((row.get(block) or {}).get(name))


def _share(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{100 * value:.0f} %"


def _rate(per_sec: float | None) -> str:
    return f"{per_sec:.2f}" if per_sec is not None and per_sec < 10 else rate_text(per_sec)
