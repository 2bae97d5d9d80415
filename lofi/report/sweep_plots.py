"""The figure of a sweep, as an <svg> element."""

from collections.abc import Sequence
from math import nan

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from lofi.report.axes import WIDTH_INCHES, marker, new_figure
from lofi.report.comparison import MethodSummary
from lofi.report.plots import method_colour
from lofi.report.svg_style import INK, METHOD_COLOURS, STYLE, svg_text
from lofi.report.sweep import SweepPoint

DIGIT_SHARE = 0.016
"""Width of a tick's character, as a share of the axis."""
LEGEND_INCHES = 1.2
SIDE_BY_SIDE = 0.012
"""Between the bars of two methods, as a share of the axis."""


def plot_sweep(sweep: Sequence[SweepPoint], *, legend: bool = False) -> str:
    """Average mAP against the knob: a line for the mean of each method, with its spread: a band from the lowest to the highest
    seed and a dot for each, or bars of one deviation side by side. A line has a hole where its method gave no numbers. The
    page names the lines; with `legend` the figure does."""
    knob = sweep[0].knob
    places = [knob.place(point.value) for point in sweep]
    span = places[-1] - places[0]
    num_methods = len(sweep[0].summaries)
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(2.9, width=WIDTH_INCHES + (LEGEND_INCHES if legend else 0.0))
        for index, summaries in enumerate(zip(*(point.summaries for point in sweep), strict=True)):
            colour = METHOD_COLOURS[method_colour(index, num_methods=num_methods)]
            if knob.is_labels:
                aside = SIDE_BY_SIDE * span * (index - (num_methods - 1) / 2)
                here = [place + aside for place in places]
                _draw_bars(axes, here, summaries, colour=colour)
            else:
                here = places
                _draw_bands(axes, here, summaries, colour=colour)
            means = [nan if each.average_mAP is None else 100 * each.average_mAP for each in summaries]
            style = {"marker": marker(index), "ms": 5, "lw": 1.8, "label": summaries[0].method}
            axes.plot(here, means, color=colour, clip_on=False, **style)
        margin = 0.04 * span or 0.1
        if knob.is_labels:
            margin += SIDE_BY_SIDE * span * num_methods / 2
        axes.set_xlim(places[0] - margin, places[-1] + margin)
        axes.set_ylim(0, None)
        names = dict(zip(places, (knob.text(point.value) for point in sweep), strict=True))
        axes.xaxis.set_major_locator(FixedLocator(_apart(names)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda place, position: names.get(place, "")))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y")
        axes.set_xlabel(knob.axis)
        axes.set_ylabel("average mAP, percent")
        if legend:
            figure.legend(loc="outside right upper", frameon=False, labelcolor=INK)
        return svg_text(figure, name="sweep")


def _draw_bands(
    axes: Axes, places: Sequence[float], summaries: Sequence[MethodSummary], *, colour: str
) -> None:
    seeds = [[100 * each for each in summary.average_mAP_per_seed] for summary in summaries]
    if max(map(len, seeds)) <= 1:
        return
    low, high = ([end(each) if each else nan for each in seeds] for end in (min, max))
    axes.fill_between(places, low, high, color=colour, alpha=0.16, lw=0)
    dots = [(x, y) for x, here in zip(places, seeds, strict=True) for y in here]
    axes.plot(*zip(*dots, strict=True), ".", ms=3.5, color=colour, alpha=0.7, clip_on=False)


def _draw_bars(
    axes: Axes, places: Sequence[float], summaries: Sequence[MethodSummary], *, colour: str
) -> None:
    for place, each in zip(places, summaries, strict=True):
        if each.average_mAP is not None and each.deviation is not None:
            axes.errorbar(
                place, 100 * each.average_mAP, 100 * each.deviation, color=colour, elinewidth=1.2, capsize=2.4
            )


def _apart(names: dict[float, str]) -> list[float]:
    """Places, in rising order, whose labels do not touch; the last is always one of them."""
    places = list(names)
    span = (places[-1] - places[0]) or 1.0
    kept = [places[-1]]
    for place in reversed(places[:-1]):
        characters = (len(names[place]) + len(names[kept[0]])) / 2 + 0.5
        if kept[0] - place >= DIGIT_SHARE * characters * span:
            kept.insert(0, place)
    return kept
