"""Figures of memory: bytes by kind, memory over one step, seconds by part, memory against speed. As <svg> elements."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from lofi.report.axes import (
    around,
    binary_step,
    label_point,
    marker,
    name_rows,
    new_figure,
    set_scale,
    short_bytes,
    short_name,
)
from lofi.report.memory_rows import KINDS, PARTS, MemoryLine
from lofi.report.plots import method_colour
from lofi.report.svg_style import INK, METHOD_COLOURS, MUTED, PAGE, PART_COLOURS, STYLE, svg_text
from lofi.report.units import bytes_text, percent

MAX_CURVE_POINTS = 100


def plot_bytes_by_kind(lines: Sequence[MemoryLine], *, kind: str) -> str:
    """One stacked bar per recipe. kind: "measured" or "predicted"; a figure holds one of the two."""
    shown = [(line.label, row["bytes"]) for line in lines if (row := row_of(line, kind)) and row.get("bytes")]
    return _stacked_bars(
        shown,
        parts=[part for part in KINDS if any(part in values for _, values in shown)],
        text=bytes_text,
        axis_label=f"bytes at the peak, {kind}",
        name=f"bytes-{kind}",
    )


def plot_seconds(lines: Sequence[MemoryLine]) -> str:
    """Where the seconds of a step go: one stacked bar per recipe."""
    shown = [
        (line.label, line.measured["seconds"])
        for line in lines
        if line.measured and line.measured.get("seconds")
    ]
    return _stacked_bars(
        shown,
        parts=list(PARTS),
        text=seconds_text,
        axis_label="seconds per step, measured",
        name="seconds",
    )


def plot_curve(curve: Mapping[str, Any], *, name: str) -> str:
    """Live bytes over one step, the kinds stacked; rules where a phase begins. `name` keeps its ids apart."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(1.75, width=3.1)
        operations = np.array(curve["operations"], dtype=float)
        bytes_of_kinds = [np.array(curve["live_bytes"].get(kind, ()), dtype=float) for kind in KINDS]
        stacked = np.stack([each if each.size else np.zeros_like(operations) for each in bytes_of_kinds])
        kept = _peaks(stacked.sum(axis=0), most=MAX_CURVE_POINTS)
        shown = [row for row in range(len(KINDS)) if stacked[row].any()]
        axes.stackplot(
            operations[kept],
            stacked[shown][:, kept],
            colors=[PART_COLOURS[row] for row in shown],
            step="post",
            lw=0,
        )
        end = max(float(curve["num_operations"]), 1.0)
        highest = max(1.0, float(stacked.sum(axis=0).max()))
        for phase in curve["phases"]:
            axes.axvline(phase["start"], color=MUTED, lw=0.7, ls=(0, (3, 2)))
            axes.annotate(
                phase["name"], (phase["start"], 1.0), (2, 1), xycoords=("data", "axes fraction"),
                textcoords="offset points", fontsize=7, color=MUTED, va="bottom",
            )  # fmt: skip
        axes.set_xlim(0, end)
        axes.set_ylim(0, 1.04 * highest)
        _byte_ticks(axes, "y", highest)
        axes.xaxis.set_major_locator(FixedLocator([]))
        axes.grid(axis="y")
        return svg_text(figure, name=name)


def plot_memory_and_speed(lines: Sequence[MemoryLine]) -> str:
    """Peak memory against snippets per second, each point with its average mAP where a run has one."""
    with mpl.rc_context(STYLE):
        shown = [
            (index, line, line.measured)
            for index, line in enumerate(lines)
            if line.measured and line.measured.get("peak_bytes") and line.measured.get("snippets_per_sec")
        ]
        figure, axes = new_figure(3.2)
        memory = [float(row["peak_bytes"]) for _, _, row in shown]
        speed = [float(row["snippets_per_sec"]) for _, _, row in shown]
        set_scale(axes, "x", memory, text=short_bytes, base=2)
        set_scale(
            axes, "y", speed, text=lambda value: f"{value:,.0f}" if value >= 10 else f"{value:g}", base=10
        )
        for (index, _, _), x, y in zip(shown, memory, speed, strict=True):
            axes.plot(
                [x],
                [y],
                marker=marker(index),
                ms=7,
                color=METHOD_COLOURS[method_colour(index, num_methods=len(lines))],
                mec=PAGE,
                mew=0.8,
                ls="",
            )
        axes.grid()
        axes.set_xlabel("peak bytes (left is better)")
        axes.set_ylabel("snippets/s (up is better)")
        figure.draw_without_rendering()
        taken = [around(axes, x, y) for x, y in zip(memory, speed, strict=True)]
        for (_, line, row), x, y in zip(shown, memory, speed, strict=True):
            accuracy = row.get("average_mAP")
            text = (
                short_name(line.label)
                if accuracy is None
                else f"{short_name(line.label)} {percent(accuracy)}"
            )
            label_point(axes, text, (x, y), taken=taken)
        return svg_text(figure, name="memory-and-speed")


def row_of(line: MemoryLine, kind: str) -> Mapping[str, Any] | None:
    """The line's row of a kind."""
    return line.measured if kind == "measured" else line.predicted


def seconds_text(seconds: float | None) -> str:
    """Seconds of a step: "1.23 s", "45.6 ms"."""
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def _stacked_bars(
    shown: Sequence[tuple[str, Mapping[str, float]]],
    *,
    parts: Sequence[str],
    text: Any,
    axis_label: str,
    name: str,
) -> str:
    order = KINDS if set(parts) <= set(KINDS) else PARTS
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(0.75 + 0.3 * len(shown))
        totals = [sum(values.get(part, 0.0) for part in parts) for _, values in shown]
        for row, (_, values) in enumerate(shown):
            left = 0.0
            for part in parts:
                size = float(values.get(part, 0.0))
                colour = PART_COLOURS[order.index(part)]
                axes.barh(row, size, left=left, height=0.6, color=colour, ec=PAGE, lw=0.5)
                left += size
            axes.annotate(
                text(left), (left, row), (5, 0), textcoords="offset points", va="center", fontweight="bold", color=INK
            )  # fmt: skip
        name_rows(axes, [label for label, _ in shown])
        highest = max([*totals, 1e-9])
        axes.set_xlim(0, 1.28 * highest)
        if order is KINDS:
            _byte_ticks(axes, "x", highest)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
        axes.grid(axis="x")
        axes.set_xlabel(axis_label)
        return svg_text(figure, name=name)


def _byte_ticks(axes: Axes, which: str, highest: float) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    step = binary_step(highest)
    axis.set_major_locator(FixedLocator([step * count for count in range(int(highest / step) + 1)]))
    axis.set_major_formatter(FuncFormatter(lambda value, position: short_bytes(value)))


def _peaks(values: np.ndarray, *, most: int) -> list[int]:
    """At most `most` places, of each stretch the highest, so that no peak is lost. values: (N,)."""
    edges = np.linspace(0, len(values), min(most, len(values)) + 1).astype(int)
    return [int(first + values[first:last].argmax()) for first, last in pairwise(edges)]
