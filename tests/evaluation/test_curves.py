"""Sampled curves: the envelope that interpolated AP is the area of."""

import numpy as np
import pytest

from lofi.evaluation.average_recall import average_recall
from lofi.evaluation.curves import recall_curve, sample_curves
from lofi.evaluation.matching import match_predictions
from lofi.evaluation.mean_average_precision import average_precisions
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment

TIOUS = (0.3, 0.4, 0.5, 0.6)
CLASSES = ("a", "b", "none")


@pytest.fixture
def both():
    generator = np.random.default_rng(3)
    starts = {video: generator.uniform(0, 200, size=7) for video in "pqrst"}
    truth = {
        video: [
            LabelledSegment(start_sec=start, end_sec=start + 5, label="ab"[index % 2])
            for index, start in enumerate(values)
        ]
        for video, values in starts.items()
    }
    found = {
        video: [
            Detection(start_sec=start + shift, end_sec=start + shift + 5, label="ab"[index % 2], score=score)
            for index, start in enumerate(values)
            for shift, score in zip(generator.normal(0, 2, size=3), generator.uniform(size=3), strict=True)
        ]
        for video, values in starts.items()
    }
    return GroundTruth.of(truth, classes=CLASSES), Predictions.of(found)


def test_the_area_of_a_sampled_curve_is_the_average_precision(both):
    truth, found = both
    matching = match_predictions(truth, found, tious=TIOUS)
    curves = sample_curves(matching, num_points=20_001)
    assert curves.classes == ("a", "b")
    ap_KT = average_precisions(matching).ap_KT[:2]
    np.testing.assert_allclose(np.trapezoid(curves.precision_KTR, curves.recall), ap_KT, atol=2e-4)


def test_precision_falls_and_ends_at_zero_where_recall_is_never_reached(both):
    truth, found = both
    curves = sample_curves(match_predictions(truth, found, tious=TIOUS))
    assert (np.diff(curves.precision_KTR) <= 0).all()
    nothing = sample_curves(match_predictions(truth, found.select(np.zeros(0, dtype=int)), tious=TIOUS))
    assert not nothing.precision_KTR.any()


def test_perfect_predictions_have_precision_one_at_every_recall():
    rows = [(0, 3), (4, 9), (10, 17)]  # thirds, which no float holds
    truth = GroundTruth.of(
        {"v": [LabelledSegment(start_sec=start, end_sec=end, label="a") for start, end in rows]}, classes="a"
    )
    found = Predictions.of(
        {"v": [Detection(start_sec=start, end_sec=end, label="a", score=1 / end) for start, end in rows]}
    )
    assert (sample_curves(match_predictions(truth, found, tious=[0.5])).precision_KTR == 1).all()


def test_json_has_the_mean_at_every_threshold_and_each_class_at_three(both):
    truth, found = both
    plain = sample_curves(match_predictions(truth, found, tious=TIOUS), num_points=5).to_plain()
    assert plain["recall"] == [0, 0.25, 0.5, 0.75, 1]
    assert list(plain["mean"]) == ["0.30", "0.40", "0.50", "0.60"]
    assert {name: list(curves) for name, curves in plain["classes"].items()} == {
        name: ["0.30", "0.50", "0.60"] for name in "ab"
    }
    of_classes = [plain["classes"][name]["0.50"] for name in "ab"]
    assert plain["mean"]["0.50"] == pytest.approx(np.mean(of_classes, axis=0), abs=1e-4)


def test_the_recall_curve_holds_what_average_recall_found(both):
    recall = average_recall(*both, max_proposals=6)
    plain = recall_curve(recall)
    assert plain["mean"] == pytest.approx(recall.recall, abs=1e-4)
    assert len(plain["tIoU"]) == len(recall.tious)
    assert plain["tIoU"]["0.95"] == pytest.approx(recall.recall_TP[-1], abs=1e-4)
