"""AR@AN and recall at k x against the references' stored results, a slow loop, and by hand."""

import json
import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lofi.evaluation.average_recall import RECALL_TIOUS, average_recall, recall_at_kx
from lofi.evaluation.matching import match_predictions
from lofi.evaluation.protocols import PROTOCOLS
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment
from tests.reference.slow_average_recall import slow_average_recall, slow_recall_at_kx

ORACLES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "oracles"
needs_oracles = pytest.mark.skipif(not ORACLES.exists(), reason="the shared evaluation cases are not here")
FILES = ["thumos14_mixed_s101", "thumos14_unknownlabel_s104", "anet13_mixed_s103", "thumos14_ties1dec_s102"]
# Equal scores: the references order them as an unstable sort of the file's order happens to. How far that moves a value.
TIES = {"thumos14_ties1dec_s102": 0.01, "all_scores_tied": 0.5}
# ActionFormer alone takes an unknown label for another class there.
WRONG_IN_ACTIONFORMER = {"label_id_collision_actionformer"}


def detection(start: float, end: float, score: float, label: str = "a") -> Detection:
    return Detection(start_sec=start, end_sec=end, label=label, score=score)


def instance(start: float, end: float, label: str = "a") -> LabelledSegment:
    return LabelledSegment(start_sec=start, end_sec=end, label=label)


def truth_of(content: dict, *, subset: str) -> GroundTruth:
    videos = {
        video: [instance(*row["segment"], label=row["label"]) for row in entry["annotations"]]
        for video, entry in content["database"].items()
        if entry["subset"] == subset
    }
    return GroundTruth.of(videos, classes=content["classes"])


def found_of(content: dict) -> Predictions:
    return Predictions.of(
        {
            video: [detection(*row["segment"], row["score"], row["label"]) for row in rows]
            for video, rows in content["results"].items()
        }
    )


@cache
def edge_cases() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ORACLES / "edge" / "edge_cases.json").read_text())
    return content


@cache
def oracle(name: str) -> tuple[GroundTruth, Predictions, dict, list[float]]:
    """Ground truth, predictions, the references' results, tIoUs of recall at k x."""
    if name in FILES:
        case = json.loads((ORACLES / "eval" / f"{name}.expected.json").read_text())
        truth = json.loads((ORACLES / case["gt"]).read_text())
        found = json.loads((ORACLES / case["pred"]).read_text())
        tious = case["tiou_thresholds"]
    else:
        case = edge_cases()["cases"][name]
        truth, found, tious = case["gt"], case["pred"], edge_cases()["tiou_thresholds"]
    return truth_of(truth, subset=case["subset"]), found_of(found), case["reference"], tious


def without_duplicates(truth: GroundTruth, found: Predictions) -> np.ndarray:
    """Instances that OpenTAD and ActionFormer count."""
    return match_predictions(truth, found, tious=[0.5], protocol=PROTOCOLS["opentad"]).instances


def oracle_names() -> list[str]:
    if not ORACLES.exists():
        return FILES
    return FILES + [name for name in edge_cases()["cases"] if name not in ("nan_score", "empty_results")]


@needs_oracles
@pytest.mark.parametrize("name", oracle_names())
def test_average_recall_equals_the_activitynet_toolkit(name: str) -> None:
    truth, found, references, _ = oracle(name)
    expected = references["activitynet_toolkit_proposal"]
    out = average_recall(truth, found, ties="unstable")
    atol = TIES.get(name, 1e-9)
    np.testing.assert_allclose(out.recall, expected["avg_recall"], rtol=0, atol=atol)
    np.testing.assert_allclose(out.num_proposals, expected["proposals_per_video"], rtol=0, atol=1e-9)
    assert out.auc == pytest.approx(expected["AUC"], abs=atol)
    # All proposals are within the budget of 100 there, so that ties change nothing.
    np.testing.assert_allclose(out.recall_TP[:, -1], expected["recall_per_tiou_at_100"], rtol=0, atol=1e-9)


@needs_oracles
@pytest.mark.parametrize("name", oracle_names())
@pytest.mark.parametrize("max_proposals", [100, 1000])
def test_average_recall_without_duplicate_instances_equals_opentad(name: str, max_proposals: int) -> None:
    truth, found, references, _ = oracle(name)
    thumos_style = references["opentad_recall_thumos_style_1000_t0.5_1.0"]
    expected = references["opentad_recall"] if max_proposals == 100 else thumos_style
    tious = RECALL_TIOUS if max_proposals == 100 else np.linspace(0.5, 1.0, 11).tolist()
    out = average_recall(
        truth,
        found,
        tious=tious,
        max_proposals=max_proposals,
        instances=without_duplicates(truth, found),
        ties="unstable",
    )
    for key, value in expected.items():
        mine = out.auc if key == "AUC" else out.at(int(key.removeprefix("AR@")))
        assert mine == pytest.approx(value, abs=TIES.get(name, 1e-9)), key


