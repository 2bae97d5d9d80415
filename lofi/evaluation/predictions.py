"""predictions.json and results.json: the files that evaluation reads and writes.

predictions.json is ActivityNet's own form, so that every existing tool reads it:
`{"version": V, "results": {VIDEO: [{"segment": [START, END], "label": NAME, "score": X}]}, "external_data": {}}`, seconds.
results.json: `{"mAP": {"0.50": X, ...}, "average_mAP": X, "AR": {"1": X, "5": X, "10": X, "100": X}, "AUC": X}`,
fractions between 0 and 1, with counts of predictions beside them. Both are written whole or not at all.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lofi.evaluation.average_recall import AverageRecall
from lofi.evaluation.mean_average_precision import MeanAveragePrecision, tiou_key
from lofi.files import write_json
from lofi.segments import Detection

RECALL_AT = (1, 5, 10, 100)


@dataclass(frozen=True, kw_only=True)
class Results:
    """results.json as values; fractions between 0 and 1."""

    mAP: dict[str, float]
    """tIoU threshold, two digits -> mAP."""
    average_mAP: float
    AR: dict[str, float]
    """Average number of proposals per video -> average recall."""
    AUC: float
    """Area under AR over 1 to 100 proposals."""
    counts: dict[str, int]
    """predictions, unknown_labels (ignored), outside (in videos that the ground truth does not name)."""

    def describe(self) -> str:
        """A few lines to print, in percent."""
        lines = [f"average mAP {_percent(self.average_mAP)}"]
        lines += [f"  mAP at tIoU {tiou}: {_percent(value)}" for tiou, value in self.mAP.items()]
        recalls = ", ".join(f"AR@{proposals} {_percent(value)}" for proposals, value in self.AR.items())
        lines.append(f"{recalls}, AUC {_percent(self.AUC)}")
        for key, meaning in (
            ("unknown_labels", "with a label that is no class (ignored)"),
            ("outside", "in videos that the subset does not have (counted as false)"),
        ):
            if self.counts.get(key):
                lines.append(f"{self.counts[key]} of {self.counts['predictions']} predictions {meaning}")
        return "\n".join(lines)


def write_predictions(
    path: str | Path, predictions: Mapping[str, Sequence[Detection]], *, version: str = "1.0"
) -> None:
    """Write video -> detections in seconds."""
    results = {
        video: [
            {"segment": [row.start_sec, row.end_sec], "label": row.label, "score": row.score} for row in rows
        ]
        for video, rows in predictions.items()
    }
    write_json(path, {"version": version, "results": results, "external_data": {}}, indent=None)


def read_predictions(path: str | Path) -> dict[str, list[Detection]]:
    """Read video -> detections in seconds. Raises ValueError that names file and key where something is wrong."""
    content = _read_json(path)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise ValueError(
            f'{path}: needs the key "results": an object with a list of detections for each video.'
        )
    return {video: _read_video(rows, where=f"{path}: results[{video!r}]") for video, rows in results.items()}


def make_results(mean_ap: MeanAveragePrecision, recall: AverageRecall) -> Results:
    """Both evaluations -> what results.json holds."""
    return Results(
        mAP={tiou_key(tiou): float(value) for tiou, value in zip(mean_ap.tious, mean_ap.map_T, strict=True)},
        average_mAP=mean_ap.average,
        AR={str(proposals): recall.at(proposals) for proposals in RECALL_AT},
        AUC=recall.auc,
        counts={
            "predictions": mean_ap.num_predictions,
            "unknown_labels": mean_ap.num_unknown_labels,
            "outside": mean_ap.num_outside,
        },
    )


def write_results(path: str | Path, results: Results) -> None:
    """Write results.json."""
    write_json(
        path,
        {
            "mAP": results.mAP,
            "average_mAP": results.average_mAP,
            "AR": results.AR,
            "AUC": results.AUC,
            "counts": results.counts,
        },
    )


def read_results(path: str | Path) -> Results:
    """Read results.json. Raises ValueError that names file and key where something is wrong."""
    content = _read_json(path)
    for key in ("mAP", "average_mAP", "AR", "AUC"):
        if not isinstance(content, dict) or key not in content:
            raise ValueError(f'{path}: the key "{key}" is missing; is it a results.json?')
    return Results(
        mAP=content["mAP"],
        average_mAP=content["average_mAP"],
        AR=content["AR"],
        AUC=content["AUC"],
        counts=content.get("counts", {}),
    )


def _read_video(rows: Any, *, where: str) -> list[Detection]:
    if not isinstance(rows, list):
        raise ValueError(f"{where} is {_short(rows)}; it must be a list of detections.")
    detections = []
    for index, row in enumerate(rows):
        place = f"{where}[{index}]"
        if not isinstance(row, dict):
            raise ValueError(
                f'{place} is {_short(row)}; it must be an object with "segment", "label" and "score".'
            )
        for key in ("segment", "label", "score"):
            if key not in row:
                raise ValueError(f'{place}: the key "{key}" is missing.')
        segment, label, score = row["segment"], row["label"], row["score"]
        if not (isinstance(segment, list) and len(segment) == 2 and all(_is_finite(x) for x in segment)):
            raise ValueError(
                f"{place}.segment is {_short(segment)}; it must be two finite numbers [start, end]."
            )
        if segment[1] < segment[0]:
            raise ValueError(f"{place}.segment is {segment}; its end must not lie before its start.")
        if not isinstance(label, str):
            raise ValueError(f"{place}.label is {_short(label)}; it must be a string.")
        if not _is_finite(score):
            raise ValueError(f"{place}.score is {_short(score)}; it must be a finite number.")
        detections.append(
            Detection(start_sec=float(segment[0]), end_sec=float(segment[1]), label=label, score=float(score))
        )
    return detections


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}).") from error
