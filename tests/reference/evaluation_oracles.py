"""The shared evaluation cases, with what the reference evaluators returned, as columns."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
ORACLES = SHARED / "oracles"
needs_oracles = pytest.mark.skipif(not ORACLES.exists(), reason="the shared evaluation cases are not here")
FILES = ("thumos14_mixed_s101", "thumos14_ties1dec_s102", "anet13_mixed_s103", "thumos14_unknownlabel_s104")


@cache
def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def file_case(name: str) -> tuple[GroundTruth, Predictions, dict[str, Any]]:
    """Ground truth, predictions, and the expected file: "tiou_thresholds", "reference"."""
    expected = read(ORACLES / "eval" / f"{name}.expected.json")
    truth = truth_of(read(ORACLES / expected["gt"]), subset=expected["subset"])
    return truth, found_of(read(ORACLES / expected["pred"])), expected


def edge_cases() -> dict[str, Any]:
    """Name -> case of the hand-made ones; none where the cases are not here."""
    path = ORACLES / "edge" / "edge_cases.json"
    return read(path)["cases"] if path.exists() else {}


def edge_case(name: str) -> tuple[GroundTruth, Predictions, dict[str, Any]]:
    case = edge_cases()[name]
    thresholds = read(ORACLES / "edge" / "edge_cases.json")["tiou_thresholds"]
    expected = {"tiou_thresholds": thresholds, "reference": case["reference"]}
    return truth_of(case["gt"], subset=case["subset"]), found_of(case["pred"]), expected


def truth_of(content: dict[str, Any], *, subset: str) -> GroundTruth:
    videos = {
        video: [
            LabelledSegment(start_sec=row["segment"][0], end_sec=row["segment"][1], label=row["label"])
            for row in entry["annotations"]
        ]
        for video, entry in content["database"].items()
        if entry["subset"] == subset
    }
    return GroundTruth.of(videos, classes=content["classes"])


def found_of(content: dict[str, Any]) -> Predictions:
    return Predictions.of(
        {
            video: [
                Detection(
                    start_sec=row["segment"][0],
                    end_sec=row["segment"][1],
                    label=row["label"],
                    score=row["score"],
                )
                for row in rows
            ]
            for video, rows in content["results"].items()
        }
    )
