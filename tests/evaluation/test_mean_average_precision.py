"""mAP against a slow loop, against the ActivityNet toolkit's stored results, and by hand."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from reference.slow_average_precision import slow_average_precision

from lofi.evaluation.mean_average_precision import EvaluationConfig, mean_average_precision
from lofi.segments import Detection, LabelledSegment

ORACLES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "oracles"
needs_oracles = pytest.mark.skipif(not ORACLES.exists(), reason="the shared evaluation cases are not here")
Truth = dict[str, list[LabelledSegment]]
Found = dict[str, list[Detection]]

# Where the toolkit does otherwise on purpose or by accident (see the module's docstring), or has no result.
DIFFERENT_FROM_TOOLKIT = {
    "zero_length_gt",  # 0 / 0 there, a hit
    "reversed_prediction",  # a negative union there, a hit; the file reader refuses such a row
    "nan_score",  # refused here
    "all_scores_tied",
}


def truth_of(content: dict, *, subset: str) -> Truth:
    return {
        video: [
            LabelledSegment(start_sec=row["segment"][0], end_sec=row["segment"][1], label=row["label"])
            for row in entry["annotations"]
        ]
        for video, entry in content["database"].items()
        if entry["subset"] == subset
    }


def found_of(content: dict) -> Found:
    return {
        video: [
            Detection(
                start_sec=row["segment"][0], end_sec=row["segment"][1], label=row["label"], score=row["score"]
            )
            for row in rows
        ]
        for video, rows in content["results"].items()
    }


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
    out = mean_average_precision(truth, found, tious=tious, classes=["a", "b", "c", "d"])
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
    first = mean_average_precision(truth, found, tious=[0.3, 0.5], classes=list("abcd"))
    second = mean_average_precision(
        dict(reversed(truth.items())), shuffled, tious=[0.3, 0.5], classes=list("abcd")
    )
    np.testing.assert_array_equal(first.ap_KT, second.ap_KT)


def test_unknown_labels_are_ignored_and_counted_and_other_videos_are_false_positives() -> None:
    truth = {"v": [LabelledSegment(start_sec=0, end_sec=5, label="a")], "empty": []}
    hit = Detection(start_sec=0, end_sec=5, label="a", score=0.5)
    better = Detection(start_sec=0, end_sec=5, label="a", score=0.9)
    unknown = Detection(start_sec=0, end_sec=5, label="z", score=0.99)
    out = mean_average_precision(truth, {"v": [hit, unknown]}, tious=[0.5], classes=["a"])
    assert (out.average, out.num_unknown_labels, out.num_outside, out.num_predictions) == (1.0, 1, 0, 2)
    out = mean_average_precision(truth, {"v": [hit], "elsewhere": [better]}, tious=[0.5], classes=["a"])
    assert (out.average, out.num_outside) == (0.5, 1)
    out = mean_average_precision(truth, {"v": [hit], "empty": [better]}, tious=[0.5], classes=["a"])
    assert (out.average, out.num_outside) == (0.5, 0)


def test_no_predictions_give_zero() -> None:
    truth = {"v": [LabelledSegment(start_sec=0, end_sec=5, label="a")]}
    assert mean_average_precision(truth, {}, tious=[0.5, 0.7], classes=["a", "b"]).map_T.tolist() == [
        0.0,
        0.0,
    ]


def test_bad_input_is_named() -> None:
    truth = {"v": [LabelledSegment(start_sec=0, end_sec=5, label="a")]}
    with pytest.raises(ValueError, match="no instance in 1 videos"):
        mean_average_precision({"v": []}, {}, tious=[0.5], classes=["a"])
    with pytest.raises(ValueError, match="video 'v' has the label 'a', which is none of the 1 classes"):
        mean_average_precision(truth, {}, tious=[0.5], classes=["b"])
    broken = Detection(start_sec=0, end_sec=5, label="a", score=float("nan"))
    with pytest.raises(ValueError, match=r"prediction of video 'w' has start, end, score \[0.0, 5.0, nan\]"):
        mean_average_precision(truth, {"v": [], "w": [broken]}, tious=[0.5], classes=["a"])


@needs_oracles
@pytest.mark.parametrize("case", ["thumos14_mixed_s101", "anet13_mixed_s103", "thumos14_unknownlabel_s104"])
def test_map_equals_the_activitynet_toolkit(case: str) -> None:
    expected = json.loads((ORACLES / "eval" / f"{case}.expected.json").read_text())
    content = json.loads((ORACLES / expected["gt"]).read_text())
    out = mean_average_precision(
        truth_of(content, subset=expected["subset"]),
        found_of(json.loads((ORACLES / expected["pred"]).read_text())),
        tious=expected["tiou_thresholds"],
        classes=content["classes"],
    )
    # The toolkit stops at an unknown label; OpenTAD ignores it as we do, and has the same numbers on THUMOS.
    name = "opentad" if "unknownlabel" in case else "activitynet_toolkit"
    reference = expected["reference"][name]
    np.testing.assert_allclose(out.map_T, list(reference["mAP"].values()), rtol=0, atol=1e-9)
    assert out.average == pytest.approx(reference["average_mAP"], abs=1e-9)
    for label, values in reference.get("ap_per_class", {}).items():
        np.testing.assert_allclose(out.ap_KT[out.classes.index(label)], values, rtol=0, atol=1e-9)


@needs_oracles
def test_map_with_tied_scores_is_near_the_toolkit() -> None:
    expected = json.loads((ORACLES / "eval" / "thumos14_ties1dec_s102.expected.json").read_text())
    content = json.loads((ORACLES / expected["gt"]).read_text())
    out = mean_average_precision(
        truth_of(content, subset=expected["subset"]),
        found_of(json.loads((ORACLES / expected["pred"]).read_text())),
        tious=expected["tiou_thresholds"],
        classes=content["classes"],
    )
    values = list(expected["reference"]["activitynet_toolkit"]["mAP"].values())
    np.testing.assert_allclose(out.map_T, values, rtol=0, atol=0.01)


@needs_oracles
def test_map_equals_the_activitynet_toolkit_on_edge_cases() -> None:
    edge = json.loads((ORACLES / "edge" / "edge_cases.json").read_text())
    num_compared = 0
    for name, case in edge["cases"].items():
        reference = case["reference"]["activitynet_toolkit"]
        if name in DIFFERENT_FROM_TOOLKIT or "mAP" not in reference:
            continue
        truth = truth_of(case["gt"], subset=case["subset"])
        # The toolkit takes the classes of the subset.
        classes = sorted({row.label for rows in truth.values() for row in rows})
        out = mean_average_precision(
            truth, found_of(case["pred"]), tious=edge["tiou_thresholds"], classes=classes
        )
        np.testing.assert_allclose(
            out.map_T, list(reference["mAP"].values()), rtol=0, atol=1e-9, err_msg=name
        )
        num_compared += 1
    assert num_compared >= 18


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
