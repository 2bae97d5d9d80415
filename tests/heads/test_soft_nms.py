"""Soft-NMS against a slow loop and against the outputs of the field's compiled one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.slow_soft_nms import slow_soft_nms

from lofi.heads.soft_nms import soft_nms

ORACLES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "oracles" / "nms"
METHODS = {0: "hard", 1: "linear", 2: "gaussian"}


def random_segments(count: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, generator=generator, dtype=torch.float64) * 20
    length = torch.rand(count, generator=generator, dtype=torch.float64) * 6
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (count,), generator=generator) * 3
    return torch.stack([start, start + length], dim=1), scores, labels


@pytest.mark.parametrize("method", ["hard", "linear", "gaussian"])
@pytest.mark.parametrize("max_detections", [None, 11])
def test_soft_nms_equals_slow_loop(method: str, max_detections: int | None) -> None:
    for seed, count in enumerate((1, 2, 17, 60)):
        segments, scores, labels = random_segments(count, seed=seed)
        out = soft_nms(
            segments,
            scores,
            labels=labels,
            method=method,  # type: ignore[arg-type]
            sigma=0.4,
            tiou_threshold=0.3,
            min_score=0.05,
            max_detections=max_detections,
        )
        slow = slow_soft_nms(
            [tuple(row) for row in segments.tolist()],
            scores.tolist(),
            labels.tolist(),
            method=method,
            sigma=0.4,
            tiou_threshold=0.3,
            min_score=0.05,
        )[:max_detections]
        assert out.index.tolist() == [place for place, _ in slow]
        assert out.detections.scores.tolist() == pytest.approx([score for _, score in slow])
        assert out.detections.labels.tolist() == labels[out.index].tolist()
        assert torch.equal(out.detections.segments, segments[out.index])


def test_early_stop_changes_nothing() -> None:
    segments, scores, labels = random_segments(400, seed=9)
    everything = soft_nms(segments, scores, labels=labels, sigma=0.3).detections
    some = soft_nms(segments, scores, labels=labels, sigma=0.3, max_detections=13).detections
    assert torch.equal(some.scores, everything.scores[:13])
    assert torch.equal(some.segments, everything.segments[:13])


def test_no_segment_and_none_above_the_lowest_score_give_none() -> None:
    for count in (0, 3):
        out = soft_nms(torch.rand(count, 2), torch.full((count,), 1e-4), min_score=0.01)
        assert out.detections.segments.shape == (0, 2)
        assert len(out.index) == 0


def test_equal_scores_pick_the_first() -> None:
    segments = torch.tensor([[0.0, 4.0], [1.0, 5.0], [9.0, 12.0]])
    out = soft_nms(segments, torch.full((3,), 0.5), method="hard", tiou_threshold=0.5)
    assert out.index.tolist() == [0, 2]


def test_voting_takes_the_mean_weighted_by_score_and_overlap_within_the_label() -> None:
    segments = torch.tensor([[0.0, 4.0], [0.0, 5.0], [0.0, 4.5]], dtype=torch.float64)
    scores = torch.tensor([0.8, 0.5, 0.7], dtype=torch.float64)
    out = soft_nms(
        segments,
        scores,
        labels=torch.tensor([1, 1, 2]),
        method="hard",
        tiou_threshold=0.6,
        voting_tiou_threshold=0.7,
    )
    assert out.index.tolist() == [0, 2]
    end = (0.8 * 1.0 * 4.0 + 0.5 * 0.8 * 5.0) / (0.8 * 1.0 + 0.5 * 0.8)
    assert out.detections.segments[0].tolist() == pytest.approx([0.0, end])
    assert out.detections.segments[1].tolist() == pytest.approx([0.0, 4.5])


def test_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="method is 'soft'; allowed: hard, linear, gaussian"):
        soft_nms(torch.rand(1, 2), torch.rand(1), method="soft")  # type: ignore[arg-type]


def oracle_cases() -> list[dict]:
    path = ORACLES / "nms_cases.json"
    return json.loads(path.read_text())["cases"] if path.exists() else []


@pytest.mark.skipif(not ORACLES.exists(), reason="the shared NMS cases are not here")
def test_soft_nms_equals_the_compiled_reference() -> None:
    stored = np.load(ORACLES / "nms_cases.npz")
    num_compared, left_out = 0, {"ties": 0, "improved gaussian": 0, "voting on no length": 0}
    for case in oracle_cases():
        name, config = case["case"].split("/")[0], case["cfg"]
        if (
            case["kind"] == "ties"
        ):  # the reference swaps rows while it picks, so equal scores come in its own order
            left_out["ties"] += 1
            continue
        if config.get("method") == 3:  # OpenTAD's variant with a second threshold, not offered here
            left_out["improved gaussian"] += 1
            continue
        if case["kind"] == "zero_len" and config.get("voting_thresh"):  # the reference gives NaN
            left_out["voting on no length"] += 1
            continue
        segments, scores, labels = (
            torch.from_numpy(stored[f"{name}/{key}"]) for key in ("segs", "scores", "labels")
        )
        is_raw = config["op"].startswith("raw")
        is_soft = config["op"] != "raw_nms" and config.get("use_soft_nms", True)
        out = soft_nms(
            segments,
            scores,
            labels=labels if config.get("multiclass") else None,
            method=METHODS[config.get("method", 2)] if is_soft else "hard",  # type: ignore[arg-type]
            sigma=config.get("sigma", 0.5),
            tiou_threshold=config["iou_threshold"],
            min_score=config.get("min_score", 0.0),
            max_detections=config.get("max_seg_num"),
            voting_tiou_threshold=config.get("voting_thresh") or None,
        )
        found = out.detections
        if is_raw:
            np.testing.assert_array_equal(
                out.index.numpy(), stored[f"{case['case']}/keep"], err_msg=case["case"]
            )
        if is_raw and is_soft:
            wanted_scores = stored[f"{case['case']}/dets"][:, 2]
            np.testing.assert_allclose(
                found.scores.numpy(), wanted_scores, rtol=0, atol=1e-6, err_msg=case["case"]
            )
        if not is_raw:
            wanted = {key: stored[f"{case['case']}/{key}"] for key in ("segs", "scores", "labels")}
            np.testing.assert_allclose(
                found.scores.numpy(), wanted["scores"], rtol=0, atol=1e-6, err_msg=case["case"]
            )
            np.testing.assert_allclose(
                found.segments.numpy(), wanted["segs"], rtol=1e-6, atol=1e-4, err_msg=case["case"]
            )
            if config["multiclass"]:
                np.testing.assert_array_equal(found.labels.numpy(), wanted["labels"], err_msg=case["case"])
        num_compared += 1
    assert num_compared + sum(left_out.values()) == 180
    assert left_out == {"ties": 15, "improved gaussian": 11, "voting on no length": 2}
