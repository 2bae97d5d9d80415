"""Soft-NMS against a slow loop and against the outputs of the field's compiled one, in every implementation."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.slow_soft_nms import slow_soft_nms

from lofi.heads import soft_nms as soft_nms_module
from lofi.heads.soft_nms import NMS_METHODS, Suppressed, soft_nms

pytest.importorskip("numba", reason="the extra `test` brings numba")

ORACLES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "oracles" / "nms"
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
PLACES = [
    ("torch", "cpu"),
    ("numba", "cpu"),
    pytest.param("torch", "cuda", marks=[pytest.mark.gpu, NO_GPU]),
    pytest.param("numba", "cuda", marks=[pytest.mark.gpu, NO_GPU]),
]
everywhere = pytest.mark.parametrize(("implementation", "device"), PLACES)


def random_segments(
    count: int, *, seed: int, step: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of four labels; with a step, times are its multiples and scores are tenths, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, generator=generator, dtype=torch.float64) * 20
    length = torch.rand(count, generator=generator, dtype=torch.float64) * 6
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (count,), generator=generator) * 3
    if step:
        start, length, scores = (
            (start / step).round() * step,
            (length / step).round() * step,
            scores.round(decimals=1),
        )
    return torch.stack([start, start + length], dim=1), scores, labels


@everywhere
@pytest.mark.parametrize("step", [0.0, 0.5])
@pytest.mark.parametrize("method", NMS_METHODS)
@pytest.mark.parametrize("max_detections", [None, 11])
def test_soft_nms_equals_slow_loop_with_and_without_equal_scores(
    implementation: str, device: str, method: str, max_detections: int | None, step: float
) -> None:
    options = {
        "method": method,
        "sigma": 0.4,
        "tiou_threshold": 0.3,
        "tiou_threshold_per_length": 0.02,
        "min_score": 0.15,
    }
    for seed, count in enumerate((1, 2, 17, 60)):
        segments, scores, labels = random_segments(count, seed=seed, step=step)
        out = soft_nms(
            segments.to(device),
            scores.to(device),
            labels.to(device),
            max_detections=max_detections,
            implementation=implementation,  # type: ignore[arg-type]
            **options,  # type: ignore[arg-type]
        )
        assert out.detections.segments.device.type == out.index.device.type == device
        rows = [(start, end) for start, end in segments.tolist()]
        slow = slow_soft_nms(rows, scores.tolist(), labels.tolist(), **options)[:max_detections]  # type: ignore[arg-type]
        index = out.index.cpu()
        assert index.tolist() == [place for place, _ in slow]
        assert out.detections.scores.tolist() == pytest.approx([score for _, score in slow])
        assert out.detections.labels.tolist() == labels[index].tolist()
        assert torch.equal(out.detections.segments.cpu(), segments[index])


@everywhere
def test_early_stop_changes_nothing(implementation: Any, device: str) -> None:
    segments, scores, labels = (each.to(device) for each in random_segments(400, seed=9))
    everything, some = (
        soft_nms(
            segments, scores, labels, sigma=0.3, max_detections=most, implementation=implementation
        ).detections
        for most in (None, 13)
    )
    assert torch.equal(some.scores, everything.scores[:13])
    assert torch.equal(some.segments, everything.segments[:13])


@everywhere
@pytest.mark.parametrize("method", NMS_METHODS)
def test_no_segment_and_none_above_the_lowest_score_give_none(
    implementation: Any, device: str, method: Any
) -> None:
    for count in (0, 3):
        segments, scores = torch.rand(count, 2, device=device), torch.full((count,), 1e-4, device=device)
        out = soft_nms(segments, scores, method=method, min_score=0.01, implementation=implementation)
        assert out.detections.segments.shape == (0, 2)
        assert len(out.index) == 0


@everywhere
def test_soft_methods_pick_equal_scores_by_their_list_and_hard_by_the_input(
    implementation: Any, device: str
) -> None:
    segments = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]], device=device)
    scores = torch.tensor([0.5, 0.5, 0.9, 0.5], device=device)
    order = {
        method: soft_nms(segments, scores, method=method, implementation=implementation).index.tolist()
        for method in NMS_METHODS
    }
    assert order.pop("hard") == [2, 0, 1, 3]
    assert list(order.values()) == [[2, 1, 0, 3]] * 3


@everywhere
def test_what_the_compiled_function_leaves_open_is_defined(implementation: Any, device: str) -> None:
    def run(segments: list, scores: list, **options: Any) -> Suppressed:
        rows = torch.tensor(segments, device=device)
        return soft_nms(rows, torch.tensor(scores, device=device), implementation=implementation, **options)

    of_no_length = run([[5.0, 5.0], [0.0, 2.0]], [0.9, 0.5], voting_tiou_threshold=0.7)
    assert of_no_length.detections.segments.tolist() == [[5.0, 5.0], [0.0, 2.0]]
    reversed_one = run([[3.0, 1.0], [0.0, 2.0]], [0.9, 0.5], method="linear", tiou_threshold=0.1)
    assert reversed_one.detections.scores.tolist() == pytest.approx([0.9, 0.5])
    below = run(
        [[0.0, 1.0], [4.0, 5.0], [7.0, 8.0]],
        [0.2, 0.1, 0.4],
        labels=torch.tensor([5, 5, 2]).to(device),
        min_score=0.3,
    )
    assert below.index.tolist() == [2]
    at_the_lowest = run([[0.0, 1.0], [4.0, 5.0]], [0.5, 0.2], method="hard", min_score=0.5)
    assert at_the_lowest.index.tolist() == [0]


def test_bmn_gaussian_spares_more_of_what_a_long_segment_overlaps() -> None:
    segments = torch.tensor([[0.0, 10.0], [0.0, 6.0], [20.0, 21.0], [20.0, 20.6]])
    options: dict[str, Any] = {"method": "bmn_gaussian", "sigma": 0.5, "tiou_threshold": 0.4}
    out = soft_nms(
        segments,
        torch.tensor([0.9, 0.8, 0.7, 0.6]),
        tiou_threshold_per_length=0.03,
        **options,
    )
    assert out.index.tolist() == [0, 1, 2, 3]
    assert out.detections.scores.tolist() == pytest.approx(
        [0.9, 0.8, 0.7, 0.6 * np.exp(-0.36 / 0.5)], abs=1e-5
    )


def test_voting_takes_the_mean_weighted_by_score_and_overlap_within_the_label() -> None:
    segments = torch.tensor([[0.0, 4.0], [0.0, 5.0], [0.0, 4.5]], dtype=torch.float64)
    scores = torch.tensor([0.8, 0.5, 0.7], dtype=torch.float64)
    out = soft_nms(
        segments,
        scores,
        torch.tensor([1, 1, 2]),
        method="hard",
        tiou_threshold=0.6,
        voting_tiou_threshold=0.7,
    )
    assert out.index.tolist() == [0, 2]
    end = (0.8 * 1.0 * 4.0 + 0.5 * 0.8 * 5.0) / (0.8 * 1.0 + 0.5 * 0.8)
    assert out.detections.segments[0].tolist() == pytest.approx([0.0, end])
    assert out.detections.segments[1].tolist() == pytest.approx([0.0, 4.5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "soft"}, "method is 'soft'; allowed: hard, linear, gaussian, bmn_gaussian"),
        ({"implementation": "cuda"}, "implementation is 'cuda'; allowed: auto, torch, numba"),
        ({"sigma": 0.0}, "sigma is 0.0; it must be greater than 0"),
        ({"max_detections": 0}, "max_detections is 0; it must be at least 1"),
        ({"tiou_threshold": 5.0}, "soft_nms: tiou_threshold is 5.0; it must be above 0 and at most 1"),
        ({"voting_tiou_threshold": -1.0}, "voting_tiou_threshold is -1.0; it must be above 0"),
        ({"min_score": float("nan")}, "min_score is nan; it must be finite and at least 0"),
        ({"tiou_threshold_per_length": -1.0}, "per_length is -1.0; it must be finite"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels are torch.float32; they must be indices of classes"),
        ({"scores": torch.rand(3)}, r"got \[\(2, 2\), \(3,\)\]"),
        (
            {"scores": torch.tensor([0.5, -2.0])},
            "0 have times that are not finite and 1 have scores that are negative",
        ),
        ({"scores": torch.tensor([0.5, torch.nan])}, "and 1 have scores that are negative or not finite"),
        (
            {"segments": torch.tensor([[0.0, torch.inf], [0.0, 1.0]])},
            "of 2 detections, 1 have times that are not",
        ),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        soft_nms(**({"segments": torch.rand(2, 2), "scores": torch.rand(2)} | changes))


def test_without_numba_torch_takes_over_and_numba_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lofi.heads.soft_nms_numba", None)
    soft_nms_module._compiled.cache_clear()
    segments, scores, labels = random_segments(17, seed=3)
    assert len(soft_nms(segments, scores, labels).index)
    with pytest.raises(
        ImportError, match=r"implementation 'numba' is not here .*pip install 'lofi-sola\[fast\]'"
    ):
        soft_nms(segments, scores, labels, implementation="numba")
    soft_nms_module._compiled.cache_clear()


# The 180 stored cases: 12 inputs under 15 configurations.

STORED_METHODS = {0: "hard", 1: "linear", 2: "gaussian", 3: "bmn_gaussian"}
WITH_VOTES_OF_NO_LENGTH = {"n50_zero_len/7", "n50_zero_len/11"}


def stored_cases() -> list[dict]:
    path = ORACLES / "nms_cases.json"
    return json.loads(path.read_text())["cases"] if path.exists() else []


def options_of(config: dict) -> dict[str, Any]:
    is_soft = config["op"] != "raw_nms" and config.get("use_soft_nms", True)
    method = STORED_METHODS[config.get("method", 2)] if is_soft else "hard"
    return {
        "method": method,
        "sigma": config.get("sigma", 0.5),
        "tiou_threshold": config["t1"] if method == "bmn_gaussian" else config["iou_threshold"],
        "tiou_threshold_per_length": config.get("t2", 0.0),
        "min_score": config.get("min_score", 0.0),
        "max_detections": config.get("max_seg_num"),
        "voting_tiou_threshold": config.get("voting_thresh") or None,
    }


def as_rows(segments: Any, scores: Any, labels: Any) -> np.ndarray:
    """(N, 4) start, end, label, score, best first and equal scores in the order of the rest."""
    rows = np.column_stack([segments, labels, scores]).astype(np.float64)
    return rows[np.lexsort((*rows[:, 2::-1].T, -rows[:, 3].round(6)))]


@everywhere
@pytest.mark.skipif(not ORACLES.exists(), reason="the shared NMS cases are not here")
def test_soft_nms_equals_the_compiled_function_on_all_stored_cases(implementation: Any, device: str) -> None:
    stored = np.load(ORACLES / "nms_cases.npz")
    num_compared = 0
    for case in stored_cases():
        name, config = case["case"].split("/")[0], case["cfg"]
        inputs = [torch.from_numpy(stored[f"{name}/{key}"]) for key in ("segs", "scores", "labels")]
        wanted = {
            key: stored[f"{case['case']}/{key}"]
            for key in ("keep", "dets", "segs", "scores", "labels")
            if f"{case['case']}/{key}" in stored
        }
        options = options_of(config) | {"implementation": implementation}
        is_classwise = bool(config.get("multiclass"))
        if case["kind"] == "ties" and options["method"] == "hard":
            first = places_of_the_kept(inputs, wanted, options)
            rest = torch.tensor(sorted(set(range(len(inputs[1]))) - set(first.tolist())), dtype=torch.int64)
            order = torch.cat([first, rest])
        else:
            order = torch.arange(len(inputs[1]))
        segments, scores, labels = (each[order].to(device) for each in inputs)
        out = soft_nms(segments, scores, labels if is_classwise else None, **options)
        index = order[out.index.cpu()]
        found = out.detections
        if "keep" in wanted and not (
            case["kind"] == "ties" and config["op"] == "raw_softnms" and config["method"] == 0
        ):
            np.testing.assert_array_equal(index, wanted["keep"], err_msg=case["case"])
        elif "keep" in wanted:  # hard, but by the soft list: the same kept, equal scores in another order
            assert set(index.tolist()) == set(wanted["keep"].tolist()), case["case"]
        if "dets" in wanted:
            np.testing.assert_allclose(
                found.scores.cpu(), wanted["dets"][:, 2], rtol=0, atol=1e-6, err_msg=case["case"]
            )
        if "segs" in wanted:
            segments_wanted = wanted["segs"]
            if case["case"] in WITH_VOTES_OF_NO_LENGTH:
                own = inputs[0][index].numpy()
                is_nan = np.isnan(segments_wanted).any(axis=1)
                assert is_nan.any()
                assert (own[is_nan, 0] == own[is_nan, 1]).all()
                segments_wanted = np.where(is_nan[:, None], own, segments_wanted)
            np.testing.assert_allclose(
                as_rows(found.segments.cpu(), found.scores.cpu(), inputs[2][index]),
                as_rows(segments_wanted, wanted["scores"], wanted["labels"]),
                rtol=0,
                atol=1e-4 if options["voting_tiou_threshold"] else 1e-6,
                err_msg=case["case"],
            )
        num_compared += 1
    assert num_compared == 180


def places_of_the_kept(
    inputs: list[torch.Tensor], wanted: dict[str, np.ndarray], options: dict[str, Any]
) -> torch.Tensor:
    """Where in the input the stored answer of a hard case comes from.

    The compiled function sorts by torch's unstable sort, whose order of equal scores differs between processors. Its answer
    must be ours where, among equal scores, those that it kept come first.
    """
    if "keep" in wanted:
        return torch.from_numpy(wanted["keep"])
    segments, scores, labels = inputs
    if options["voting_tiou_threshold"]:  # what each of the input's segments would become if it were kept
        nothing_suppressed = options | {"method": "gaussian", "sigma": 1e12}
        nothing_suppressed |= {"min_score": 0.0, "max_detections": None}
        everything = soft_nms(segments, scores, **nothing_suppressed)
        segments = torch.empty_like(segments).index_copy(0, everything.index, everything.detections.segments)
    rows = np.column_stack([segments, labels, scores])
    kept: list[int] = []
    for row in np.column_stack([wanted["segs"], wanted["labels"], wanted["scores"]]):
        same = np.flatnonzero(np.abs(rows - row).max(axis=1) < 1e-4)
        kept.append(next(int(i) for i in same if int(i) not in kept))
    return torch.tensor(kept)
