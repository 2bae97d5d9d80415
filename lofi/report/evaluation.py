"""results.json in words: what was scored, what deserves a warning, what a comparison of two prediction files says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_WARNINGS = {
    "unknown_labels": "of {predictions:,} predictions have a label without an instance in the subset; ignored",
    "outside": "of {predictions:,} predictions lie in videos that the subset does not have; they count as false",
    "reversed": "of {predictions:,} predictions end before they start; they match nothing and count as false",
    "zero_length": "of {predictions:,} predictions have no length",
    "missing_videos": "of {videos:,} videos have no prediction; their instances count as missed",
    "duplicate_instances": "of {instances:,} instances are annotated twice",
    "zero_length_instances": "of {instances:,} instances have no length",
    "reversed_instances": "of {instances:,} instances end before they start",
    "instances_outside_video": "of {instances:,} instances reach outside their video by more than half a second",
}


def subject(results: Mapping[str, Any]) -> str:
    """What was scored: "thumos14, test: 213 videos, 3,358 instances of 20 classes; 212,000 predictions; protocol default"."""
    source, counts = results.get("source", {}), results.get("counts", {})
    named = ", ".join(str(source[key]) for key in ("dataset", "subset") if source.get(key))
    parts = []
    if {"videos", "instances", "classes"} <= set(counts):
        parts.append(
            f"{counts['videos']:,} videos, {counts['instances']:,} instances of {counts['classes']:,} classes"
        )
    if "predictions" in counts:
        parts.append(f"{counts['predictions']:,} predictions")
    parts.append(f"protocol {results.get('protocol', 'default')}")
    return f"{named}: {'; '.join(parts)}" if named else "; ".join(parts)


def warnings(counts: Mapping[str, int]) -> list[str]:
    """One line for every count that a careful reader would ask about."""
    known = {"predictions": 0, "videos": 0, "instances": 0} | dict(counts)
    return [f"{counts[key]:,} {text.format(**known)}" for key, text in _WARNINGS.items() if counts.get(key)]


def class_averages(results: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Class and its AP averaged over the tIoUs, best first."""
    averages = [(name, sum(values.values()) / len(values)) for name, values in results["AP"].items()]
    return sorted(averages, key=lambda pair: (-pair[1], pair[0]))


def comparison_rows(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """mAP per tIoU of both files and their difference, in points with its sign."""
    other = results["against"]["mAP"]
    return {
        "this": dict(results["mAP"]),
        "other": dict(other),
        "difference": {tiou: f"{100 * (value - other[tiou]):+.2f}" for tiou, value in results["mAP"].items()},
    }


def comparison_sentence(against: Mapping[str, Any]) -> str:
    """What the paired test means, in plain words."""
    other = Path(against["predictions"]).name
    difference = against["difference"]
    if against["p_value"] >= 1 and difference == 0:
        return f"No difference from {other}: the average mAP is the same."
    side = "above" if difference > 0 else "below"
    low, high = against["interval"]
    numbers = (
        f"{abs(100 * difference):.2f} points {side} {other} in average mAP "
        f"({100 * against['confidence']:.0f} % interval {100 * low:+.2f} to {100 * high:+.2f}, "
        f"p {p_text(against['p_value'])}, {against['samples']:,} paired bootstrap samples of the videos)."
    )
    if low <= 0 <= high or against["p_value"] >= 1 - against["confidence"]:
        return f"{numbers} A difference of this size can come from the choice of test videos alone."
    return (
        f"{numbers} The choice of test videos does not explain it; other training seeds might, and this test says "
        "nothing of them."
    )


def error_rows(errors: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header, and a row per type of prediction: its share of the G and of the 10 G best, and what mAP gains without it."""
    found = errors["false_positives"]
    shares = [band or {} for band in found["best_shares"]]
    header = ["predictions", "of the G best", f"of the {len(shares)} G best", "average mAP without"]
    rows = []
    for name in ("true_positive", *found["gains"]):
        gain = found["gains"].get(name)
        rows.append(
            [
                spoken(name),
                _percent_or_dash(shares[0].get(name)),
                _percent_or_dash(shares[-1].get(name)),
                "" if gain is None else f"{100 * gain:+.2f}",
            ]
        )
    rows.append(["all of these errors", "", "", f"{100 * found['gain_of_all']:+.2f}"])
    return header, rows


def missed_sentence(errors: Mapping[str, Any]) -> str:
    """The share of instances that are not found, over all predictions."""
    return (
        f"{_percent_or_dash(errors['sensitivity']['missed'])} of the instances are missed (mean over the tIoUs): nothing "
        "hits them, or only behind so many false positives that normalised precision is 0.05 or less."
    )


def spoken(name: str) -> str:
    """A name of the files as one reads it: "double_detection" is "double detection"."""
    return name.replace("_", " ")


def _percent_or_dash(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def p_text(p_value: float) -> str:
    """ "= 0.012", or "< 0.001"."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"
