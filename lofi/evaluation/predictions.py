"""predictions.json: the file that evaluation reads and every detector writes.

It is ActivityNet's own form, so that every existing tool reads it:
`{"version": V, "results": {VIDEO: [{"segment": [START, END], "label": NAME, "score": X}]}, "external_data": {}}`, seconds.
It is written whole or not at all.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lofi.files import write_json
from lofi.segments import Detection


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
