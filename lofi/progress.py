"""A live bar for everything longer than two seconds; plain lines where the output is no terminal.

with track("videos written", total=140) as advance:
    ...
    advance(1, note="video_017.mp4")
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

LINE_EVERY_SEC = 10.0

console = Console(soft_wrap=True, highlight=False)


class Advance:
    """Call it as work gets done: `advance(count, note=...)`."""

    def __init__(self, update: Callable[[int, str], None]) -> None:
        self._update = update

    def __call__(self, count: int = 1, *, note: str = "") -> None:
        self._update(count, note)


def is_main_rank() -> bool:
    """True on the one process that talks (and writes) for all ranks."""
    return int(os.environ.get("RANK", "0")) == 0


def say(message: str) -> None:
    """Print one line, on the main rank only."""
    if is_main_rank():
        console.print(message, markup=False)


@contextmanager
def track(title: str, *, total: int, done: int = 0, is_even: bool = True) -> Iterator[Advance]:
    """Show progress of `total` units, of which `done` were finished by an earlier run.

    `is_even`: whether units take like times; where they do not, the time that is left is not estimated.
    """
    if not is_main_rank():
        yield Advance(lambda count, note: None)
    elif sys.stdout.isatty():
        left = TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7))
        columns: tuple[ProgressColumn, ...] = (
            TextColumn(
                "{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=36)
            ),
            BarColumn(bar_width=12),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=9)),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
            *((left,) if is_even else ()),
            TextColumn(
                "{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            ),
        )
        with Progress(*columns, console=console, expand=True) as progress:
            task = progress.add_task(title, total=total, completed=done, note="")

            def update(count: int, note: str) -> None:
                progress.advance(task, count)
                if note:
                    progress.update(task, note=note)

            yield Advance(update)
    else:
        yield from _lines(title, total=total, done=done, is_even=is_even)


def _lines(title: str, *, total: int, done: int, is_even: bool) -> Iterator[Advance]:
    start = last = time.monotonic()
    count_done = done

    def update(count: int, note: str) -> None:
        nonlocal last, count_done
        count_done += count
        now = time.monotonic()
        if now - last >= LINE_EVERY_SEC and count_done < total:
            last = now
            per_sec = (count_done - done) / (now - start)
            left = f", {(total - count_done) / per_sec:.0f} s left" if is_even and per_sec > 0 else ""
            console.print(f"{title}: {count_done}/{total}{left}  {note}", markup=False)

    yield Advance(update)
    seconds = time.monotonic() - start
    console.print(f"{title}: {count_done}/{total} in {seconds:.1f} s", markup=False)
