"""The check of a folder of videos in the terminal. Reads check.json's content."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lofi.progress import console
from lofi.report.units import bytes_text

PIPED_COLUMNS = 140
"""Width where the output is no terminal."""
NUM_REMARKS_SHOWN = 20
NUM_VALUES_SHOWN = 4
FAULTS = ("missing", "broken", "shorter")


def print_check(document: Mapping[str, Any]) -> None:
    """Print every fault, the first remarks, and how many there are of each kind."""
    out = console if console.is_terminal else Console(file=console.file, width=PIPED_COLUMNS)
    entries = document["database"]
    faults = [(name, row) for name, entry in entries.items() for row in entry["faults"]]
    remarks = [(name, row) for name, entry in entries.items() for row in entry["remarks"]]
    for title, rows in (("fault", faults), ("remark", remarks[:NUM_REMARKS_SHOWN])):
        if not rows:
            continue
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("video", title, "what"):
            table.add_column(heading, overflow="fold")
        for name, row in rows:
            table.add_row(Text(name), Text(row["kind"]), Text(row["text"]))
        out.print(table, soft_wrap=False)
    if len(remarks) > NUM_REMARKS_SHOWN:
        out.print(f"and {len(remarks) - NUM_REMARKS_SHOWN} more remarks")
    for line in summary_lines(document):
        out.print(Text(line), soft_wrap=True)


def summary_lines(document: Mapping[str, Any]) -> list[str]:
    """How many videos, hours and bytes; how many of each kind of fault and remark."""
    entries = document["database"].values()
    opened = [entry for entry in entries if "frames" in entry]
    num_wrong = sum(bool(entry["faults"]) for entry in entries)
    hours = sum(entry["duration"] for entry in opened) / 3600
    size = bytes_text(sum(entry["bytes"] for entry in opened))
    counts = document["counts"]
    faults = ", ".join(f"{counts[kind]} {kind}" for kind in FAULTS if counts[kind])
    remarks = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count and kind not in FAULTS)
    right = f"{len(entries) - num_wrong} of {len(entries)} videos are right"
    lines = [
        right + (f", {num_wrong} with a fault: {faults}" if num_wrong else ""),
        f"opened: {len(opened)} videos, {hours:.2f} h, {size}" + (f"; remarks: {remarks}" if remarks else ""),
    ]
    if opened:
        rates = _most_common(f"{entry['fps']:.4g}" for entry in opened)
        sizes = _most_common(f"{entry['width']}x{entry['height']}" for entry in opened)
        lines.append(f"frames per second: {rates}; width x height: {sizes}")
    return lines


def _most_common(values: Iterable[str]) -> str:
    """The values that most videos have, with how many: "30 (12), 25 (3), 2 more"."""
    counts = Counter(values).most_common()
    shown = [f"{value} ({count})" for value, count in counts[:NUM_VALUES_SHOWN]]
    return ", ".join(shown) + (f", {len(counts) - len(shown)} more" if len(counts) > len(shown) else "")
