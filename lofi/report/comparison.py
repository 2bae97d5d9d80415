"""Rows of a comparison (one per method and seed) -> one summary per method, one per stage, and the headline.

Plain numbers in, plain numbers out: fractions between 0 and 1, bytes, seconds. Spreads are sample standard deviations
over seeds (divisor n - 1), None for one seed. A gain is paired: the difference to the first method at the same seed,
averaged over the seeds that both have, since a seed fixes the weights, the data order and the shared stages of both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from lofi.report.units import percent

Row = Mapping[str, Any]

NO_RESULT = "no average mAP: the last stage of its chain was not evaluated"
MAX_SHOWN_TIOUS = 5
USUAL_TIOUS = (0.5, 0.75, 0.95)


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Average mAP above that of the first method, paired by seed."""

    mean: float
    deviation: float | None
    num_seeds: int


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One seed of a method that gave no numbers."""

    seed: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """One method over its seeds. Means are over the seeds that gave numbers; None where none was measured."""

    method: str
    seeds: tuple[int, ...]
    """Seeds that gave numbers, in the order of the rows."""
    average_mAP_per_seed: tuple[float, ...]
    """Fractions, one per entry of `seeds`."""
    average_mAP: float | None
    deviation: float | None
    """Of the average mAP over seeds."""
    mAP: Mapping[str, float]
    """tIoU, such as "0.50" -> mean fraction, in rising tIoU."""
    mAP_range: Mapping[str, tuple[float, float]]
    """tIoU -> lowest and highest fraction over the seeds."""
    gain: Gain | None
    """None for the first method, and where no number of either method is there."""
    peak_bytes: float | None
    bytes_by_kind: Mapping[str, float]
    """Kind, such as "activations" -> mean bytes at the peak; empty where it was not measured."""
    snippets_per_sec: float | None
    seconds: float | None
    trained_parameters: float | None
    kinds: tuple[str, ...]
    """What the numbers are: measured, predicted, from a paper."""
    failures: tuple[Failure, ...]


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """One stage of one method over its seeds; a shared stage stands once for all methods."""

    method: str | None
    """None for a stage that several methods share."""
    name: str
    """Of its recipe; of a shared stage also those of the stages before it: "tac_tiny -> extract_tiny"."""
    kind: str
    """"train" or "extract"."""
    num_runs: int
    runs: tuple[str, ...]
    """Run directories, relative to the report's folder."""
    seconds: float | None
    peak_bytes: float | None
    snippets_per_sec: float | None
    skipped_videos: int
    """Sum over the runs."""


def summarise(rows: Sequence[Row]) -> list[MethodSummary]:
    """One summary per method, in the order of first appearance. Raises ValueError on a row that is not whole."""
    _check(rows)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    first = [row for row in rows if row["method"] == methods[0] and failure_reason(row) is None]
    return [
        _summarise_method(method, [row for row in rows if row["method"] == method], first=first)
        for method in methods
    ]


def failure_reason(row: Row) -> str | None:
    """Why a row has no numbers; None where it has."""
    if "error" in row:
        return str(row["error"])
    return NO_RESULT if row["average_mAP"] is None else None


def summarise_stages(rows: Sequence[Row]) -> list[StageSummary]:
    """Shared stages first, then each method's own, in the order of first appearance."""
    groups: dict[tuple[str | None, str, str], dict[str, Row]] = {}
    for row in rows:
        names: list[str] = []
        for stage in row.get("stages", ()):
            names.append(stage["name"])
            is_shared = bool(stage.get("shared"))
            # A recipe may stand in several chains: what comes before it says which of them this one is.
            name = " -> ".join(names) if is_shared else stage["name"]
            run = stage.get("run", f"{row['seed']}/{name}")
            groups.setdefault((None if is_shared else row["method"], name, stage["kind"]), {})[run] = stage
    ordered = sorted(groups.items(), key=lambda item: item[0][0] is not None)
    return [
        StageSummary(
            method=method,
            name=name,
            kind=kind,
            num_runs=len(stages),
            runs=tuple(stages),
            seconds=_mean(stages.values(), "seconds"),
            peak_bytes=_mean(stages.values(), "peak_bytes"),
            snippets_per_sec=_mean(stages.values(), "snippets_per_sec"),
            skipped_videos=sum(stage.get("skipped_videos") or 0 for stage in stages.values()),
        )
        for (method, name, kind), stages in ordered
    ]


def headline(summaries: Sequence[MethodSummary]) -> str:
    """The result in one sentence: the best method, its spread, and how far it is above the first."""
    best = max(
        (summary for summary in summaries if summary.average_mAP is not None),
        key=lambda summary: summary.average_mAP or 0.0,
        default=None,
    )
    if best is None:
        return "No method gave numbers."
    start = f"{best.method}: {percent(best.average_mAP, best.deviation)} average mAP"
    if best.gain is None or len(summaries) == 1:
        others = sum(summary.average_mAP is not None for summary in summaries) - 1
        if best is summaries[0] and others > 0:
            return f"{start}, no other method is above it"
        return start
    size = f"{100 * abs(best.gain.mean):.1f} points {'above' if best.gain.mean >= 0 else 'below'}"
    in_spread = best.gain.deviation is not None and abs(best.gain.mean) <= best.gain.deviation
    return f"{start}, {size} {summaries[0].method}{', within the spread of the seeds' if in_spread else ''}"


