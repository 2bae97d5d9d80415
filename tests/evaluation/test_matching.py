"""What a matching holds, the rules of each protocol one by one, and independence of the order of the file."""

import random
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from lofi.evaluation import candidates
from lofi.evaluation.matching import match_predictions
from lofi.evaluation.mean_average_precision import (
    average_precisions,
    mean_average_precision,
    precision_recall_curve,
)
from lofi.evaluation.protocols import PROTOCOLS, protocol_named
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment


def instance(start: float, end: float, label: str = "a") -> LabelledSegment:
    return LabelledSegment(start_sec=start, end_sec=end, label=label)


def detection(start: float, end: float, score: float, label: str = "a") -> Detection:
    return Detection(start_sec=start, end_sec=end, label=label, score=score)


def truth_of(rows: list[LabelledSegment], *, classes: str = "a") -> GroundTruth:
    return GroundTruth.of({"v": rows}, classes=classes)


def found_of(rows: list[Detection]) -> Predictions:
    return Predictions.of({"v": rows})


def crowd(seed: int) -> tuple[GroundTruth, Predictions]:
    """Crowded videos with equal scores, equal tIoUs, duplicates, odd lengths, unknown labels, foreign videos."""
    chance = random.Random(seed)
    truth = {
        video: [
            instance(s := chance.randrange(12), s + chance.choice([0, 0.0004, 2, 3, 5]), chance.choice("abc"))
            for _ in range(chance.randrange(3, 9))
        ]
        for video in ("x", "v", "w")
    }
    found = {
        video: [
            detection(
                s := chance.randrange(12),
                s + chance.randrange(-1, 6),
                chance.randrange(5) / 4,
                chance.choice("abcd"),
            )
            for _ in range(chance.randrange(20, 30))
        ]
        for video in ("w", "z", "v", "x")
    }
    return GroundTruth.of(truth, classes="abc"), Predictions.of(found)


def shuffled(truth: GroundTruth, found: Predictions, *, seed: int) -> tuple[GroundTruth, Predictions]:
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(truth))
    of_rows = {name: getattr(truth, name)[rows] for name in ("video", "label", "start", "end")}
    order = generator.permutation(len(found.videos))
    place = np.argsort(order).astype(np.int32)
    moved = replace(found, videos=tuple(found.videos[index] for index in order), video=place[found.video])
    return replace(truth, **of_rows), moved.select(generator.permutation(len(found)))


