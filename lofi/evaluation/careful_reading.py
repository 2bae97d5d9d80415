"""A prediction file read by the standard library: slow, and it says what is wrong and where.

Only for files that the fast reader (`predictions`) refuses. One message names the file and the key of the first problem,
as in `p.json: results['v'][17].segment is [1, 2, 3]; it must be two finite numbers [start, end].`
"""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from lofi.evaluation.tables import Predictions
from lofi.segments import Detection


def read_predictions_carefully(path: str | Path) -> Predictions:
    """Read a prediction file; the form is that of `predictions`.

    Raises:
        ValueError: names file and key.
    """
    content = _read_json(path)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        if not isinstance(content, dict):
            found = f"it is {_short(content)}"
        elif "results" in content:
            found = f"results is the {type(results).__name__} {_short(results)}"
        else:
            found = f"the keys are {sorted(content)}"
        raise ValueError(
            f'{path}: needs the key "results", an object with a list of detections for each video; {_clip(found, 200)}.'
        )
    return Predictions.of(
        {video: _read_video(rows, where=f"{path}: results[{video!r}]") for video, rows in results.items()}
    )


def _read_video(rows: Any, *, where: str) -> list[Detection]:
    if not isinstance(rows, list):
        raise ValueError(f"{where} is {_short(rows)}; it must be a list of detections.")
    return [_read_row(row, place=f"{where}[{index}]") for index, row in enumerate(rows)]


def _read_row(row: Any, *, place: str) -> Detection:
    if not isinstance(row, dict):
        raise ValueError(
            f'{place} is {_short(row)}; it must be an object with "segment", "label" and "score".'
        )
    label_key = "action" if "label" not in row and "action" in row else "label"
    for key in ("segment", label_key, "score"):
        if key not in row:
            raise ValueError(f'{place}: the key "{key}" is missing.')
    segment, label, score = row["segment"], row[label_key], row["score"]
    if not (isinstance(segment, list) and len(segment) == 2 and all(_is_finite(x) for x in segment)):
        raise ValueError(f"{place}.segment is {_short(segment)}; it must be two finite numbers [start, end].")
    if not isinstance(label, str) or not label:
        raise ValueError(f"{place}.{label_key} is {_short(label)}; it must be the name of a class, a string.")
    if not _is_finite(score):
        raise ValueError(f"{place}.score is {_short(score)}; it must be a finite number.")
    return Detection(start_sec=float(segment[0]), end_sec=float(segment[1]), label=label, score=float(score))


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _short(value: Any) -> str:
    return _clip(repr(value), 60)


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _read_json(path: str | Path) -> Any:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    if not text.strip():
        raise ValueError(f'{path}: the file is empty; an object with the key "results" is wanted.')
    try:
        return json.loads(text, object_pairs_hook=_object_without_repeated_lists)
    except json.JSONDecodeError as error:
        breaks_off = not text[error.pos :].strip() or error.msg.startswith("Unterminated string")
        raise ValueError(
            f"{path}: not JSON: {error.msg}, line {error.lineno} column {error.colno}"
            f"{' (the file breaks off)' if breaks_off else ''}."
        ) from None
    except _RepeatedVideoError as error:
        raise ValueError(
            f"{path}: one object holds the key {str(error)!r} twice; one of the lists would be lost."
        ) from None
    except RecursionError:
        raise ValueError(f"{path}: not a prediction file: its JSON is nested too deeply.") from None


class _RepeatedVideoError(Exception):
    """JSON allows a key twice and keeps the last; here that would lose a video's detections, or all, in silence."""


def _object_without_repeated_lists(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        lists = Counter(key for key, value in pairs if _is_ours(key, value))
        repeated = [key for key, count in lists.items() if count > 1]
        if repeated:
            raise _RepeatedVideoError(repeated[0])
    return result


def _is_ours(key: str, value: Any) -> bool:
    """Whether this may be a video's list of detections, or all of them. Further keys may hold what they like."""
    if isinstance(value, list):
        return all(isinstance(each, dict) for each in value)
    return key == "results" and isinstance(value, dict)
