"""What launch/evaluate.py takes and prints: typed thresholds, results in percent."""

import pytest

from lofi.evaluation.mean_average_precision import parse_tious
from lofi.evaluation.results import Results


@pytest.mark.parametrize(
    ("text", "tious"),
    [
        ("0.3:0.7:0.1", [0.3, 0.4, 0.5, 0.6, 0.7]),
        ("0.5:0.95:0.05", [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]),
        ("0.5:0.6:0.25", [0.5]),
        ("0.5,0.75", [0.5, 0.75]),
        ("0.5", [0.5]),
    ],
)
def test_thresholds_are_parsed_to_the_digits_that_were_typed(text, tious):
    assert parse_tious(text) == tious


@pytest.mark.parametrize("text", ["", "half", "0.5,", "nan,0.5", "0.3:x:0.1"])
def test_text_that_is_no_numbers_is_refused_with_both_forms(text):
    with pytest.raises(ValueError, match=r"write first:last:step or a list, such as 0\.3:0\.7:0\.1"):
        parse_tious(text)


@pytest.mark.parametrize("text", ["0.3:0.7", "0.7:0.3:0.1", "0.3:0.7:0", "0.3:0.7:-0.1", "0.1:0.2:0.3:0.4"])
def test_a_range_that_gives_nothing_is_refused(text):
    with pytest.raises(ValueError, match="a range is first:last:step"):
        parse_tious(text)


def make_results(**counts):
    return Results(
        mAP={"0.50": 0.5, "0.75": 0.25}, average_mAP=0.375, AR={"1": 0.1, "100": 0.9}, AUC=0.6, counts=counts
    )


def test_results_are_described_in_percent():
    lines = make_results(predictions=7, unknown_labels=0, outside=0).describe().splitlines()
    assert lines == [
        "average mAP 37.50 %",
        "  mAP at tIoU 0.50: 50.00 %",
        "  mAP at tIoU 0.75: 25.00 %",
        "AR@1 10.00 %, AR@100 90.00 %, AUC 60.00 %",
    ]


def test_predictions_that_do_not_count_as_they_should_are_described():
    text = make_results(predictions=7, unknown_labels=2, outside=3).describe()
    assert "2 of 7 predictions with a label that is no class" in text
    assert "3 of 7 predictions in videos that the subset does not have" in text
    assert "predictions" not in make_results().describe()
