"""Rows of a sweep (one per knob value, method and seed) -> summaries per value, the headline, and what it rests on.

The knob is the benchmark's scene correlation or the share of labelled videos (`knobs`). The first method of the comparison is
the reference. Gaps are paired by seed, as in `comparison`: at one value, the gain of a method is the mean over
seeds of its difference to the first method.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lofi.report.comparison import Gain, MethodSummary, Row, notes, summarise
from lofi.report.knobs import SCENE_CORRELATION, Knob
from lofi.report.units import percent, points


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """All methods at one value of the knob."""

    knob: Knob
    value: float
    """Of the knob, 0 to 1."""
    rows: tuple[Row, ...]
    summaries: tuple[MethodSummary, ...]
    """In the same order at every value."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The method that is farthest above the first one, at one value."""

    knob: Knob
    value: float
    first: MethodSummary
    best: MethodSummary
    gain: Gain
    """Of `best` over `first`; negative where every method is below it."""


def sweep_points(rows: Sequence[Row], *, knob: Knob = SCENE_CORRELATION) -> list[SweepPoint]:
    """The rows by rising knob value. Raises ValueError on rows that are not whole."""
    for index, row in enumerate(rows):
        if not isinstance(row.get(knob.key), int | float):
            raise ValueError(
                f"row {index} of the sweep has {knob.key} {row.get(knob.key)!r}; it must be a number between 0 and 1."
            )
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found = []
    for value in sorted({row[knob.key] for row in rows}):
        here = [row for row in rows if row[knob.key] == value]
        missing = [method for method in methods if all(row["method"] != method for row in here)]
        if missing:
            raise ValueError(
                f"the sweep has no row of {', '.join(missing)} {knob.at.format(knob.text(value))}; every method needs one "
                "at every value, with numbers or with its error."
            )
        ordered = tuple(sorted(here, key=lambda row: methods.index(row["method"])))
        found.append(SweepPoint(knob=knob, value=value, rows=ordered, summaries=tuple(summarise(ordered))))
    return found


def gaps(sweep: Sequence[SweepPoint]) -> list[Gap]:
    """One per value at which the first method and another gave numbers."""
    found = []
    for point in sweep:
        first, *others = point.summaries
        above = [(each.gain, each) for each in others if each.gain is not None]
        if first.average_mAP is not None and above:
            gain, best = max(above, key=lambda pair: pair[0].mean)
            found.append(Gap(knob=point.knob, value=point.value, first=first, best=best, gain=gain))
    return found


def headline(sweep: Sequence[SweepPoint]) -> str:
    """In one sentence: at which value the first method is farthest behind, and behind which other."""
    if not any(_num_measured(point) for point in sweep):
        return "No method gave numbers."
    name = sweep[0].summaries[0].method
    found = gaps(sweep)
    if not found:
        return f"{name}: no other method gave numbers to set beside it"
    widest = _widest(found)
    if widest.gain.mean <= 0:
        listed = widest.knob.listed([gap.value for gap in found])
        return f"{name}: no other method is above it {widest.knob.at.format(listed)}"
    start = f"{name} is farthest behind" if len(found) > 1 else name
    numbers = f"{_average(widest.first)} against {_average(widest.best)}"
    return (
        f"{start} {where(widest)}: {100 * widest.gain.mean:.1f} points of average mAP below "
        f"{widest.best.method} ({numbers}){_within_spread(widest.gain)}"
    )


def findings(sweep: Sequence[SweepPoint]) -> list[str]:
    """What the headline rests on: every method where the gap is widest, where it is narrowest, the first method itself."""
    found = gaps(sweep)
    if not found:
        return []
    widest, narrowest = _widest(found), min(found, key=lambda gap: gap.gain.mean)
    name = widest.first.method
    others = [
        f"{each.method} {points(each.gain.mean, each.gain.deviation)}{_within_spread(each.gain)}"
        for point in sweep
        if point.value == widest.value
        for each in sorted(point.summaries, key=lambda each: -each.gain.mean if each.gain else 0.0)
        if each.gain is not None
    ]
    sentences = [f"Points over {name} {where(widest)}: {'; '.join(others)}."]
    if len(found) > 1:
        gain = narrowest.gain
        sentences.append(
            f"The best other method is nearest to {name} at {_value(narrowest)}: {narrowest.best.method} "
            f"{points(gain.mean, gain.deviation)}{_within_spread(gain)}."
        )
    own = [
        (point.summaries[0], _value(point)) for point in sweep if point.summaries[0].average_mAP is not None
    ]
    if len(own) > 1:
        (high, at_high), (low, at_low) = (
            end(own, key=lambda pair: pair[0].average_mAP or 0.0) for end in (max, min)
        )
        sentences.append(
            f"{name} itself has its highest average mAP, {_average(high)}, at {at_high} and its lowest, "
            f"{_average(low)}, at {at_low}."
        )
    return sentences


def cost_point(sweep: Sequence[SweepPoint]) -> SweepPoint | None:
    """The value whose memory, speed and time are shown: most methods gave numbers there; of several the greatest."""
    return max(sweep, key=lambda point: (_num_measured(point), point.value), default=None)


def map_notes(sweep: Sequence[SweepPoint]) -> list[str]:
    """What the numbers of the table of average mAP mean."""
    widest = cost_point(sweep)
    if widest is None:
        return []
    return [notes(widest.rows)[0], widest.knob.note]


def cost_notes(sweep: Sequence[SweepPoint]) -> list[str]:
    """What the columns of memory, speed, time and parameters mean."""
    point = cost_point(sweep)
    return (
        []
        if point is None
        else [*notes(point.rows)[-2:], "Trained parameters are those of that training stage."]
    )


def failure_lines(sweep: Sequence[SweepPoint]) -> list[str]:
    """Every chain that gave no numbers, and why."""
    return [
        f"{summary.method} at {_value(point)}, seed {failure.seed}, failed: {' '.join(failure.reason.split())}"
        for point in sweep
        for summary in point.summaries
        for failure in summary.failures
    ]


def cell(summary: MethodSummary) -> str:
    """Average mAP in percent with its deviation; "failed" where no seed gave numbers."""
    return "failed" if summary.average_mAP is None else _average(summary)


def where(place: SweepPoint | Gap) -> str:
    """In words: "at scene correlation 0.8", "with 25 % of the labels"."""
    return place.knob.at.format(_value(place))


def _value(place: SweepPoint | Gap) -> str:
    return place.knob.text(place.value)


def _average(summary: MethodSummary) -> str:
    return percent(summary.average_mAP, summary.deviation)


def _widest(found: Sequence[Gap]) -> Gap:
    return max(found, key=lambda gap: gap.gain.mean)


def _within_spread(gain: Gain) -> str:
    is_within = gain.deviation is not None and abs(gain.mean) <= gain.deviation
    return ", within the spread of the seeds" if is_within else ""


def _num_measured(point: SweepPoint) -> int:
    return sum(summary.average_mAP is not None for summary in point.summaries)