def tiou_keys(summaries: Sequence[MethodSummary]) -> list[str]:
    """Every tIoU at which a method was evaluated, rising."""
    return sorted({key for summary in summaries for key in summary.mAP}, key=float)


def shown_tious(keys: Sequence[str]) -> list[str]:
    """The tIoUs for a narrow table: all of up to five, otherwise 0.50, 0.75 and 0.95 or first, middle and last."""
    if len(keys) <= MAX_SHOWN_TIOUS:
        return list(keys)
    usual = [key for key in keys if any(abs(float(key) - tiou) < 1e-6 for tiou in USUAL_TIOUS)]
    return usual if len(usual) == len(USUAL_TIOUS) else [keys[0], keys[len(keys) // 2], keys[-1]]


def notes(rows: Sequence[Row]) -> list[str]:
    """What each column of the table means, one sentence each."""
    summaries = summarise(rows)
    keys = tiou_keys(summaries)
    num_seeds = max((len(summary.seeds) for summary in summaries), default=0)
    spread = "± is the sample standard deviation over seeds" if num_seeds > 1 else "one seed, so no spread"
    average = (
        f"; the average is over tIoU {keys[0]} to {keys[-1]} ({len(keys)} thresholds)"
        if len(keys) > 1
        else ""
    )
    shared = any(stage.get("shared") for row in rows for stage in row.get("stages", ()))
    sentences = [f"mAP in percent{average}; {spread}."]
    if len(summaries) > 1:
        sentences.append(f"Gain in points of average mAP over {summaries[0].method}, paired by seed.")
    sentences.append(
        "Peak memory (of one rank) and snippets/s (all ranks, decoding included) are those of the method's own training "
        "stage with the greatest peak"
        + (
            "; a stage that methods share is listed with the stages and counts only for a method that has no other."
            if shared
            else "."
        )
    )
    sentences.append(
        f"Time is the sum of all stages of the chain, per seed{', the shared ones included' if shared else ''}."
    )
    return sentences


def _summarise_method(method: str, rows: Sequence[Row], *, first: Sequence[Row]) -> MethodSummary:
    good = [row for row in rows if failure_reason(row) is None]
    averages = tuple(float(row["average_mAP"]) for row in good)
    maps = [row.get("mAP") or {} for row in good]
    keys = sorted((key for key in (maps[0] if maps else {}) if all(key in each for each in maps)), key=float)
    breakdowns = [row["bytes"] for row in good if row.get("bytes")]
    kinds_of_bytes = dict.fromkeys(kind for each in breakdowns for kind in each)
    is_first = bool(first) and first[0]["method"] == method
    return MethodSummary(
        method=method,
        seeds=tuple(row["seed"] for row in good),
        average_mAP_per_seed=averages,
        average_mAP=fmean(averages) if averages else None,
        deviation=stdev(averages) if len(averages) > 1 else None,
        mAP={key: fmean(each[key] for each in maps) for key in keys},
        mAP_range={key: (min(each[key] for each in maps), max(each[key] for each in maps)) for key in keys},
        gain=None if is_first else _gain(good, first=first),
        peak_bytes=_mean(good, "peak_bytes"),
        bytes_by_kind={kind: fmean(each.get(kind, 0) for each in breakdowns) for kind in kinds_of_bytes},
        snippets_per_sec=_mean(good, "snippets_per_sec"),
        seconds=_mean(good, "seconds"),
        trained_parameters=_mean(good, "trained_parameters"),
        kinds=tuple(dict.fromkeys(row.get("kind", "measured") for row in good)),
        failures=tuple(
            Failure(seed=row["seed"], reason=reason)
            for row in rows
            if (reason := failure_reason(row)) is not None
        ),
    )


def _gain(rows: Sequence[Row], *, first: Sequence[Row]) -> Gain | None:
    reference = {row["seed"]: float(row["average_mAP"]) for row in first}
    differences = [
        float(row["average_mAP"]) - reference[row["seed"]] for row in rows if row["seed"] in reference
    ]
    if not differences:
        return None
    deviation = stdev(differences) if len(differences) > 1 else None
    return Gain(mean=fmean(differences), deviation=deviation, num_seeds=len(differences))


def _mean(rows: Iterable[Row], key: str) -> float | None:
    values = [float(row[key]) for row in rows if row.get(key) is not None]
    return fmean(values) if values else None


def _check(rows: Sequence[Row]) -> None:
    seen: set[tuple[str, int]] = set()
    for index, row in enumerate(rows):
        needed = ("method", "seed") if "error" in row else ("method", "seed", "average_mAP")
        missing = [key for key in needed if key not in row]
        if missing:
            raise ValueError(
                f"row {index} of the comparison has no {', '.join(missing)}; a row needs method, seed and "
                "average_mAP, or method, seed and error."
            )
        if (row["method"], row["seed"]) in seen:
            raise ValueError(
                f"row {index} of the comparison repeats method {row['method']!r} with seed {row['seed']}; each "
                "pair may stand there once."
            )
        seen.add((row["method"], row["seed"]))
