"""results.json as it is printed: percent, the classes at both ends, what deserves a note."""

import io

import pytest
from rich.console import Console

from lofi.report import evaluation_tables
from lofi.report.evaluation import comparison_sentence, subject, warnings

RESULTS = {
    "mAP": {"0.50": 0.5, "0.75": 0.25},
    "average_mAP": 0.375,
    "AR": {"1": 0.1, "100": 0.9},
    "AUC": 0.6,
}


@pytest.fixture
def printed(monkeypatch):
    """A function: results -> the lines that a pipe gets."""

    def show(results):
        stream = io.StringIO()
        monkeypatch.setattr(evaluation_tables, "console", Console(file=stream, highlight=False))
        evaluation_tables.print_evaluation(results)
        return [line.strip() for line in stream.getvalue().splitlines() if line.strip()]

    return show


def test_the_first_four_keys_alone_are_printed_in_percent_without_escape_codes(printed):
    lines = printed(RESULTS)
    assert lines[:2] == ["protocol default", "average mAP 37.50 %"]
    assert lines[2].split() == ["tIoU", "0.50", "0.75"]
    assert lines[4].split() == ["mAP", "50.00", "25.00"]
    assert lines[5] == "AR@1 10.00, AR@100 90.00, area under AR 60.00 %"
    assert not any("\x1b" in line for line in lines)


def test_many_classes_are_shown_by_the_best_and_the_worst(printed):
    ap = {f"class {index:02d}": {"0.50": index / 100, "0.75": index / 100} for index in range(13)}
    instances = dict.fromkeys(ap, 3)
    text = "\n".join(printed({**RESULTS, "AP": ap, "instances": instances}))
    assert "5 best of 13 classes" in text
    shown = [name for name in ap if name in text]
    assert shown == [f"class {index:02d}" for index in (0, 1, 2, 3, 4, 8, 9, 10, 11, 12)]


def test_a_table_that_is_too_wide_goes_on_below(printed):
    mAP = {f"0.{index}": 0.5 for index in range(30, 70)}
    headers = [line for line in printed({**RESULTS, "mAP": mAP}) if line.startswith("tIoU")]
    assert len(headers) > 1
    assert " ".join(headers).replace("tIoU", "").split() == list(mAP)


def test_what_does_not_count_as_it_should_is_noted(printed):
    counts = {
        "predictions": 7,
        "unknown_labels": 2,
        "outside": 3,
        "videos": 5,
        "missing_videos": 1,
        "reversed": 0,
    }
    assert warnings(counts) == [
        "2 of 7 predictions have a label without an instance in the subset; ignored",
        "3 of 7 predictions lie in videos that the subset does not have; they count as false",
        "1 of 5 videos have no prediction; their instances count as missed",
    ]
    assert "note: 2 of 7 predictions" in "\n".join(printed({**RESULTS, "counts": counts}))
    assert warnings({"predictions": 7}) == []


def test_the_subject_names_dataset_subset_and_counts():
    results = {
        "source": {"dataset": "thumos14", "subset": "test"},
        "counts": {"videos": 4728, "instances": 7293, "classes": 200, "predictions": 33491},
        "protocol": "opentad",
    }
    assert subject(results) == (
        "thumos14, test: 4,728 videos, 7,293 instances of 200 classes; 33,491 predictions; protocol opentad"
    )


@pytest.mark.parametrize(
    ("difference", "low", "high", "p_value", "expected"),
    [
        (0.0, 0.0, 0.0, 1.0, "No difference from other.json: the average mAP is the same."),
        (0.003, -0.001, 0.007, 0.14, "can come from the choice of test videos alone"),
        (-0.01, -0.02, -0.001, 0.0004, "1.00 points below other.json"),
        (-0.01, -0.02, -0.001, 0.0004, "p < 0.001"),
        (
            0.01,
            0.002,
            0.02,
            0.01,
            "The choice of test videos does not explain it; other training seeds might",
        ),
    ],
)
def test_a_paired_test_is_said_in_words(difference, low, high, p_value, expected):
    against = {"predictions": "runs/other.json", "difference": difference, "interval": [low, high]}
    against |= {"p_value": p_value, "confidence": 0.95, "samples": 1000}
    assert expected in comparison_sentence(against)
