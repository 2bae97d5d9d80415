"""Scoring columns: which instances count under which protocol, and options that do not fit."""

import tracemalloc

import numpy as np
import pytest

from lofi.evaluation.dataset_rules import DATASET_RULES
from lofi.evaluation.mean_average_precision import EvaluationConfig
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment
from lofi.stages.score import Scoring, score, score_tables


def segment(start, end, label="a"):
    return LabelledSegment(start_sec=start, end_sec=end, label=label)


def detection(start, end, score, label="a"):
    return Detection(start_sec=start, end_sec=end, label=label, score=score)


TRUTH = {"v": [segment(0, 4), segment(0, 4), segment(6, 6)], "w": []}
FOUND = {"v": [detection(0, 4, 0.9), detection(5, 4, 0.8), detection(7, 7, 0.7), detection(0, 1, 0.6, "b")]}


def test_a_duplicate_and_an_instance_of_no_length_are_counted_as_the_protocol_says():
    truth, found = GroundTruth.of(TRUTH, classes="a"), Predictions.of(FOUND)
    default = score_tables(truth, found, scoring=Scoring(tious=[0.5])).results
    opentad = score_tables(truth, found, scoring=Scoring(tious=[0.5], protocol="opentad")).results
    assert (default.instances, opentad.instances) == ({"a": 3}, {"a": 1})
    assert (default.average_mAP, opentad.average_mAP) == (pytest.approx(1 / 3), 1.0)
    assert default.AR["100"] == pytest.approx(2 / 3)
    assert opentad.AR["100"] == 1.0
    assert default.counts == {
        "predictions": 4,
        "unknown_labels": 1,
        "outside": 0,
        "instances": 3,
        "duplicate_instances": 1,
        "zero_length_instances": 1,
        "videos": 2,
        "classes": 1,
        "reversed": 1,
        "zero_length": 1,
        "missing_videos": 1,
        "reversed_instances": 0,
        "instances_outside_video": 0,
    }


def test_odd_instances_and_labels_without_an_instance_are_counted():
    truth = GroundTruth.of(
        {"v": [segment(0, 4), segment(6, 6), segment(9, 7), segment(2, 31), segment(-1, 3)]},
        classes="ab",
        durations_sec={"v": 30.0},
    )
    counts = score_tables(truth, Predictions.of(FOUND), scoring=Scoring(tious=[0.5])).results.counts
    odd = ("zero_length_instances", "reversed_instances", "instances_outside_video", "unknown_labels")
    assert [counts[name] for name in odd] == [1, 1, 2, 1]


def test_a_run_is_scored_like_files():
    truth, found = GroundTruth.of(TRUTH, classes="a"), Predictions.of(FOUND)
    results = score(TRUTH, FOUND, config=EvaluationConfig(tious=[0.5, 0.7]), classes="a")
    assert results == score_tables(truth, found, scoring=Scoring(tious=[0.5, 0.7])).results


def test_everything_holds_at_most_twice_the_columns_beyond_them():
    generator = np.random.default_rng(0)
    names, classes = tuple(f"v{index:02d}" for index in range(70)), tuple("abcde")

    def columns(count):
        start = generator.uniform(0, 60, count)
        return {
            "video": generator.integers(70, size=count, dtype=np.int32),
            "label": generator.integers(5, size=count, dtype=np.int32),
            "start": start,
            "end": start + generator.uniform(1, 20, count),
        }

    truth = GroundTruth(videos=names, durations_sec=np.full(70, 80.0), classes=classes, **columns(700))
    found = Predictions(videos=names, labels=classes, score=generator.random(200_000), **columns(200_000))
    scoring = Scoring(tious=[0.3, 0.6], errors=True)
    score_tables(truth, found.select(np.arange(9)), scoring=scoring)  # what is imported late is not counted
    tracemalloc.start()
    score_tables(truth, found, scoring=scoring)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes <= 2 * 32 * 200_000


def test_average_recall_goes_as_far_as_the_dataset_has_it():
    truth, found = GroundTruth.of(TRUTH, classes="a"), Predictions.of(FOUND)
    results = score_tables(
        truth, found, scoring=Scoring(tious=[0.5], rules=DATASET_RULES["thumos14"])
    ).results
    assert list(results.AR) == ["1", "5", "10", "50", "100", "200", "500", "1000"]
    assert list(results.AR_at_tIoU)[-1] == "1.00"


def test_errors_intervals_and_curves_are_made_where_they_are_asked_for():
    truth, found = GroundTruth.of(TRUTH, classes="a"), Predictions.of(FOUND)
    plain = score_tables(truth, found, scoring=Scoring(tious=[0.5]))
    assert (plain.results.errors, plain.results.bootstrap, plain.curves) == (None, None, None)
    scoring = Scoring(tious=[0.1, 0.5], errors=True, bootstrap=5, seed=2, curves=True)
    whole = score_tables(truth, found, scoring=scoring)
    assert whole.results.errors is not None
    assert whole.results.errors["low_tiou"] == 0.1
    assert whole.results.bootstrap is not None
    assert (whole.results.bootstrap["samples"], whole.results.bootstrap["seed"]) == (5, 2)
    assert whole.curves is not None
    assert set(whole.curves) == {"precision_recall", "average_recall"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tious": []}, "evaluation.tious is empty"),
        ({"tious": [0.7, 0.5]}, "thresholds must ascend"),
        ({"tious": [0.505]}, "holds 0.505; results are written under thresholds of two digits"),
        ({"tious": [0.5, 0.5 + 1e-12]}, "thresholds must ascend, each given once"),
        ({"tious": [0.5], "bootstrap": 5, "seed": -1}, "seed is -1; it must be 0 or greater"),
        ({"tious": [0.5], "protocol": "anet"}, "protocol 'anet' does not exist"),
        ({"tious": [0.5], "bootstrap": -3}, "bootstrap is -3"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Scoring(**options)
