"""Figures of an evaluation, as <svg> elements: precision-recall, AP per class, recall, and the error analysis."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from lofi.report.axes import WIDTH_INCHES, name_rows, new_figure, short_name
from lofi.report.evaluation import class_averages, spoken
from lofi.report.svg_style import INK, METHOD_COLOURS, MUTED, PAGE, PART_COLOURS, STYLE, svg_text

MOST_CLASSES = 24
"""Above this the bars are of the best and the worst classes alone."""
CLASSES_AT_EACH_END = 10
TYPE_COLOURS = {
    "true_positive": 5,
    "double_detection": 1,
    "wrong_label": 4,
    "localization": 0,
    "confusion": 3,
    "background": 2,
}
"""Type of prediction -> its --part colour."""
_MOST_LABELS = 6
"""tIoUs named in a figure."""


def plot_precision_recall(curves: Mapping[str, Any], *, mAP: Mapping[str, float]) -> str:
    """Precision against recall, the mean over the classes: a line per tIoU, the paler the stricter."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(2.9)
        mean = curves["mean"]
        for (tiou, precision), strength in zip(mean.items(), _strengths(len(mean)), strict=True):
            axes.plot(
                _percents(curves["recall"]),
                _percents(precision),
                color=METHOD_COLOURS[1],
                alpha=strength,
                lw=1.6,
                label=f"{tiou}  mAP {100 * mAP[tiou]:.1f}" if tiou in _some(mean) else "_",
            )
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 101)
        axes.grid()
        axes.set_xlabel("recall, percent")
        axes.set_ylabel("precision, percent")
        axes.legend(
            frameon=False, title="tIoU", title_fontsize=8, fontsize=8, loc="upper right", labelcolor=INK
        )
        return svg_text(figure, name="precision-recall")


def plot_map_at_tiou(results: Mapping[str, Any]) -> str:
    """mAP against tIoU, with its interval as a band; beside it the predictions that it is compared with."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(2.9)
        tious = [float(tiou) for tiou in results["mAP"]]
        if results.get("bootstrap"):
            ends = [results["bootstrap"]["mAP"][tiou] for tiou in results["mAP"]]
            low, high = (_percents([pair[end] for pair in ends]) for end in (0, 1))
            axes.fill_between(tious, low, high, color=METHOD_COLOURS[1], alpha=0.16, lw=0)
        axes.plot(tious, _percents(results["mAP"].values()), "o-", color=METHOD_COLOURS[1], ms=4, lw=1.8)
        if results.get("against"):
            other = _percents(results["against"]["mAP"].values())
            axes.plot(tious, other, "s--", color=METHOD_COLOURS[2], ms=3.6, lw=1.4)
        axes.set_ylim(0, None)
        shown = [float(tiou) for tiou in _some(results["mAP"])]
        axes.xaxis.set_major_locator(FixedLocator(shown))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:.2f}"))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y")
        axes.set_xlabel("tIoU threshold")
        axes.set_ylabel("mAP, percent")
        return svg_text(figure, name="map-at-tiou")


def plot_average_recall(curve: Mapping[str, Any]) -> str:
    """Recall against proposals per video: the mean over the tIoUs, and each of them, the paler the stricter."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(2.9)
        for values, strength in zip(curve["tIoU"].values(), _strengths(len(curve["tIoU"])), strict=True):
            axes.plot(curve["proposals"], _percents(values), color=METHOD_COLOURS[1], alpha=strength, lw=0.8)
        axes.plot(curve["proposals"], _percents(curve["mean"]), color=INK, lw=1.8)
        axes.set_xlim(0, _end_of_rise(curve))
        axes.set_ylim(0, 101)
        axes.grid()
        axes.set_xlabel("proposals per video, on average")
        axes.set_ylabel("recall, percent")
        return svg_text(figure, name="average-recall")


