"""predictions.json: the file that evaluation reads and every detector writes.

It is ActivityNet's own form, so that every existing tool reads it:
`{"version": V, "results": {VIDEO: [{"segment": [START, END], "label": NAME, "score": X}]}, "external_data": {}}`, seconds.
It is written whole or not at all. Further keys are allowed and ignored. Where a row has no "label", its "action" is taken:
EPIC-KITCHENS' form, `{"verb": 3, "noun": 24, "action": "3,24", "segment": ..., "score": ...}`.

A file is read one video at a time from a memory map, so that little more than the columns is ever held. What cannot be
read in this way goes through `careful_reading`, which is slow and says what is wrong and where.
"""

import mmap
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from lofi.evaluation.careful_reading import read_predictions_carefully
from lofi.evaluation.tables import GroundTruth, Predictions, few_names
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


def read_predictions(path: str | Path) -> Predictions:
    """Read a prediction file.

    Scores may be any finite numbers; a segment may lie outside its video, have no length or be reversed (see
    `Predictions`).

    Raises:
        ValueError: the file cannot be read, is no JSON, or is wrong somewhere: names file and key.
    """
    try:
        columns = _read_columns(Path(path))
    except (OSError, ValueError):
        columns = None
    return read_predictions_carefully(path) if columns is None else columns


def check_overlap(truth: GroundTruth, predictions: Predictions) -> None:
    """Refuse predictions none of which lies in a video of the ground truth: their names do not fit.

    Raises:
        ValueError: names a few videos of each side. Never where there is no prediction at all.
    """
    predicted = {predictions.videos[index] for index in np.unique(predictions.video)}
    known = set(truth.videos)
    if not predicted or predicted & known:
        return
    raise ValueError(
        f"none of the {len(predicted)} predicted videos ({few_names(predicted)}) is one of the {len(known)} videos of the "
        f"ground truth ({few_names(known)}){_repair(predicted, known)}. Give the subset that was predicted, or the names "
        "that the annotations use."
    )


def _repair(predicted: set[str], known: set[str]) -> str:
    """What would make the names fit, of the differences that public files have."""
    if any(name.removeprefix("v_") in known for name in predicted if name.startswith("v_")):
        return '; they fit without the prefix "v_"'
    if any(f"v_{name}" in known for name in predicted):
        return '; they fit with the prefix "v_"'
    if any(Path(name).stem in known for name in predicted):
        return "; they fit without their extensions"
    return ""


class _Row(msgspec.Struct, gc=False):
    segment: tuple[float, float]
    score: float
    label: str = ""
    action: str = ""


class _VideoName(str):
    """Of a type of its own, so that the decoder hands over each key: a repeated one would vanish in the dict."""


class _File(msgspec.Struct):
    results: dict[_VideoName, msgspec.Raw]


def _read_columns(path: Path) -> Predictions | None:
    """The file as columns, or None where it needs the careful reader."""
    num_keys = 0

    def name_of(_: type, key: Any) -> _VideoName:
        nonlocal num_keys
        num_keys += 1
        return _VideoName(key)

    with path.open("rb") as stream:
        # Not closed by hand: the raw rows are views of it.
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    raw_by_video = msgspec.json.Decoder(_File, dec_hook=name_of).decode(content).results
    if len(raw_by_video) < num_keys:
        return None
    decoder = msgspec.json.Decoder(list[_Row])
    label_index: dict[str, int] = {}
    label, start, end, score = array("i"), array("d"), array("d"), array("d")
    counts = []
    for raw in raw_by_video.values():
        rows = decoder.decode(raw)
        counts.append(len(rows))
        label.extend([label_index.setdefault(row.label or row.action, len(label_index)) for row in rows])
        start.extend([row.segment[0] for row in rows])
        end.extend([row.segment[1] for row in rows])
        score.extend([row.score for row in rows])
    if "" in label_index:
        return None
    return Predictions(
        videos=tuple(str(video) for video in raw_by_video),
        labels=tuple(label_index),
        video=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        label=np.frombuffer(label, dtype=np.int32),
        start=np.frombuffer(start),
        end=np.frombuffer(end),
        score=np.frombuffer(score),
    )
