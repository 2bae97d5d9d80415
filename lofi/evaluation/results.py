"""results.json: what an evaluation found, as values and as a file.

`{"mAP": {"0.50": X, ...}, "average_mAP": X, "AR": {"1": X, "5": X, "10": X, "100": X}, "AUC": X}`, fractions between 0
and 1, with counts of predictions beside them. Written whole or not at all.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lofi.evaluation.average_recall import AverageRecall
from lofi.evaluation.mean_average_precision import MeanAveragePrecision, tiou_key
from lofi.files import write_json

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


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}).") from error