def plot_class_ap(results: Mapping[str, Any]) -> str:
    """AP of each class, best first: a bar for the mean over the tIoUs, a dot for the lowest of them."""
    with mpl.rc_context(STYLE):
        ordered = class_averages(results)
        is_whole = len(ordered) <= MOST_CLASSES
        shown = ordered if is_whole else [*ordered[:CLASSES_AT_EACH_END], *ordered[-CLASSES_AT_EACH_END:]]
        gap = 0.0 if is_whole else 1.4
        rows = [row + (gap if row >= CLASSES_AT_EACH_END else 0.0) for row in range(len(shown))]
        figure, axes = new_figure(0.55 + 0.175 * (len(shown) + gap))
        axes.barh(
            rows, _percents([value for _, value in shown]), height=0.62, color=METHOD_COLOURS[1], alpha=0.85
        )
        lowest = next(iter(results["mAP"]))
        at_lowest = _percents([results["AP"][name][lowest] for name, _ in shown])
        axes.plot(at_lowest, rows, "o", ms=3.2, mfc=PAGE, mec=INK, mew=0.8, clip_on=False, zorder=3)
        name_rows(axes, [])
        axes.set_yticks(rows, [short_name(name) for name, _ in shown])
        axes.set_ylim(rows[-1] + 0.6, -0.6)
        if gap:
            axes.annotate(
                f"{len(ordered) - len(shown)} classes between", (0, CLASSES_AT_EACH_END - 0.3 + gap / 2), (4, 0),
                textcoords="offset points", va="center", color=MUTED,
            )  # fmt: skip
        axes.set_xlim(0, max(1.0, *at_lowest) * 1.02)
        axes.grid(axis="x")
        axes.set_xlabel("AP, percent")
        return svg_text(figure, name="class-ap")


def plot_false_positives(errors: Mapping[str, Any]) -> str:
    """What the predictions of every class are, best first, G at a time: one stacked bar for each G."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(3.2)
        shares = errors["false_positives"]["band_shares"]
        for place, band in enumerate(shares):
            bottom = 0.0
            for name, colour in TYPE_COLOURS.items():
                height = 100 * (band or {}).get(name, 0.0)
                axes.bar(
                    place + 1, height, bottom=bottom, width=0.78, color=PART_COLOURS[colour], ec=PAGE, lw=0.5
                )
                bottom += height
        axes.set_xlim(0.4, len(shares) + 0.6)
        axes.set_ylim(0, 100)
        axes.xaxis.set_major_locator(FixedLocator(range(1, len(shares) + 1)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:.0f}G"))
        axes.spines["bottom"].set_visible(False)
        axes.set_xlabel("predictions, best first")
        axes.set_ylabel("share, percent")
        patches = [
            Patch(color=PART_COLOURS[colour], label=spoken(name)) for name, colour in TYPE_COLOURS.items()
        ]
        figure.legend(
            handles=patches,
            loc="outside upper left",
            ncols=3,
            frameon=False,
            handlelength=0.8,
            handleheight=0.8,
        )
        return svg_text(figure, name="false-positives")


def plot_gains(errors: Mapping[str, Any]) -> str:
    """What average mAP would gain without each type of error."""
    with mpl.rc_context(STYLE):
        gains = errors["false_positives"]["gains"]
        figure, axes = new_figure(0.75 + 0.32 * len(gains))
        for row, (name, gain) in enumerate(gains.items()):
            axes.barh(row, 100 * gain, height=0.56, color=PART_COLOURS[TYPE_COLOURS[name]])
            axes.annotate(
                f"{100 * gain:+.2f}", (max(100 * gain, 0.0), row), (5, 0), textcoords="offset points",
                va="center", fontweight="bold",
            )  # fmt: skip
        name_rows(axes, [spoken(name) for name in gains])
        values = _percents(gains.values())
        axes.set_xlim(min(0.0, *values), 1.25 * max(0.1, *values))
        axes.grid(axis="x")
        axes.set_xlabel("gain of average mAP, points")
        return svg_text(figure, name="gains")


def plot_buckets(errors: Mapping[str, Any], *, which: str) -> str:
    """`average_mAP_N` or `missed` of the instances of each bucket of each property; the line is that of all instances."""
    with mpl.rc_context(STYLE):
        buckets = errors["sensitivity"]["buckets"]
        buckets = {name: rows for name, rows in buckets.items() if any(row["instances"] for row in rows)}
        figure = Figure(figsize=(WIDTH_INCHES, 2.5), dpi=72, layout="constrained")
        panels = figure.subplots(1, max(1, len(buckets)), sharey=True, squeeze=False)[0]
        for axes, (name, rows) in zip(panels, buckets.items(), strict=False):
            _bucket_panel(axes, rows, which=which, of_all=errors["sensitivity"][which])
            axes.set_xlabel(_PROPERTIES.get(name, spoken(name)))
        panels[0].set_ylabel("mAP-N, percent" if which == "average_mAP_N" else "missed, percent")
        return svg_text(figure, name=which.replace("_", "-"))


_PROPERTIES = {
    "coverage": "share of the video",
    "length": "length, seconds",
    "num_instances": "instances in the video",
}


def _bucket_panel(axes: Axes, rows: Sequence[Mapping[str, Any]], *, which: str, of_all: float | None) -> None:
    for place, row in enumerate(rows):
        if row[which] is not None:
            axes.bar(place, 100 * row[which], width=0.7, color=METHOD_COLOURS[1], alpha=0.85)
    if of_all is not None:
        axes.axhline(100 * of_all, color=INK, lw=0.9, ls=(0, (3, 2)))
    axes.set_xticks(range(len(rows)), [_border_text(row) for row in rows])
    axes.tick_params(length=0, labelsize=6.5)
    axes.grid(axis="y")
    axes.spines["bottom"].set_visible(False)


def _border_text(row: Mapping[str, Any]) -> str:
    """The bucket's name over its upper border, "S" over "≤.4"; the last has a lower one alone."""
    if row["up_to"] is not None:
        return f"{row['name']}\n≤{_short_number(row['up_to'])}"
    return f"{row['name']}\n>{_short_number(row['above'])}" if row["above"] is not None else row["name"]


