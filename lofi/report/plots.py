"""Figures of the comparison page, as <svg> elements."""

from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

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

WIDTH_INCHES = 4.7
LONGEST_NAME = 20
LOG_FROM_RATIO = 8.0
"""A scale is logarithmic where the largest value is this many times the smallest."""

_MARKERS = "osD^vPX*"
_LABEL_PLACES = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (5, 7, "left", "bottom"),
    (5, -7, "left", "top"),
    (-5, 7, "right", "bottom"),
    (-5, -7, "right", "top"),
)
"""Offset in points, and which side of the text is there; the first is taken where all are equally free."""


def plot_average_map(summaries: Sequence[MethodSummary]) -> str:
    """Average mAP of each method: a bar for the mean, a dot for each seed."""
    with mpl.rc_context(STYLE):
        shown = _with_numbers(summaries)
        figure, axes = _figure(0.75 + 0.36 * len(shown))
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
        _name_rows(axes, [summary.method for _, summary in shown])
        highest = max(100 * max(summary.average_mAP_per_seed) for _, summary in shown)
        axes.set_xlim(0, max(1.0, 1.28 * highest))
        axes.xaxis.set_major_locator(FixedLocator(_percent_ticks(highest)))
        axes.grid(axis="x")
        axes.set_xlabel("average mAP, percent")
        return svg_text(figure, name="average-map")


def plot_map_at_tiou(summaries: Sequence[MethodSummary]) -> str:
    """mAP against tIoU: a line for the mean of each method, a band from its lowest to its highest seed."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(2.7)
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
                marker=_marker(index),
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
        figure, axes = _figure(0.75 + 0.36 * len(shown))
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
        _name_rows(axes, [summary.method for _, summary in shown])
        axes.set_xlim(0, 1.28 * max([*totals, 1.0]))
        step = _binary_step(max(totals))
        axes.xaxis.set_major_locator(
            FixedLocator([step * count for count in range(int(max(totals) / step) + 1)])
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: _short_bytes(value)))
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
        figure, axes = _figure(2.7)
        memory = [summary.peak_bytes or 0.0 for _, summary in shown]
        speed = [summary.snippets_per_sec or 0.0 for _, summary in shown]
        _scale(axes, "x", memory, text=_short_bytes, base=2)
        _scale(axes, "y", speed, text=lambda value: f"{value:,.0f}" if value >= 10 else f"{value:g}", base=10)
        for (index, _), x, y in zip(shown, memory, speed, strict=True):
            axes.plot(
                [x],
                [y],
                marker=_marker(index),
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
        taken = [_around(axes, x, y) for x, y in zip(memory, speed, strict=True)]
        for (_, summary), x, y in zip(shown, memory, speed, strict=True):
            _label(axes, f"{_short(summary.method)} {percent(summary.average_mAP)}", (x, y), taken=taken)
        return svg_text(figure, name="memory-and-throughput")


def plot_losses(losses: LossCurves, *, name: str) -> str:
    """A small plot of one stage's loss, one line per run; `name` keeps its ids apart from those of other figures."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(1.5, width=2.7)
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


def _marker(index: int) -> str:
    return _MARKERS[(index + index // NUM_METHOD_COLOURS) % len(_MARKERS)]


def _figure(height: float, *, width: float = WIDTH_INCHES) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
    axes = figure.subplots()
    axes.tick_params(length=0)
    return figure, axes


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.spines["bottom"].set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _percent_ticks(highest: float) -> list[float]:
    step = next((step for step in (1, 2, 5, 10, 20, 25) if highest / step <= 5), 25)
    return [step * count for count in range(int(min(highest * 1.1, 100) / step) + 1)]


def _binary_step(largest: float) -> float:
    """The power of two that gives two to four steps."""
    step = 1.0
    while largest / step > 4:
        step *= 2
    return step


def _short_bytes(num_bytes: float) -> str:
    return bytes_text(num_bytes).replace(".0 ", " ") if num_bytes else "0"


def _scale(
    axes: Axes, which: str, values: Sequence[float], *, text: Callable[[float], str], base: int
) -> None:
    """Logarithmic where the values are far apart, else from zero; with room at the ends for labels."""
    is_x = which == "x"
    axis = axes.xaxis if is_x else axes.yaxis
    set_scale, set_limits = (axes.set_xscale, axes.set_xlim) if is_x else (axes.set_yscale, axes.set_ylim)
    low, high = min(values), max(values)
    if high / low >= LOG_FROM_RATIO:
        set_scale("log", base=base)
        margin = (high / low) ** 0.2
        set_limits(low / margin, high * margin)
        axis.set_major_locator(
            LogLocator(base=base, subs=(1.0, 2.0, 5.0) if base == 10 else (1.0,), numticks=6)
        )
        axis.set_minor_locator(NullLocator())
    else:
        set_limits(0, 1.3 * high)
        step = _binary_step(high) if base == 2 else None
        ticks = FixedLocator([step * count for count in range(int(1.3 * high / step) + 1)]) if step else None
        axis.set_major_locator(ticks or MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, position: text(value)))
    axis.set_minor_formatter(NullFormatter())


def _around(axes: Axes, x: float, y: float, *, radius: float = 6.0) -> Bbox:
    column, row = axes.transData.transform((x, y))
    return Bbox([[column - radius, row - radius], [column + radius, row + radius]])


def _label(axes: Axes, text: str, point: tuple[float, float], *, taken: list[Bbox]) -> None:
    """Write beside the point, at the place where it covers least of what is there and of what lies outside."""
    column, row = axes.transData.transform(point)
    width, height = 4.6 * len(text), 9.0
    frame = axes.get_window_extent().padded(10)

    def cost(place: tuple[int, int, str, str]) -> float:
        box = _box_at(column, row, place=place, width=width, height=height)
        outside = width * height - _shared_area(box, frame)
        return outside + sum(_shared_area(box, other) for other in taken)

    place = min(_LABEL_PLACES, key=cost)
    dx, dy, horizontal, vertical = place
    axes.annotate(text, point, (dx, dy), textcoords="offset points", ha=horizontal, va=vertical, fontsize=8)
    taken.append(_box_at(column, row, place=place, width=width, height=height))


def _box_at(
    column: float, row: float, *, place: tuple[int, int, str, str], width: float, height: float
) -> Bbox:
    dx, dy, horizontal, vertical = place
    left = column + dx - width * {"left": 0.0, "center": 0.5, "right": 1.0}[horizontal]
    bottom = row + dy - height * {"bottom": 0.0, "center": 0.5, "top": 1.0}[vertical]
    return Bbox.from_bounds(left, bottom, width, height)


def _shared_area(first: Bbox, second: Bbox) -> float:
    shared = Bbox.intersection(first, second)
    return 0.0 if shared is None else float(shared.width * shared.height)
