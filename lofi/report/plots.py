"""Figures of the comparison page, as <svg> elements."""

from collections.abc import Sequence

import matplotlib as mpl
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
from lofi.report.comparison import MethodSummary, tiou_keys
from lofi.report.loss_curves import LossCurves
from lofi.report.svg_style import (
    INK,
    METHOD_COLOURS,
    NUM_METHOD_COLOURS,
    NUM_PART_COLOURS,
    PAGE,
    PART_COLOURS,
    STYLE,
    svg_text,
)
from lofi.report.units import bytes_text, percent


def plot_average_map(summaries: Sequence[MethodSummary]) -> str:
    """Average mAP of each method: a bar for the mean, a dot for each seed."""
    with mpl.rc_context(STYLE):
        shown = _with_numbers(summaries)
        figure, axes = new_figure(0.75 + 0.36 * len(shown))
        for row, (index, summary) in enumerate(shown):
            axes.barh(
                row,
                100 * (summary.average_mAP or 0.0),
                height=0.56,
                color=METHOD_COLOURS[method_colour(index, num_methods=len(summaries))],
                alpha=0.85,
            )
            seeds = summary.average_mAP_per_seed
            if len(seeds) > 1:
                rows = [row + 0.3 * (place / (len(seeds) - 1) - 0.5) for place in range(len(seeds))]
                values = [100 * value for value in seeds]
                axes.plot(values, rows, "o", ms=4.2, mfc=PAGE, mec=INK, mew=0.9, clip_on=False, zorder=3)
            right = 100 * max((summary.average_mAP or 0.0), *seeds)
            text = percent(summary.average_mAP, summary.deviation)
            axes.annotate(
                text, (right, row), (7, 0), textcoords="offset points", va="center", fontweight="bold"
            )
        name_rows(axes, [summary.method for _, summary in shown])
        highest = max(100 * max(summary.average_mAP_per_seed) for _, summary in shown)
        axes.set_xlim(0, max(1.0, 1.28 * highest))
        axes.xaxis.set_major_locator(FixedLocator(_percent_ticks(highest)))
        axes.grid(axis="x")
        axes.set_xlabel("average mAP, percent")
        return svg_text(figure, name="average-map")


