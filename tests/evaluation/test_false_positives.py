"""Types of false positives, on predictions whose type is known by construction."""

import pytest

from lofi.evaluation.error_analysis import analyze_errors
from lofi.evaluation.false_positives import (
    TYPES,
    FalsePositives,
    analyze_false_positives,
    nearest_instances,
    types_at,
)
from lofi.evaluation.matching import match_predictions
from lofi.evaluation.protocols import PROTOCOLS
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment


def instance(start: float, end: float, label: str = "a") -> LabelledSegment:
    return LabelledSegment(start_sec=start, end_sec=end, label=label)


def detection(start: float, end: float, score: float, label: str = "a") -> Detection:
    return Detection(start_sec=start, end_sec=end, label=label, score=score)


def analyze_types(
    truth: dict[str, list[LabelledSegment]], found: dict[str, list[Detection]], *, tious: list[float]
) -> FalsePositives:
    table, predictions = GroundTruth.of(truth, classes=["a", "b"]), Predictions.of(found)
    return analyze_false_positives(
        table, predictions, matching=match_predictions(table, predictions, tious=tious)
    )


# One instance of a, and one of b; a threshold of 0.5.
ONE_OF_EACH = {
    "true_positive": detection(10, 19, 0.9),  # tIoU 0.9 with a
    "double_detection": detection(10, 18, 0.8),  # 0.8 with a, which is taken
    "wrong_label": detection(30, 36, 0.7),  # 0.75 with b
    "localization": detection(10, 13, 0.6),  # 0.3 with a
    "confusion": detection(36, 42, 0.5),  # 1 / 6 with b
    "background": detection(19.5, 25, 0.4),  # 0.5 / 15 with a
}


def test_a_prediction_of_every_type_is_named() -> None:
    truth = GroundTruth.of({"p": [instance(10, 20), instance(30, 38, "b")]}, classes=["a", "b"])
    for name, row in ONE_OF_EACH.items():
        rows = [row] if name != "double_detection" else [ONE_OF_EACH["true_positive"], row]
        predictions = Predictions.of({"p": rows})
        matching = match_predictions(truth, predictions, tious=[0.5])
        nearest = nearest_instances(truth, predictions, matching=matching)
        assert TYPES[types_at(0, matching=matching, nearest=nearest)[-1]] == name


@pytest.mark.parametrize(
    ("row", "tiou", "name"),
    [
        (detection(0, 8, 0.5, "b"), 0.8, "wrong_label"),  # tIoU at the threshold
        (detection(0, 8, 0.5, "b"), 0.81, "confusion"),
        (detection(0, 1, 0.5), 0.8, "localization"),  # at 0.1
        (detection(0, 0.99, 0.5), 0.8, "background"),
        (detection(0, 0.99, 0.5), 0.1, "background"),  # at a threshold that is not above it
        (detection(0, 1, 0.5), 0.1, "true_positive"),
        (detection(5, 5, 0.5), 0.8, "background"),  # of no length
        (detection(8, 2, 0.5), 0.8, "background"),  # reversed
    ],
)
def test_types_part_at_the_threshold_and_at_the_low_tiou(row: Detection, tiou: float, name: str) -> None:
    truth = GroundTruth.of({"p": [instance(0, 10)], "q": [instance(0, 1, "b")]}, classes=["a", "b"])
    predictions = Predictions.of({"p": [row]})
    matching = match_predictions(truth, predictions, tious=[tiou])
    nearest = nearest_instances(truth, predictions, matching=matching)
    assert TYPES[types_at(0, matching=matching, nearest=nearest)[0]] == name


def test_a_video_without_instance_and_one_outside_of_the_subset_are_background() -> None:
    out = analyze_types(
        {"p": [instance(0, 10)], "q": []},
        {"q": [detection(0, 9, 0.5)], "x": [detection(0, 9, 0.4)]},
        tious=[0.5],
    )
    assert out.band_shares_BE[:2, TYPES.index("background")].tolist() == [1.0, 1.0]


def test_instances_at_equal_tiou_are_named_by_the_predicted_label() -> None:
    both = [instance(0, 10, "b"), instance(0, 10, "a")]
    rows = [detection(0, 10, 0.9), detection(0, 10, 0.8)]
    for order in (both, both[::-1]):
        out = analyze_types({"p": order}, {"p": rows}, tious=[0.5])
        assert out.counts_BTE[1, 0, TYPES.index("double_detection")] == 1


def test_bands_hold_as_many_predictions_as_the_class_has_instances() -> None:
    truth = {"p": [instance(0, 4), instance(10, 14)], "q": [instance(0, 9, "b")]}
    found = {
        "p": [detection(0, 4, 0.9), detection(50, 51, 0.8), detection(10, 14, 0.7)],
        "q": [detection(0, 9, 0.2, "b"), detection(0, 8, 0.1, "b")],
    }
    counts_BE = analyze_types(truth, found, tious=[0.5]).counts_BTE[:, 0]
    first = dict.fromkeys(TYPES, 0) | {"true_positive": 2, "background": 1}
    second = dict.fromkeys(TYPES, 0) | {"true_positive": 1, "double_detection": 1}
    assert counts_BE[0].tolist() == list(first.values())
    assert counts_BE[1].tolist() == list(second.values())
    assert not counts_BE[2:].any()


def test_what_overlaps_ambiguous_stretches_is_of_no_type_under_the_thumos14_protocol() -> None:
    truth = GroundTruth.of({"p": [instance(0, 10)]}, classes=["a"], ambiguous={"p": [(20.0, 30.0)]})
    predictions = Predictions.of({"p": [detection(22, 25, 0.9), detection(0, 9, 0.8)]})
    matching = match_predictions(truth, predictions, tious=[0.5], protocol=PROTOCOLS["thumos14"])
    out = analyze_errors(truth, predictions, matching=matching)
    assert out.false_positives.counts_BTE.sum() == 1
    assert out.false_positives.average_map == out.sensitivity.average_map_n == 1.0