def _short_number(value: float) -> str:
    return f"{value:g}".removeprefix("0") or "0"


def class_curve(recall: Sequence[float], curves: Mapping[str, Sequence[float]]) -> str:
    """A small precision-recall plot of one class, without numbers: a line per tIoU. Drawn by hand, since there are many."""
    lines = []
    for precision, strength in zip(curves.values(), _strengths(len(curves)), strict=True):
        points = list(zip(recall, precision, strict=True))
        kept = [
            point
            for place, point in enumerate(points)
            if place in (0, len(points) - 1) or not points[place - 1][1] == point[1] == points[place + 1][1]
        ]
        text = " ".join(f"{100 * x:.0f},{60 * (1 - y):.1f}" for x, y in kept)
        lines.append(f'<polyline points="{text}" stroke-opacity="{strength:.2f}"/>')
    return (
        '<svg viewBox="-1 -1 102 62"><path d="M0 0V60H100" stroke="var(--rule)" fill="none"/>'
        f'<g fill="none" stroke="var(--method-1)" stroke-width="1.4">{"".join(lines)}</g></svg>'
    )


def _end_of_rise(curve: Mapping[str, Any]) -> float:
    """Proposals per video a little beyond those that add nothing more."""
    highest, most = max(curve["mean"]), max(curve["proposals"])
    risen = next(
        count for count, value in zip(curve["proposals"], curve["mean"], strict=True) if value >= highest
    )
    return float(min(most, max(1.4 * risen, most / 20)) or 1.0)


def _percents(values: Any) -> list[float]:
    return [100 * float(value) for value in values]


def _some(tious: Mapping[str, Any]) -> list[str]:
    """At most `_MOST_LABELS` of the thresholds, evenly."""
    keys = list(tious)
    return keys[:: -(-len(keys) // _MOST_LABELS)]


def _strengths(count: int) -> list[float]:
    """Opacity of the lines, from the loosest to the strictest threshold."""
    return [1.0 - 0.75 * place / max(1, count - 1) for place in range(count)]