@needs_oracles
@pytest.mark.parametrize(
    ("name", "reference"),
    [(name, "opentad") for name in oracle_names()]
    + [(name, "actionformer") for name in oracle_names() if name not in WRONG_IN_ACTIONFORMER],
)
def test_recall_at_kx_equals_opentad_and_actionformer(name: str, reference: str) -> None:
    truth, found, references, tious = oracle(name)
    instances = without_duplicates(truth, found)
    rows = references[reference]["recall_at_kx"].values()
    expected = [[row["1x"], row["5x"]] for row in rows]
    out = recall_at_kx(truth, found, tious=tious, multiples=(1, 5), instances=instances, ties="unstable")
    np.testing.assert_allclose(out, expected, rtol=0, atol=TIES.get(name, 1e-9))


@needs_oracles
@pytest.mark.parametrize("by_class", [False, True])
def test_equal_scores_have_the_order_that_the_references_sort_gives_on_this_machine(by_class: bool) -> None:
    truth, found, _, tious = oracle("thumos14_ties1dec_s102")
    group = found.video.astype(np.int64) * len(found.labels) + found.label if by_class else found.video
    score = np.empty(len(found))
    for each in np.unique(group):
        rows = np.flatnonzero(group == each)
        score[rows[found.score[rows].argsort()[::-1]]] = -np.arange(len(rows), dtype=np.float64)
    without_ties = replace(found, score=score)
    if by_class:
        out = recall_at_kx(truth, found, tious=tious, ties="unstable")
        expected = recall_at_kx(truth, without_ties, tious=tious)
        by_time = recall_at_kx(truth, found, tious=tious)
    else:
        out = average_recall(truth, found, ties="unstable").recall_TP
        expected = average_recall(truth, without_ties).recall_TP
        by_time = average_recall(truth, found).recall_TP
    np.testing.assert_array_equal(out, expected)
    assert (out != by_time).any()


def random_case(seed: int) -> tuple[dict[str, list[LabelledSegment]], dict[str, list[Detection]]]:
    rng = random.Random(seed)
    truth, found = {}, {}
    for video in ("p", "q", "r", "s", "t"):
        starts = [rng.uniform(0, 40) for _ in range(rng.randrange(5))]
        truth[video] = [instance(start, start + rng.uniform(1, 9), rng.choice("abc")) for start in starts]
        found[video] = [
            detection(start + rng.uniform(-2, 2), start + rng.uniform(3, 8), rng.random(), rng.choice("abcd"))
            for start in starts * rng.randrange(4) + [rng.uniform(0, 40)]
        ]
    found["elsewhere"] = [detection(0, 1, 0.5), detection(2, 4, 0.7)]
    return truth, found


@pytest.mark.parametrize("seed", range(6))
def test_both_recalls_equal_slow_loops_whatever_the_order_of_the_file(seed: int) -> None:
    truth, found = random_case(seed)
    tious = [0.3, 0.5, 0.8]
    table = GroundTruth.of(truth, classes=["a", "b", "c", "d"])
    shuffled = {video: found[video][::-1] for video in reversed(found)}
    for rows in (found, shuffled):
        out = average_recall(table, Predictions.of(rows), tious=tious, max_proposals=7)
        np.testing.assert_allclose(
            out.recall_TP, slow_average_recall(truth, found, tious=tious, max_proposals=7), rtol=0, atol=1e-12
        )
        at_kx = recall_at_kx(table, Predictions.of(rows), tious=tious, multiples=(1, 2, 3))
        np.testing.assert_allclose(
            at_kx, slow_recall_at_kx(truth, found, tious=tious, multiples=(1, 2, 3)), rtol=0, atol=1e-12
        )


def test_perfect_proposals_recall_all_once_the_budget_reaches_them() -> None:
    truth = GroundTruth.of({"v": [instance(0, 4), instance(6, 9, "b")]}, classes=["a", "b"])
    out = average_recall(truth, Predictions.of({"v": [detection(6, 9, 0.4), detection(0, 4, 0.9)]}))
    assert out.at(1) == 0.5
    assert out.at(100) == 1.0


def test_recall_at_kx_is_the_mean_over_classes_that_have_an_instance() -> None:
    truth = GroundTruth.of(
        {"v": [instance(0, 4), instance(6, 9)], "w": [instance(1, 3, "b")]}, classes=["a", "b", "c"]
    )
    found = {"v": [detection(6, 9, 0.9), detection(6, 9, 0.8), detection(0, 4, 0.7)]}
    found["w"] = [detection(1, 3, 0.9, "unknown"), detection(1, 3, 0.9, "c")]
    at_kx = recall_at_kx(truth, Predictions.of(found), tious=[0.5], multiples=(1, 2))
    assert at_kx.tolist() == [[0.25, 0.5]]


def test_no_proposals_give_zero() -> None:
    truth = GroundTruth.of({"v": [instance(0, 4)]}, classes=["a"])
    for rows in ({}, {"v": []}, {"elsewhere": [detection(0, 1, 0.5)]}):
        out = average_recall(truth, Predictions.of(rows))
        assert out.auc == 0.0
        assert out.recall.tolist() == [0.0] * 100
        assert recall_at_kx(truth, Predictions.of(rows), tious=[0.5]).tolist() == [[0.0, 0.0]]


def test_scores_that_cannot_be_ordered_are_refused() -> None:
    truth = GroundTruth.of({"v": [instance(0, 4)]}, classes=["a"])
    with pytest.raises(ValueError, match="a prediction of video 'v' has score nan"):
        average_recall(truth, Predictions.of({"v": [detection(0, 1, float("nan"))]}))
