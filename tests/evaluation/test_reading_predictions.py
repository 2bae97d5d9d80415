"""The fast reader against the careful one, its memory, and names of videos that do not fit."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lofi.evaluation.careful_reading import read_predictions_carefully
from lofi.evaluation.predictions import check_overlap, read_predictions, write_predictions
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment

ORACLES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "oracles"
needs_oracles = pytest.mark.skipif(not ORACLES.exists(), reason="the shared evaluation cases are not here")


def write(path: Path, results: object, **extra: object) -> Path:
    path.write_text(json.dumps({"results": results, **extra}), encoding="utf-8")
    return path


def forbid_careful_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Predictions:
        raise AssertionError(f"{path} was read carefully")

    monkeypatch.setattr("lofi.evaluation.predictions.read_predictions_carefully", refuse)


def assert_equal(first: Predictions, second: Predictions) -> None:
    assert (first.videos, first.labels) == (second.videos, second.labels)
    for name in ("video", "label", "start", "end", "score"):
        a, b = getattr(first, name), getattr(second, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@needs_oracles
@pytest.mark.parametrize("path", sorted((ORACLES / "eval").glob("*.pred.json")), ids=lambda path: path.name)
def test_both_readers_give_the_same_columns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    careful = read_predictions_carefully(path)
    forbid_careful_reading(monkeypatch)
    assert_equal(read_predictions(path), careful)


@needs_oracles
def test_every_edge_case_is_read_but_the_one_whose_score_is_nan(tmp_path: Path) -> None:
    cases = json.loads((ORACLES / "edge" / "edge_cases.json").read_text(encoding="utf-8"))["cases"]
    counts = {}
    for name, case in cases.items():
        path = write(tmp_path / f"{name}.json", case["pred"]["results"], version="edge", external_data={})
        if name == "nan_score":
            with pytest.raises(ValueError, match=r"nan_score\.json: results\['v1'\]\[0\]\.score is nan"):
                read_predictions(path)
            continue
        found = read_predictions(path)
        assert len(found) == case["reference"]["n_pred"]
        counts[name] = (found.num_zero_length, found.num_reversed)
    odd = {name: count for name, count in counts.items() if any(count)}
    assert odd == {"zero_length_gt": (1, 0), "zero_length_prediction": (1, 0), "reversed_prediction": (0, 1)}


def test_further_keys_whole_numbers_and_a_missing_external_data_are_read_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"segment": [1, 3], "label": "a", "score": 1, "proposal": {"id": [7]}, "label_id": None}
    path = write(tmp_path / "p.json", {"v": [row], "w": []}, meta=[1, {"results": 2}])
    forbid_careful_reading(monkeypatch)
    found = read_predictions(path)
    assert found.by_video() == {"v": [Detection(start_sec=1.0, end_sec=3.0, label="a", score=1.0)], "w": []}


def test_every_bit_of_a_number_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = np.random.default_rng(3).integers(0, 2**64, size=3000, dtype=np.uint64)
    numbers = bits.view(np.float64)
    scores = [*numbers[np.isfinite(numbers)].tolist(), 5e-324, 1.7976931348623157e308, -0.0, 0.1 + 0.2]
    rows = [{"segment": [score / 3, score / 7], "label": "a", "score": score} for score in scores]
    path = write(tmp_path / "p.json", {"v": rows})
    forbid_careful_reading(monkeypatch)
    found = read_predictions(path)
    assert found.score.tolist() == scores
    assert found.start.tolist() == [score / 3 for score in scores]
    assert found.end.tolist() == [score / 7 for score in scores]


def test_no_predictions_are_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_careful_reading(monkeypatch)
    found = read_predictions(write(tmp_path / "p.json", {}))
    assert (len(found), found.videos, found.labels) == (0, (), ())


def test_action_stands_for_a_missing_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epic = {"verb": 3, "noun": 24, "action": "3,24", "segment": [0.5, 2], "score": 0.25}
    both = {"label": "stir", "action": "3,24", "segment": [0.5, 2], "score": 0.125}
    path = write(tmp_path / "p.json", {"P01_11": [epic, both]}, challenge="action_detection")
    careful = read_predictions_carefully(path)
    forbid_careful_reading(monkeypatch)
    assert_equal(read_predictions(path), careful)
    assert careful.labels == ("3,24", "stir")


def test_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(
        '\ufeff{"results": {"v": [{"segment": [0, 1], "label": "a", "score": 2}]}}', encoding="utf-8"
    )
    assert read_predictions(path).score.tolist() == [2.0]


def test_reading_holds_little_more_than_the_columns(tmp_path: Path) -> None:
    rows = [{"segment": [n / 7, n / 3], "label": f"class {n % 5}", "score": 1 / (n + 1)} for n in range(40)]
    path = write(tmp_path / "p.json", {f"video {n}": rows for n in range(700)})
    read_predictions(write(tmp_path / "small.json", {"v": rows}))  # what a first call allocates once
    tracemalloc.start()
    found = read_predictions(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    column_bytes = sum(getattr(found, name).nbytes for name in ("video", "label", "start", "end", "score"))
    assert column_bytes == 32 * 700 * 40
    assert peak_bytes < 2 * column_bytes


def truth_of(*videos: str) -> GroundTruth:
    instance = LabelledSegment(start_sec=0.0, end_sec=1.0, label="a")
    return GroundTruth.of({video: [instance] for video in videos}, classes=["a"])


def predictions_in(*videos: str) -> Predictions:
    return Predictions.of(
        {video: [Detection(start_sec=0.0, end_sec=1.0, label="a", score=0.5)] for video in videos}
    )


@pytest.mark.parametrize(
    ("predicted", "known", "message"),
    [
        (
            ["x1", "x2"],
            ["a", "b", "c", "d"],
            r"none of the 2 predicted videos \(x1, x2\).*4 videos.*\(a, b, c, \.\.\.\)\. G",
        ),
        (["v_a"], ["a"], 'they fit without the prefix "v_"'),
        (["a"], ["v_a"], 'they fit with the prefix "v_"'),
        (["a.mp4"], ["a"], "they fit without their extensions"),
    ],
)
def test_predictions_for_no_video_of_the_subset_are_refused(
    predicted: list[str], known: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_overlap(truth_of(*known), predictions_in(*predicted))


def test_one_video_in_common_or_no_prediction_at_all_is_enough() -> None:
    check_overlap(truth_of("a", "b"), predictions_in("b", "elsewhere"))
    check_overlap(truth_of("a"), Predictions.of({}))
    check_overlap(truth_of("a"), Predictions.of({"elsewhere": []}))


def test_columns_go_to_detections_and_back(tmp_path: Path) -> None:
    found = predictions_in("q", "p")
    write_predictions(tmp_path / "p.json", found.by_video())
    assert_equal(read_predictions(tmp_path / "p.json"), found)
