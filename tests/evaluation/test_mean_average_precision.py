"""mAP against a slow loop and by hand; against the reference evaluators: test_oracles_map.py."""

import random

import numpy as np
import pytest
from reference.slow_average_precision import slow_average_precision

from lofi.evaluation.mean_average_precision import (
    EvaluationConfig,
    MeanAveragePrecision,
    mean_average_precision,
)
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment

Truth = dict[str, list[LabelledSegment]]
Found = dict[str, list[Detection]]


def evaluate(truth: Truth, found: Found, *, tious: list[float], classes: list[str]) -> MeanAveragePrecision:
    return mean_average_precision(GroundTruth.of(truth, classes=classes), Predictions.of(found), tious=tious)


def random_case(seed: int) -> tuple[Truth, Found]:
    rng = random.Random(seed)
    truth, found = {}, {}
    for video in ("p", "q", "r", "s"):
        starts = [rng.uniform(0, 40) for _ in range(rng.randrange(5))]
        truth[video] = [
            LabelledSegment(start_sec=s, end_sec=s + rng.uniform(1, 9), label=rng.choice("abc"))
            for s in starts
        ]
        found[video] = [
            Detection(
                start_sec=s + rng.uniform(-2, 2),
                end_sec=s + rng.uniform(3, 8),
                label=rng.choice("abcd"),
                score=rng.random(),
            )
            for s in starts * 4 + [rng.uniform(0, 40)]
        ]
    return truth, found


@pytest.mark.parametrize("seed", range(8))
def test_map_equals_slow_loop(seed: int) -> None:
    truth, found = random_case(seed)
    tious = [0.2, 0.5, 0.7]
    out = evaluate(truth, found, tious=tious, classes=["a", "b", "c", "d"])
    has_truth = [any(row.label == name for rows in truth.values() for row in rows) for name in "abcd"]
    for row, name in enumerate("abcd"):
        for column, tiou in enumerate(tious):
            if has_truth[row]:
                expected = slow_average_precision(truth, found, label=name, tiou=tiou)
                assert out.ap_KT[row, column] == pytest.approx(expected, abs=1e-12)
            else:
                assert np.isnan(out.ap_KT[row, column])
    np.testing.assert_allclose(out.map_T, out.ap_KT[has_truth].mean(axis=0))
    assert out.average == pytest.approx(out.map_T.mean())


def test_order_of_videos_and_rows_does_not_matter_even_with_equal_scores() -> None:
    truth, found = random_case(3)
    found = {
        video: [
            Detection(start_sec=row.start_sec, end_sec=row.end_sec, label=row.label, score=round(row.score))
            for row in rows
        ]
        for video, rows in found.items()
    }
    shuffled = {video: found[video][::-1] for video in reversed(found)}
    first = evaluate(truth, found, tious=[0.3, 0.5], classes=list("abcd"))
    second = evaluate(dict(reversed(truth.items())), shuffled, tious=[0.3, 0.5], classes=list("abcd"))
    np.testing.assert_array_equal(first.ap_KT, second.ap_KT)


def test_unknown_labels_are_ignored_and_counted_and_other_videos_are_false_positives() -> None:
    truth = {"v": [LabelledSegment(start_sec=0, end_sec=5, label="a")], "empty": []}
    hit = Detection(start_sec=0, end_sec=5, label="a", score=0.5)
    better = Detection(start_sec=0, end_sec=5, label="a", score=0.9)
    unknown = Detection(start_sec=0, end_sec=5, label="z", score=0.99)
    out = evaluate(truth, {"v": [hit, unknown]}, tious=[0.5], classes=["a"])
    assert (out.average, out.num_unknown_labels, out.num_outside, out.num_predictions) == (1.0, 1, 0, 2)
    out = evaluate(truth, {"v": [hit], "elsewhere": [better]}, tious=[0.5], classes=["a"])
    assert (out.average, out.num_outside) == (0.5, 1)
    out = evaluate(truth, {"v": [hit], "empty": [better]}, tious=[0.5], classes=["a"])
    assert (out.average, out.num_outside) == (0.5, 0)


def test_no_predictions_give_zero() -> None:
    truth = {"v": [LabelledSegment(start_sec=0, end_sec=5, label="a")]}
    assert evaluate(truth, {}, tious=[0.5, 0.7], classes=["a", "b"]).map_T.tolist() == [
        0.0,
        0.0,
    ]


def test_bad_input_is_named() -> None:
    truth = {"v": [LabelledSegment(start_sec=0, end_sec=5, label="a")]}
    with pytest.raises(ValueError, match="no instance in 1 videos"):
        evaluate({"v": []}, {}, tious=[0.5], classes=["a"])
    with pytest.raises(ValueError, match="video 'v' has the label 'a', which is none of the 1 classes"):
        evaluate(truth, {}, tious=[0.5], classes=["b"])
    broken = Detection(start_sec=0, end_sec=5, label="a", score=float("nan"))
    with pytest.raises(ValueError, match=r"prediction of video 'w' has the score nan"):
        evaluate(truth, {"v": [], "w": [broken]}, tious=[0.5], classes=["a"])


@pytest.mark.parametrize(
    ("tious", "message"),
    [
        ([], r"evaluation\.tious is empty"),
        ([0.5, 1.2], r"evaluation\.tious holds 1\.2"),
        ([0.7, 0.5], r"evaluation\.tious is \[0\.7, 0\.5\]; thresholds must ascend"),
    ],
)
def test_config_names_the_wrong_thresholds(tious: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(tious=tious)
