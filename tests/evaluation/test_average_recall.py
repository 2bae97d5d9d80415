"""AR@AN against the ActivityNet toolkit's stored results, and by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from lofi.evaluation.average_recall import average_recall
from lofi.evaluation.predictions import read_predictions
from lofi.segments import Detection, LabelledSegment

ORACLES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "oracles"


def detection(start: float, end: float, score: float) -> Detection:
    return Detection(start_sec=start, end_sec=end, label="a", score=score)


@pytest.mark.skipif(not ORACLES.exists(), reason="the shared evaluation cases are not here")
@pytest.mark.parametrize("case", ["thumos14_mixed_s101", "anet13_mixed_s103"])
def test_average_recall_equals_the_activitynet_toolkit(case: str) -> None:
    expected = json.loads((ORACLES / "eval" / f"{case}.expected.json").read_text())
    content = json.loads((ORACLES / expected["gt"]).read_text())
    truth = {
        video: [
            LabelledSegment(start_sec=row["segment"][0], end_sec=row["segment"][1], label=row["label"])
            for row in entry["annotations"]
        ]
        for video, entry in content["database"].items()
        if entry["subset"] == expected["subset"]
    }
    out = average_recall(truth, read_predictions(ORACLES / expected["pred"]).by_video())
    reference = expected["reference"]["activitynet_toolkit_proposal"]
    np.testing.assert_allclose(out.recall, reference["avg_recall"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(out.num_proposals, reference["proposals_per_video"], rtol=0, atol=1e-9)
    assert out.auc == pytest.approx(reference["AUC"], abs=1e-9)


def test_perfect_proposals_recall_all_once_the_budget_reaches_them() -> None:
    truth = {
        "v": [
            LabelledSegment(start_sec=0, end_sec=4, label="a"),
            LabelledSegment(start_sec=6, end_sec=9, label="b"),
        ]
    }
    out = average_recall(truth, {"v": [detection(6, 9, 0.4), detection(0, 4, 0.9)]})
    assert out.at(1) == 0.5
    assert out.at(100) == 1.0


def test_no_proposals_give_zero() -> None:
    truth = {"v": [LabelledSegment(start_sec=0, end_sec=4, label="a")]}
    for found in ({}, {"v": []}, {"elsewhere": [detection(0, 1, 0.5)]}):
        out = average_recall(truth, found)
        assert out.auc == 0.0
        assert out.recall.tolist() == [0.0] * 100


def test_no_instance_is_an_error() -> None:
    with pytest.raises(ValueError, match="no instance in 1 videos"):
        average_recall({"v": []}, {})
