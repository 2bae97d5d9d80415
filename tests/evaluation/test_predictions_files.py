"""predictions.json and results.json: what is written is read; what is broken is named."""

import json
from pathlib import Path

import pytest

from lofi.evaluation.average_recall import average_recall
from lofi.evaluation.mean_average_precision import mean_average_precision
from lofi.evaluation.predictions import read_predictions, write_predictions
from lofi.evaluation.results import make_results, read_results, write_results
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment

FOUND = {
    "vidéo": [Detection(start_sec=1.5, end_sec=2.25, label="jump 跳", score=0.1234567890123)],
    "nothing found": [],
}


def test_predictions_come_back_as_they_were_written_in_activitynet_form(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "predictions.json"
    write_predictions(path, FOUND)
    assert read_predictions(path).by_video() == FOUND
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content.keys() == {"version", "results", "external_data"}
    assert content["results"]["vidéo"][0].keys() == {"segment", "label", "score"}
    assert [each.name for each in path.parent.iterdir()] == ["predictions.json"]


def test_predictions_that_are_not_finite_are_not_written_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    write_predictions(path, FOUND)
    with pytest.raises(ValueError, match="JSON"):
        write_predictions(path, {"v": [Detection(start_sec=0, end_sec=1, label="a", score=float("nan"))]})
    assert read_predictions(path).by_video() == FOUND
    assert [each.name for each in tmp_path.iterdir()] == ["predictions.json"]


ROW = '"segment": [1, 2], "label": "a", "score": 0.5'


def rows_of(row: str, *, more: str = "") -> str:
    return '{"results": {"v": [{' + row + "}" + more + "]}}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("{", r"not JSON: .*line 1 column 2 \(the file breaks off\)"),
        (rows_of(ROW)[:-9], r"not JSON: .*, line 1 column \d+ \(the file breaks off\)"),
        (rows_of(ROW)[:14], r"not JSON: Unterminated string.* \(the file breaks off\)"),
        (rows_of(ROW) + "\n}", r"not JSON: Extra data, line 2 column 1\."),
        ("[]", r'needs the key "results".*it is \[\]'),
        ('{"result": {}}', r'needs the key "results".*the keys are \[.result.\]'),
        ('{"results": []}', 'needs the key "results"'),
        ('{"results": {"v": 3}}', r"results\['v'\] is 3; it must be a list"),
        ('{"results": {"v": null}}', r"results\['v'\] is None; it must be a list"),
        ('{"results": {"v": [], "w": [], "v": []}}', "holds the key 'v' twice"),
        ('{"results": {"v": []}, "results": {"w": []}}', "holds the key 'results' twice"),
        ('{"results": [1, 2]}', r"results is the list \[1, 2\]"),
        (rows_of(ROW, more=", 7"), r"results\['v'\]\[1\] is 7; it must be an object"),
        ('{"results": {"v": [{"label": "a", "score": 1}]}}', r'\[0\]: the key "segment" is missing'),
        (rows_of('"segment": [1, 2], "score": 1'), r'\[0\]: the key "label" is missing'),
        (rows_of(ROW.replace("[1, 2]", "[1]")), r"segment is \[1\]; it must be two finite"),
        (rows_of(ROW.replace("[1, 2]", "[1, 2, 3]")), r"results\['v'\]\[0\]\.segment is \[1, 2, 3\]"),
        (rows_of(ROW.replace("[1, 2]", '["1", "2"]')), r"segment is \['1', '2'\]; it must be two finite"),
        (rows_of(ROW.replace("[1, 2]", "[1, NaN]")), r"segment is \[1, nan\]"),
        (rows_of(ROW.replace("[1, 2]", "[-Infinity, 2]")), r"segment is \[-inf, 2\]"),
        (rows_of(ROW.replace("[1, 2]", "[1, 1e999]")), r"segment is \[1, inf\]"),
        (rows_of(ROW.replace('"a"', "4")), "label is 4; it must be the name of a class"),
        (rows_of(ROW.replace('"a"', '""')), "label is ''; it must be the name of a class"),
        (rows_of(ROW.replace("0.5", "NaN")), "score is nan; it must be a finite number"),
        (rows_of(ROW.replace("0.5", "true")), "score is True; it must be a finite number"),
        (rows_of(ROW.replace("0.5", "1" + 400 * "0")), "score is 1000.*; it must be a finite number"),
        (rows_of(ROW.replace("0.5", '"0.5"')), "score is '0.5'; it must be a finite number"),
    ],
)
def test_broken_predictions_are_named_by_file_and_key(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_predictions(path)
    assert "broken.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes(rows_of(ROW).replace('"a"', '"é"').encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.json: not UTF-8 text \(byte 49\)"):
        read_predictions(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.json: cannot be read"):
        read_predictions(tmp_path / "absent.json")


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    truth = {"v": [LabelledSegment(start_sec=0, end_sec=4, label="a")]}
    found = {"v": [Detection(start_sec=0, end_sec=2.4, label="a", score=0.7)]}
    instances, predictions = GroundTruth.of(truth, classes=["a"]), Predictions.of(found)
    mean_ap = mean_average_precision(instances, predictions, tious=[0.5, 0.75])
    results = make_results(mean_ap, average_recall(instances, predictions))
    assert results.mAP == {"0.50": 1.0, "0.75": 0.0}
    assert results.average_mAP == 0.5
    assert results.AR.keys() == {"1", "5", "10", "100"}
    assert results.AR["100"] == pytest.approx(0.3)
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


def test_results_without_a_key_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"mAP": {}}')
    with pytest.raises(ValueError, match=r'results\.json: the key "average_mAP" is missing'):
        read_results(path)
