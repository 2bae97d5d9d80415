"""The challenge's own protocol: a slow loop, and a published method's mAP from its published detections."""

import json
import random

import numpy as np
import pytest
from reference.evaluation_oracles import SHARED, found_of
from reference.slow_thumos14 import slow_thumos14_average_precision

from lofi.evaluation.mean_average_precision import mean_average_precision
from lofi.evaluation.protocols import PROTOCOLS
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.segments import Detection, LabelledSegment

OFFICIAL = SHARED / "annotations" / "thumos14" / "TH14_txt" / "annotations_test"
PUBLISHED = SHARED / "predictions"


@pytest.mark.parametrize("seed", range(6))
def test_thumos14_protocol_equals_slow_loop(seed: int) -> None:
    chance = random.Random(seed)
    truth: dict[str, list[LabelledSegment]] = {}
    found: dict[str, list[Detection]] = {}
    for video in ("q", "p", "s"):
        # Whole seconds: tIoUs that are equal to one another and to the threshold.
        starts = [chance.randrange(0, 30) for _ in range(chance.randrange(1, 6))]
        truth[video] = [
            LabelledSegment(start_sec=s, end_sec=s + chance.randrange(2, 9), label=chance.choice("ab"))
            for s in starts
        ]
        found[video] = [
            Detection(
                start_sec=s + chance.randrange(-2, 3),
                end_sec=s + chance.randrange(4, 9),
                label=chance.choice("ab"),
                score=chance.randrange(6) / 7,
            )
            for s in starts * 4
        ]
    ambiguous = {"p": [(3.0, 9.0), (20.0, 21.0)], "s": [(0.0, 5.0)]}
    tious = (0.25, 0.5, 0.75)
    out = mean_average_precision(
        GroundTruth.of(truth, classes="ab", ambiguous=ambiguous),
        Predictions.of(found),
        tious=tious,
        protocol=PROTOCOLS["thumos14"],
    )
    for row, label in enumerate("ab"):
        for column, tiou in enumerate(tious):
            expected = slow_thumos14_average_precision(
                truth, found, label=label, tiou=tiou, ambiguous=ambiguous
            )
            assert out.ap_KT[row, column] == pytest.approx(expected, abs=1e-12)


def official_truth() -> GroundTruth:
    videos: dict[str, list[LabelledSegment]] = {}
    ambiguous: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(OFFICIAL.glob("*_test.txt")):
        label = path.name.removesuffix("_test.txt")
        for line in path.read_text().splitlines():
            if not line.strip():
                continue
            video, start, end = line.split()
            rows = videos.setdefault(video, [])
            if label == "Ambiguous":
                ambiguous.setdefault(video, []).append((float(start), float(end)))
            else:
                rows.append(LabelledSegment(start_sec=float(start), end_sec=float(end), label=label))
    classes = sorted({row.label for rows in videos.values() for row in rows})
    return GroundTruth.of(videos, classes=classes, ambiguous=ambiguous)


@pytest.mark.skipif(
    not (OFFICIAL.exists() and PUBLISHED.exists()), reason="the published detections are not here"
)
@pytest.mark.parametrize(("model", "percent"), [("c3d", 18.97), ("res3d", 22.49)])
def test_published_map_of_s_cnn_is_reproduced(model: str, percent: float) -> None:
    truth = official_truth()
    assert (len(truth), len(truth.videos), len(truth.classes)) == (3358, 213, 20)
    found = found_of(json.loads((PUBLISHED / f"scnn_{model}_thumos14_nms0.4.json").read_text()))
    out = mean_average_precision(truth, found, tious=[0.5], protocol=PROTOCOLS["thumos14"])
    stored = json.loads((PUBLISHED / "scnn_thumos_official_map.json").read_text())[f"{model}@0.5"]
    assert out.average == pytest.approx(stored["published_mat"], abs=1e-12)
    assert round(100 * out.average, 2) == percent
    interpolated = mean_average_precision(truth, found, tious=[0.5])
    assert 0.025 < interpolated.average - out.average < 0.04
    np.testing.assert_array_equal(out.num_outside, 0)
