"""Parts that several figures share: an empty figure, named rows, scales, and labels that keep out of each other's way."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from lofi.report.svg_style import INK, NUM_METHOD_COLOURS
from lofi.report.units import bytes_text

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


def marker(index: int) -> str:
    """The marker of the method at this place."""
    return _MARKERS[(index + index // NUM_METHOD_COLOURS) % len(_MARKERS)]


def new_figure(height: float, *, width: float = WIDTH_INCHES) -> tuple[Figure, Axes]:
    """An empty figure of this size in inches; draw within `mpl.rc_context(STYLE)`."""
    figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
    axes = figure.subplots()
    axes.tick_params(length=0)
    return figure, axes


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Rows of horizontal bars, the first on top, with their names."""
    axes.set_yticks(range(len(names)), [short_name(name) for name in names])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.spines["bottom"].set_visible(False)


def short_name(name: str) -> str:
    """At most `LONGEST_NAME` characters."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def binary_step(largest: float) -> float:
    """The power of two that gives two to four steps."""
    step = 1.0
    while largest / step > 4:
        step *= 2
    return step


def short_bytes(num_bytes: float) -> str:
    """Bytes for a tick: "64 MiB"."""
    return bytes_text(num_bytes).replace(".0 ", " ") if num_bytes else "0"


def set_scale(
    axes: Axes, which: str, values: Sequence[float], *, text: Callable[[float], str], base: int
) -> None:
    """Logarithmic where the values are far apart, else from zero; with room at the ends for labels."""
    is_x = which == "x"
    axis = axes.xaxis if is_x else axes.yaxis
    change_scale, set_limits = (axes.set_xscale, axes.set_xlim) if is_x else (axes.set_yscale, axes.set_ylim)
    low, high = min(values), max(values)
    if high / low >= LOG_FROM_RATIO:
        change_scale("log", base=base)
        margin = (high / low) ** 0.2
        set_limits(low / margin, high * margin)
        axis.set_major_locator(
            LogLocator(base=base, subs=(1.0, 2.0, 5.0) if base == 10 else (1.0,), numticks=6)
        )
        axis.set_minor_locator(NullLocator())
    else:
        set_limits(0, 1.3 * high)
        step = binary_step(high) if base == 2 else None
        ticks = FixedLocator([step * count for count in range(int(1.3 * high / step) + 1)]) if step else None
        axis.set_major_locator(ticks or MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, position: text(value)))
    axis.set_minor_formatter(NullFormatter())


def around(axes: Axes, x: float, y: float, *, radius: float = 6.0) -> Bbox:
    """What a point covers on the canvas, for `label_point`."""
    column, row = axes.transData.transform((x, y))
    return Bbox([[column - radius, row - radius], [column + radius, row + radius]])


def label_point(axes: Axes, text: str, point: tuple[float, float], *, taken: list[Bbox]) -> None:
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