@pytest.mark.parametrize("seed", range(5))
def test_default_does_not_depend_on_the_order_of_either_file(seed: int) -> None:
    truth, found = crowd(seed)
    first = mean_average_precision(truth, found, tious=(0.2, 0.4, 0.6))
    second = mean_average_precision(*shuffled(truth, found, seed=seed), tious=(0.2, 0.4, 0.6))
    np.testing.assert_array_equal(first.ap_KT, second.ap_KT)
    assert replace(first, ap_KT=0, map_T=0) == replace(second, ap_KT=0, map_T=0)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_an_instance_is_hit_once_at_each_threshold_by_a_prediction_of_its_video_and_class(
    protocol: str,
) -> None:
    truth, found = crowd(7)
    found = found.select(np.flatnonzero(found.label != found.labels.index("d")))
    matching = match_predictions(truth, found, tious=(0.3, 0.6), protocol=PROTOCOLS[protocol])
    for column in range(2):
        hit = np.flatnonzero(matching.hits_NT[:, column])
        instances = matching.instance_NT[hit, column]
        assert len(hit)
        assert len(set(instances)) == len(instances)
        assert set(instances) <= set(matching.instances)
        assert (truth.label[instances] == matching.label[hit]).all()
        assert (truth.video[instances] == matching.video[hit]).all()
        of_classes = [matching.hits_of(class_index=index, tiou_index=column) for index in range(3)]
        np.testing.assert_array_equal(np.concatenate(of_classes), hit)
    assert ((matching.instance_NT >= 0) == matching.hits_NT).all()
    assert [matching.videos[index] for index in matching.video] == [
        found.videos[index] for index in found.video[matching.rows]
    ]
    assert (np.diff(matching.score)[np.diff(matching.label) == 0] <= 0).all()


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_pairs_taken_a_few_at_a_time_match_as_all_at_once(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, found = crowd(8)
    found = found.select(np.flatnonzero(found.label != found.labels.index("d")))
    whole = match_predictions(truth, found, tious=(0.2, 0.5), protocol=PROTOCOLS[protocol])
    monkeypatch.setattr(candidates, "PAIRS_AT_ONCE", 3)
    monkeypatch.setattr(candidates, "CANDIDATES_AT_ONCE", 20)
    parts = match_predictions(truth, found, tious=(0.2, 0.5), protocol=PROTOCOLS[protocol])
    np.testing.assert_array_equal(whole.instance_NT, parts.instance_NT)


def test_duplicates_count_by_protocol_and_are_reported_by_all() -> None:
    rows = [
        instance(0, 5),
        instance(0.0009, 5.0009),
        instance(0.0018, 5.0018),
        instance(7, 9),
        instance(8, 8),
    ]
    found = found_of([detection(0, 5, 0.9), detection(7, 9, 0.8)])
    for protocol, average in (("default", 0.4), ("activitynet", 0.4), ("opentad", 2 / 3)):
        out = mean_average_precision(truth_of(rows), found, tious=[0.5], protocol=PROTOCOLS[protocol])
        assert out.average == pytest.approx(average)
        # 0.0018 is a duplicate of 0.0009, which is one of 0 and so stands for nothing.
        assert (out.num_duplicates, out.num_zero_length) == (1, 1)


def test_segments_of_no_length_hit_only_where_they_are_the_same_but_for_the_toolkit() -> None:
    truth = truth_of([instance(3, 3), instance(6, 9)])
    found = found_of([detection(4, 4, 0.9), detection(6, 9, 0.8)])
    for protocol, average in (("default", 0.25), ("activitynet", 1.0), ("opentad", 0.5)):
        out = mean_average_precision(truth, found, tious=[0.5], protocol=PROTOCOLS[protocol])
        assert out.average == pytest.approx(average), protocol
    same = found_of([detection(3, 3, 0.9), detection(6, 9, 0.8)])
    assert mean_average_precision(truth, same, tious=[0.5]).average == 1.0


def test_tiou_equal_to_the_threshold_is_a_hit_but_for_thumos14() -> None:
    truth, found = truth_of([instance(0, 4)]), found_of([detection(0, 2, 0.9)])
    assert mean_average_precision(truth, found, tious=[0.5]).average == 1.0
    strict = mean_average_precision(truth, found, tious=[0.5], protocol=PROTOCOLS["thumos14"])
    assert strict.average == 0.0


def test_precision_recall_curve_has_the_area_that_average_precision_says() -> None:
    truth, found = crowd(9)
    for protocol in ("default", "thumos14"):
        truth = replace(truth, ambiguous={"v": [(2.0, 3.0)]})
        matching = match_predictions(truth, found, tious=(0.3, 0.5), protocol=PROTOCOLS[protocol])
        ap_KT = average_precisions(matching).ap_KT
        for label in range(3):
            curve = precision_recall_curve(matching, class_index=label, tiou_index=1)
            precision = curve.precision
            if protocol == "default":
                precision = np.maximum.accumulate(precision[::-1])[::-1]
            assert np.diff(curve.recall, prepend=0.0) @ precision == pytest.approx(ap_KT[label, 1])
            assert (np.diff(curve.score) <= 0).all()


def test_the_curve_of_a_class_without_instance_is_refused() -> None:
    matching = match_predictions(
        truth_of([instance(0, 4)], classes="ab"), found_of([detection(0, 2, 0.9)]), tious=[0.5]
    )
    with pytest.raises(ValueError, match="class 'b' has no instance in the ground truth"):
        precision_recall_curve(matching, class_index=1, tiou_index=0)


def test_a_curve_without_a_prediction_is_empty() -> None:
    matching = match_predictions(truth_of([instance(0, 4)]), found_of([]), tious=[0.5])
    assert len(precision_recall_curve(matching, class_index=0, tiou_index=0).recall) == 0


def test_evaluation_holds_at_most_twice_the_columns_beyond_them() -> None:
    generator = np.random.default_rng(3)
    num_videos, num_rows = 150, 90_000
    names, classes = tuple(f"v{index:03d}" for index in range(num_videos)), tuple("abcdefg")

    def columns(count: int) -> dict[str, np.ndarray]:
        start = generator.uniform(0, 60, count)
        return {
            "video": generator.integers(num_videos, size=count, dtype=np.int32),
            "label": generator.integers(len(classes), size=count, dtype=np.int32),
            "start": start,
            "end": start + generator.uniform(3, 9, count),
        }

    truth = GroundTruth(
        videos=names, durations_sec=np.full(num_videos, 70.0), classes=classes, **columns(2500)
    )
    found = Predictions(videos=names, labels=classes, score=generator.random(num_rows), **columns(num_rows))
    tracemalloc.start()
    mean_average_precision(truth, found, tious=(0.1, 0.3, 0.5, 0.7, 0.9))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes <= 2 * 32 * num_rows


@pytest.mark.parametrize("tious", [[], [0.0, 0.5], [1.1], [float("nan")]])
def test_thresholds_out_of_range_are_named(tious: list[float]) -> None:
    with pytest.raises(ValueError, match="tIoU thresholds are"):
        match_predictions(truth_of([instance(0, 4)]), found_of([]), tious=tious)


def test_a_ground_truth_of_which_nothing_counts_is_named() -> None:
    with pytest.raises(ValueError, match="no instance in 1 videos; nothing to evaluate"):
        match_predictions(
            truth_of([instance(3, 3)]), found_of([]), tious=[0.5], protocol=PROTOCOLS["opentad"]
        )


def test_protocols_that_do_not_exist_are_named() -> None:
    assert protocol_named("thumos14").name == "thumos14"
    with pytest.raises(
        ValueError, match="protocol 'voc' does not exist; there are default, activitynet, opentad, thumos14"
    ):
        protocol_named("voc")
