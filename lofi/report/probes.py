"""What probes found in the features of each method (`probe` of a comparison's rows), as a table.

Means over seeds with sample standard deviations, as everywhere in a comparison.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from lofi.report.comparison import MethodSummary, Row
from lofi.report.units import NOT_MEASURED, percent

PROBES = {
    "class, linear": ("class", "balanced_accuracy"),
    "chance": ("class", "chance"),
    "action / background, linear": ("region", "balanced_accuracy"),
    "adjacent": ("temporal_sensitivity", "adjacent"),
    "distant": ("temporal_sensitivity", "distant"),
}
"""Column -> where its number stands in a row's probe."""

COLUMNS = ("average mAP", *PROBES)
TITLE = "What the features hold"
NOTES = (
    "Class and action / background: balanced accuracy (percent) of a linear layer, fitted on the features of all training videos "
    "and measured on the validation videos'; chance for action / background is 50.",
    "Adjacent, distant: mean cosine similarity of neighbouring snippets and of snippets half a video apart; equal ones tell of "
    "features that are blind to when.",
    "Features are those of the chain's last extraction; - where a chain extracts none.",
)


def has_probes(rows: Sequence[Row]) -> bool:
    """Whether the comparison probed features."""
    return any("probe" in row for row in rows)


def probe_lines(summaries: Sequence[MethodSummary], rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Method and its cells under `COLUMNS`; empty where nothing was probed."""
    if not has_probes(rows):
        return []
    return [
        (
            each.method,
            [
                percent(each.average_mAP, each.deviation),
                *_cells([r for r in rows if r["method"] == each.method]),
            ],
        )
        for each in summaries
    ]


def probe_notes(rows: Sequence[Row]) -> list[str]:
    """What the columns mean, and which probes failed."""
    failures = [
        f"{row['method']}, seed {row['seed']}: not probed: {' '.join(str(row['probe_error']).split())}"
        for row in rows
        if row.get("probe_error")
    ]
    return [*NOTES, *failures] if has_probes(rows) else []


def _cells(rows: Sequence[Row]) -> list[str]:
    found: list[Mapping[str, Any]] = [row["probe"] for row in rows if row.get("probe")]
    cells = []
    for column, (probe, key) in PROBES.items():
        values = [float(each[probe][key]) for each in found if each[probe][key] is not None]
        mean = fmean(values) if values else None
        deviation = stdev(values) if len(values) > 1 else None
        if probe == "temporal_sensitivity":
            cells.append(NOT_MEASURED if mean is None else f"{mean:.3f}")
        else:
            cells.append(percent(mean, None if column == "chance" else deviation))
    return cells
