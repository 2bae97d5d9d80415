"""Error analysis on cases whose answer is known by construction, against slow loops, and its invariants."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from lofi.evaluation.characteristics import ACTIVITYNET_BORDERS, Borders, fitting_borders
from lofi.evaluation.error_analysis import ErrorAnalysis, analyze_errors
from lofi.evaluation.false_positives import TYPES
from lofi.evaluation.matching import match_predictions
from lofi.evaluation.mean_average_precision import mean_average_precision
from lofi.evaluation.predictions import read_predictions
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment
from tests.reference.slow_error_analysis import slow_band_shares, slow_bucket, slow_gain, slow_missed

ORACLES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "oracles"
Truth = dict[str, list[LabelledSegment]]
Found = dict[str, list[Detection]]
CLASSES = ["a", "b", "c", "never annotated"]
DURATIONS_SEC = {"p": 40.0, "q": 60.0, "r": 80.0, "s": 25.0}
BORDERS = Borders(coverage=(0.08, 0.15), length=(4.0, 6.0, 7.0), num_instances=(1, 2))


def instance(start: float, end: float, label: str = "a") -> LabelledSegment:
    return LabelledSegment(start_sec=start, end_sec=end, label=label)


def detection(start: float, end: float, score: float, label: str = "a") -> Detection:
    return Detection(start_sec=start, end_sec=end, label=label, score=score)


def analyze(truth: Truth, found: Found, *, tious: list[float], borders: Borders = BORDERS) -> ErrorAnalysis:
    table = GroundTruth.of(truth, classes=CLASSES, durations_sec=DURATIONS_SEC)
    predictions = Predictions.of(found)
    matching = match_predictions(table, predictions, tious=tious)
    return analyze_errors(table, predictions, matching=matching, borders=borders)


def random_case(seed: int) -> tuple[Truth, Found]:
    rng = random.Random(seed)
    truth, found = {"r": [instance(1, 3, "c")]}, {}
    for video in DURATIONS_SEC:
        rows = truth.setdefault(video, [])
        for _ in range(rng.randrange(1, 6)):
            start = rng.uniform(0, 20)
            rows.append(instance(start, start + rng.uniform(1, 9), rng.choice("abc")))
        found[video] = [
            detection(
                row.start_sec + rng.gauss(0, 1),
                row.end_sec + rng.gauss(0, 1) + 0.5,
                rng.random(),
                rng.choice([row.label, row.label, "a", "b", "never annotated", "unknown"]),
            )
            for row in rows * 9 + [instance(30, 35)]
        ]
    found["elsewhere"] = [detection(0, 1, rng.random()), detection(2, 4, rng.random(), "b")]
    return truth, found


def test_gains_of_a_built_case() -> None:
    # Of class a: two instances; a wrong label before the first hit, background before the second. b is found.
    truth = {"p": [instance(10, 20), instance(30, 38, "b")], "q": [instance(5, 9)]}
    found = {
        "p": [detection(30, 36, 0.9), detection(10, 20, 0.8), detection(30, 38, 0.3, "b")],
        "q": [detection(20, 25, 0.7), detection(5, 9, 0.6)],
    }
    out = analyze(truth, found, tious=[0.5]).false_positives
    # a: misses, hit, miss, hit: the envelope of precision is 1/2, 1/2.
    assert out.average_map == pytest.approx((0.5 + 1) / 2)
    assert out.gains["wrong_label"] == pytest.approx(((1 + 2 / 3) / 2 - 0.5) / 2)
    assert out.gains["background"] == pytest.approx((2 / 3 - 0.5) / 2)
    assert out.gains["double_detection"] == out.gains["localization"] == out.gains["confusion"] == 0
    assert out.gain_of_all == pytest.approx(0.25)


def test_buckets_hold_what_their_borders_say() -> None:
    # Lengths 30 (a border belongs below), 31, 200; numbers 1 and 2; coverage 0.3, 31/50, unknown.
    truth = GroundTruth.of(
        {"p": [instance(0, 30)], "q": [instance(0, 31)], "r": [instance(0, 200), instance(0, 1)]},
        classes=["a"],
        durations_sec={"p": 100.0, "q": 50.0},
    )
    predictions = Predictions.of({"p": [detection(0, 30, 0.9)], "r": [detection(0, 1, 0.8)]})
    matching = match_predictions(truth, predictions, tious=[0.5, 0.7])
    out = analyze_errors(truth, predictions, matching=matching, borders=ACTIVITYNET_BORDERS).sensitivity
    counts = {name: [each.num_instances for each in buckets] for name, buckets in out.buckets.items()}
    assert counts == {"coverage": [0, 1, 0, 1, 0], "length": [2, 1, 0, 0, 1], "num_instances": [2, 2, 0, 0]}
    missed = [each.missed for each in out.buckets["length"]]
    np.testing.assert_equal(missed, [0.0, 1.0, np.nan, np.nan, 1.0])
    assert out.missed == 0.5
    assert [each.name for each in out.buckets["length"]] == ["XS", "S", "M", "L", "XL"]
    assert (out.buckets["length"][1].above, out.buckets["length"][1].up_to) == (30.0, 60.0)


def test_fitting_borders_part_the_instances_into_fifths() -> None:
    lengths = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    rows = [instance(20 * place, 20 * place + length) for place, length in enumerate(lengths)]
    truth = GroundTruth.of(
        {"p": rows[:5], "q": rows[5:]}, classes=["a"], durations_sec={"p": 100.0, "q": 250.0}
    )
    borders = fitting_borders(truth)
    assert borders.length == (3.0, 5.0, 7.0, 9.0)
    assert borders.num_instances == (5.0, 6.0)
    assert borders.coverage == (0.024, 0.03, 0.036, 0.04)
    unknown = GroundTruth.of({"p": rows}, classes=["a"])
    assert fitting_borders(unknown).coverage == ()


def test_borders_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ValueError, match=r"borders of length are \[3, 2\]; they must ascend"):
        Borders(coverage=(), length=(3, 2), num_instances=())


def test_an_instance_that_is_found_after_too_many_false_positives_is_missed() -> None:
    noise = [detection(50 + place, 50.5 + place, 0.9) for place in range(19)]
    truth = {"p": [instance(0, 4)]}
    hit = detection(0, 4, 0.1)
    assert analyze(truth, {"p": [*noise[1:], hit]}, tious=[0.5]).sensitivity.missed == 0.0
    assert analyze(truth, {"p": [*noise, hit]}, tious=[0.5]).sensitivity.missed == 1.0  # precision 1 / 20


@pytest.mark.parametrize("seed", range(6))
def test_every_number_equals_the_slow_loops(seed: int) -> None:
    truth, found = random_case(seed)
    tious = [0.3, 0.5, 0.8]
    out = analyze(truth, found, tious=tious)
    slow = slow_band_shares(truth, found, tious=tious, num_bands=10)
    expected = np.array([row if row is not None else [np.nan] * 6 for row in slow])
    np.testing.assert_allclose(out.false_positives.band_shares_BE, expected, rtol=0, atol=1e-12)
    for name in TYPES[1:]:
        gain = slow_gain(truth, found, tious=tious, kind=name)
        assert out.false_positives.gains[name] == pytest.approx(gain, abs=1e-12)
        gain = slow_gain(truth, found, tious=tious, kind=name, num_bands=10)
        assert out.false_positives.gains_n[name] == pytest.approx(gain, abs=1e-12)

    keys = {(video, index): row for video, rows in truth.items() for index, row in enumerate(rows)}
    values = {
        "length": {key: row.end_sec - row.start_sec for key, row in keys.items()},
        "num_instances": {
            key: sum(other.label == row.label for other in truth[key[0]]) for key, row in keys.items()
        },
    }
    values["coverage"] = {key: value / DURATIONS_SEC[key[0]] for key, value in values["length"].items()}
    for name, buckets in out.sensitivity.buckets.items():
        for bucket in buckets:
            members = {key for key, value in values[name].items() if bucket.above < value <= bucket.up_to}
            assert bucket.num_instances == len(members)
            if not members:
                continue
            for is_normalized, mine in ((False, bucket.average_map), (True, bucket.average_map_n)):
                score = slow_bucket(truth, found, tious=tious, members=members, is_normalized=is_normalized)
                assert mine == pytest.approx(score, abs=1e-12)
            assert bucket.missed == pytest.approx(slow_missed(truth, found, tious=tious, members=members))


@pytest.mark.parametrize("seed", range(4))
def test_what_must_hold_of_any_analysis(seed: int) -> None:
    truth, found = random_case(seed + 50)
    tious = [0.4, 0.6]
    everything = Borders(coverage=(), length=(), num_instances=())
    out = analyze(truth, found, tious=tious, borders=everything)
    parts, whole = out.false_positives, out.sensitivity
    table = GroundTruth.of(truth, classes=CLASSES)
    mean_ap = mean_average_precision(table, Predictions.of(found), tious=tious)
    assert parts.average_map == pytest.approx(mean_ap.average, abs=1e-15)
    np.testing.assert_allclose(np.nansum(parts.best_shares_BE, axis=1), 1.0)
    filled = ~np.isnan(parts.band_shares_BE).any(axis=1)
    np.testing.assert_allclose(parts.band_shares_BE[filled].sum(axis=1), 1.0)
    assert all(0.0 <= gain <= parts.gain_of_all + 1e-12 for gain in parts.gains.values())
    for (bucket,) in whole.buckets.values():
        assert bucket.average_map == pytest.approx(parts.average_map)
        assert bucket.average_map_n == pytest.approx(whole.average_map_n)
        assert bucket.missed == pytest.approx(whole.missed)


def test_the_order_of_the_file_does_not_matter() -> None:
    truth, found = random_case(7)
    found = {
        video: [detection(row.start_sec, row.end_sec, round(row.score, 1), row.label) for row in rows]
        for video, rows in found.items()
    }
    shuffled = {video: found[video][::-1] for video in reversed(found)}
    turned = {video: rows[::-1] for video, rows in reversed(truth.items())}
    first = analyze(truth, found, tious=[0.3, 0.5]).to_plain()
    assert analyze(turned, shuffled, tious=[0.3, 0.5]).to_plain() == first


def test_without_predictions_everything_is_missed_and_nothing_gained() -> None:
    out = analyze({"p": [instance(0, 4)]}, {}, tious=[0.5])
    assert out.sensitivity.missed == 1.0
    assert out.false_positives.gain_of_all == 0.0
    assert np.isnan(out.false_positives.band_shares_BE).all()


# From the algorithm of the authors' tool (github.com/HumamAlwassel/DETAD, false_positive_analysis with limit_factor 10),
# run with one change: of instances at the same largest tIoU one with the predicted label decides.
OF_THE_TOOL = {
    "average_mAP_N": 0.46627283282414417,
    "double_detection": 0.08664255559319628,
    "wrong_label": 0.04410360510690209,
    "localization": 0.04331346293022803,
    "confusion": 0.0065354976027866,
    "background": 0.008590077566535848,
}


@pytest.mark.skipif(not ORACLES.exists(), reason="the shared evaluation cases are not here")
def test_normalized_gains_equal_those_of_the_authors_tool() -> None:
    content = json.loads((ORACLES / "gt" / "thumos14_test.json").read_text())
    instances = {
        video: [instance(*row["segment"], label=row["label"]) for row in entry["annotations"]]
        for video, entry in content["database"].items()
    }
    truth = GroundTruth.of(instances, classes=content["classes"])
    predictions = read_predictions(ORACLES / "eval" / "thumos14_mixed_s101.pred.json")
    matching = match_predictions(truth, predictions, tious=[0.3, 0.5, 0.7])
    out = analyze_errors(truth, predictions, matching=matching).false_positives
    found = {"average_mAP_N": out.average_map_n} | out.gains_n
    assert found == pytest.approx(OF_THE_TOOL, abs=1e-12)


def test_plain_form_is_json_that_other_programs_read() -> None:
    truth, found = random_case(2)
    plain = analyze(truth, found, tious=[0.5]).to_plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["false_positives"]["band_shares"][0].keys() == set(TYPES)
    assert plain["sensitivity"]["buckets"]["length"][0].keys() == {
        "name",
        "above",
        "up_to",
        "instances",
        "average_mAP",
        "average_mAP_N",
        "missed",
    }


def test_a_matching_of_something_else_and_a_low_tiou_out_of_range_are_refused() -> None:
    truth = GroundTruth.of({"p": [instance(0, 4)]}, classes=["a"])
    one = Predictions.of({"p": [detection(0, 4, 0.9)]})
    matching = match_predictions(truth, one, tious=[0.3, 0.5])
    with pytest.raises(ValueError, match="the matching is of 1 predictions, but 0 are given"):
        analyze_errors(truth, Predictions.of({}), matching=matching)
    with pytest.raises(ValueError, match=r"low_tiou is 1\.5; it must lie between 0 and 1"):
        analyze_errors(truth, one, matching=matching, low_tiou=1.5)