def plot_map_at_tiou(summaries: Sequence[MethodSummary]) -> str:
    """mAP against tIoU: a line for the mean of each method, a band from its lowest to its highest seed."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(2.7)
        for index, summary in _with_numbers(summaries):
            tious = [float(key) for key in summary.mAP]
            low, high = ([100 * pair[end] for pair in summary.mAP_range.values()] for end in (0, 1))
            axes.fill_between(
                tious,
                low,
                high,
                color=METHOD_COLOURS[method_colour(index, num_methods=len(summaries))],
                alpha=0.16,
                lw=0,
            )
            means = [100 * value for value in summary.mAP.values()]
            axes.plot(
                tious,
                means,
                color=METHOD_COLOURS[method_colour(index, num_methods=len(summaries))],
                marker=marker(index),
                ms=4,
                lw=1.8,
            )
        axes.set_ylim(0, None)
        keys = tiou_keys(summaries)
        axes.xaxis.set_major_locator(
            FixedLocator([float(key) for key in keys[:: max(1, -(-len(keys) // 6))]])
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:.2f}"))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y")
        axes.set_xlabel("tIoU threshold")
        axes.set_ylabel("mAP, percent")
        return svg_text(figure, name="map-at-tiou")


def plot_bytes(summaries: Sequence[MethodSummary]) -> str:
    """What the peak consists of: one stacked bar per method."""
    with mpl.rc_context(STYLE):
        shown = [(index, summary) for index, summary in _with_numbers(summaries) if summary.bytes_by_kind]
        parts = byte_kinds(summaries)
        figure, axes = new_figure(0.75 + 0.36 * len(shown))
        totals = [sum(summary.bytes_by_kind.values()) for _, summary in shown]
        for row, (_, summary) in enumerate(shown):
            left = 0.0
            for place, part in enumerate(parts):
                size = summary.bytes_by_kind.get(part, 0.0)
                axes.barh(
                    row,
                    size,
                    left=left,
                    height=0.56,
                    color=PART_COLOURS[place % NUM_PART_COLOURS],
                    ec=PAGE,
                    lw=0.6,
                )
                left += size
            axes.annotate(
                bytes_text(left),
                (left, row),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontweight="bold",
            )
        name_rows(axes, [summary.method for _, summary in shown])
        axes.set_xlim(0, 1.28 * max([*totals, 1.0]))
        step = binary_step(max(totals))
        axes.xaxis.set_major_locator(
            FixedLocator([step * count for count in range(int(max(totals) / step) + 1)])
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: short_bytes(value)))
        axes.grid(axis="x")
        axes.set_xlabel("bytes at the peak")
        return svg_text(figure, name="bytes")


def plot_memory_and_throughput(summaries: Sequence[MethodSummary]) -> str:
    """Peak memory against snippets per second, each point labelled with its average mAP."""
    with mpl.rc_context(STYLE):
        shown = [
            (index, summary)
            for index, summary in _with_numbers(summaries)
            if summary.peak_bytes and summary.snippets_per_sec
        ]
        figure, axes = new_figure(2.7)
        memory = [summary.peak_bytes or 0.0 for _, summary in shown]
        speed = [summary.snippets_per_sec or 0.0 for _, summary in shown]
        set_scale(axes, "x", memory, text=short_bytes, base=2)
        set_scale(
            axes, "y", speed, text=lambda value: f"{value:,.0f}" if value >= 10 else f"{value:g}", base=10
        )
        for (index, _), x, y in zip(shown, memory, speed, strict=True):
            axes.plot(
                [x],
                [y],
                marker=marker(index),
                ms=7,
                color=METHOD_COLOURS[method_colour(index, num_methods=len(summaries))],
                mec=PAGE,
                mew=0.8,
                ls="",
            )
        axes.grid()
        axes.set_xlabel("peak memory (left is better)")
        axes.set_ylabel("snippets/s (up is better)")
        figure.draw_without_rendering()
        taken = [around(axes, x, y) for x, y in zip(memory, speed, strict=True)]
        for (_, summary), x, y in zip(shown, memory, speed, strict=True):
            label_point(
                axes, f"{short_name(summary.method)} {percent(summary.average_mAP)}", (x, y), taken=taken
            )
        return svg_text(figure, name="memory-and-throughput")


def plot_losses(losses: LossCurves, *, name: str) -> str:
    """A small plot of one stage's loss, one line per run; `name` keeps its ids apart from those of other figures."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(1.5, width=2.7)
        for steps, values in losses.curves:
            axes.plot(steps, values, color=METHOD_COLOURS[1], lw=1.1, alpha=0.8)
        axes.set_ylim(0 if min(values.min() for _, values in losses.curves) >= 0 else None, None)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.grid(axis="y")
        return svg_text(figure, name=name)


def method_colour(index: int, *, num_methods: int) -> int:
    """Which --method colour the method at this place has: 0, a grey, belongs to the first of several alone."""
    if index == 0:
        return 0 if num_methods > 1 else 1
    return 1 + (index - 1) % (NUM_METHOD_COLOURS - 1)


def byte_kinds(summaries: Sequence[MethodSummary]) -> list[str]:
    """Kinds of bytes in the order of their colours."""
    return list(dict.fromkeys(kind for summary in summaries for kind in summary.bytes_by_kind))


def _with_numbers(summaries: Sequence[MethodSummary]) -> list[tuple[int, MethodSummary]]:
    """Methods with their place, which gives the colour, so that a method keeps it in every figure."""
    return [(index, each) for index, each in enumerate(summaries) if each.average_mAP is not None]


def _percent_ticks(highest: float) -> list[float]:
    step = next((step for step in (1, 2, 5, 10, 20, 25) if highest / step <= 5), 25)
    return [step * count for count in range(int(min(highest * 1.1, 100) / step) + 1)]
