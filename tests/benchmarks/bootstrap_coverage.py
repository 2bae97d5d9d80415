"""How often the bootstrap's intervals hold the expected average mAP, and how often its p value is small by chance.

    python tests/benchmarks/bootstrap_coverage.py
    python tests/benchmarks/bootstrap_coverage.py --data-sets 400 --samples 400

Data sets are drawn from one distribution of videos; the expected value is the mean of what is measured on all of them. The
plain percentile interval stands beside the shifted one that `lofi.evaluation.bootstrap` gives.
"""

import argparse
import contextlib
import io

import numpy as np

from lofi.evaluation.bootstrap import paired_bootstrap
from lofi.evaluation.matching import match_predictions
from lofi.evaluation.mean_average_precision import average_precisions
from lofi.evaluation.resampling import resampled_maps
from lofi.evaluation.tables import GroundTruth, Predictions

TIOUS = (0.3, 0.5, 0.7)
SHAPES = ((40, 2), (60, 10), (200, 20))
"""Videos and classes."""
CONFIDENCE = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-sets", type=int, default=200, help="drawn for each shape")
    parser.add_argument("--samples", type=int, default=200, help="resamples of each data set")
    arguments = parser.parse_args()
    for num_videos, num_classes in SHAPES:
        values, plain, shifted, p_values = [], [], [], []
        for seed in range(arguments.data_sets):
            truth, first, second = draw(seed, num_videos=num_videos, num_classes=num_classes)
            with contextlib.redirect_stdout(io.StringIO()):  # the progress of each
                matching = match_predictions(truth, first, tious=TIOUS)
                (maps_ST,) = resampled_maps((matching,), samples=arguments.samples, seed=seed)
                compared = paired_bootstrap(
                    truth,
                    first,
                    second,
                    tious=TIOUS,
                    seed=seed,
                    samples=arguments.samples,
                    confidence=CONFIDENCE,
                )
            values.append(average_precisions(matching).average)
            plain.append(np.quantile(maps_ST.mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
            shifted.append((compared.first.average.low, compared.first.average.high))
            p_values.append(compared.p_value)
        print(
            f"{num_videos} videos, {num_classes} classes: expected average mAP {np.mean(values):.3f}; held by "
            f"{held(plain, np.mean(values)):.1%} of plain and {held(shifted, np.mean(values)):.1%} of shifted intervals; "
            f"p at most 0.05 without a difference: {np.mean(np.array(p_values) <= 0.05):.1%}"
        )


def held(intervals: list, expected: np.floating) -> np.floating:
    low, high = np.array(intervals).T
    return np.mean((low <= expected) & (expected <= high))


def draw(seed: int, *, num_videos: int, num_classes: int) -> tuple[GroundTruth, Predictions, Predictions]:
    """One data set, and two detectors that are equally good: the same detections, jittered each on its own."""
    generator = np.random.default_rng(seed)
    instances, found = [], []
    for video in range(num_videos):
        ease, label = 0.5 * generator.normal(), int(generator.integers(num_classes))
        for number in range(int(generator.integers(1, 4))):
            start = 20 * number + generator.uniform(0, 5)
            end = start + generator.uniform(4, 10)
            instances.append((video, label, start, end))
            if generator.random() < 0.8:
                found.append((video, label, start, end, 1 + ease + generator.normal()))
        for _ in range(5):
            start = generator.uniform(0, 60)
            wrong = label if generator.random() < 0.5 else int(generator.integers(num_classes))
            found.append(
                (video, wrong, start, start + generator.uniform(4, 10), ease / 2 + generator.normal())
            )
    names = tuple(f"v{index:04d}" for index in range(num_videos))
    labels = tuple(f"class {index:02d}" for index in range(num_classes))
    video, label, start, end = zip(*instances, strict=True)
    truth = GroundTruth(
        videos=names,
        durations_sec=np.full(num_videos, 70.0),
        classes=labels,
        video=np.array(video, dtype=np.int32),
        label=np.array(label, dtype=np.int32),
        start=np.array(start),
        end=np.array(end),
    )
    detectors = []
    for _ in range(2):
        video, label, start, end, score = (np.array(column) for column in zip(*found, strict=True))
        detectors.append(
            Predictions(
                videos=names,
                labels=labels,
                video=video.astype(np.int32),
                label=label.astype(np.int32),
                start=start + 1.2 * generator.normal(size=len(start)),
                end=end + 1.2 * generator.normal(size=len(end)),
                score=score + 0.3 * generator.normal(size=len(score)),
            )
        )
    return truth, *detectors


if __name__ == "__main__":
    main()
