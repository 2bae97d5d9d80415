"""The figure of a sweep, as an <svg> element."""

from collections.abc import Sequence
from math import nan

import matplotlib as mpl
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from lofi.report.axes import marker, new_figure
from lofi.report.plots import method_colour
from lofi.report.svg_style import METHOD_COLOURS, STYLE, svg_text
from lofi.report.sweep import SweepPoint

DIGIT_SHARE = 0.016
"""Width of a tick's character, as a share of the axis."""


def plot_sweep(sweep: Sequence[SweepPoint]) -> str:
    """Average mAP against the knob: a line for the mean of each method, a band from its lowest to its highest seed, and a
    dot for each seed. A line has a hole where its method gave no numbers."""
    values = [point.value for point in sweep]
    num_methods = len(sweep[0].summaries)
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(2.9)
        for index, summaries in enumerate(zip(*(point.summaries for point in sweep), strict=True)):
            colour = METHOD_COLOURS[method_colour(index, num_methods=num_methods)]
            seeds = [[100 * each for each in summary.average_mAP_per_seed] for summary in summaries]
            if max(map(len, seeds)) > 1:
                low, high = ([end(each) if each else nan for each in seeds] for end in (min, max))
                axes.fill_between(values, low, high, color=colour, alpha=0.16, lw=0)
                dots = [(x, y) for x, here in zip(values, seeds, strict=True) for y in here]
                axes.plot(*zip(*dots, strict=True), ".", ms=3.5, color=colour, alpha=0.7, clip_on=False)
            means = [nan if each.average_mAP is None else 100 * each.average_mAP for each in summaries]
            axes.plot(values, means, color=colour, marker=marker(index), ms=5, lw=1.8, clip_on=False)
        margin = 0.04 * (values[-1] - values[0]) or 0.1
        axes.set_xlim(values[0] - margin, values[-1] + margin)
        axes.set_ylim(0, None)
        axes.xaxis.set_major_locator(FixedLocator(_apart(values)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y")
        axes.set_xlabel("scene correlation (how often the scene tells the class)")
        axes.set_ylabel("average mAP, percent")
        return svg_text(figure, name="sweep")


def _apart(values: Sequence[float]) -> list[float]:
    """Values whose labels do not touch; the last is always one of them."""
    span = (values[-1] - values[0]) or 1.0
    kept = [values[-1]]
    for value in reversed(values[:-1]):
        characters = (len(f"{value:g}") + len(f"{kept[0]:g}")) / 2 + 0.5
        if kept[0] - value >= DIGIT_SHARE * characters * span:
            kept.insert(0, value)
    return kept
