"""How average mAP, and the share of instances that are missed, depend on what the instances are like.

In the manner of DETAD (Alwassel et al., ECCV 2018, arXiv:1807.10706, and the authors' tool). For a bucket
of instances (`characteristics`) predictions that hit an instance outside of it, at any of the thresholds, are left out;
the other false positives count in every bucket. An instance is missed where nothing hits it, a hit counting only above a
normalised precision of 0.05: what comes after thousands of false positives nobody sees.

Shapes: N predictions of a `Matching`, M instances of a `GroundTruth`, T thresholds, K classes.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lofi.evaluation.characteristics import BUCKET_NAMES, Borders, Characteristic, characteristics_of
from lofi.evaluation.matching import Matching
from lofi.evaluation.partial_precision import PartialHits, mean_instances_per_class
from lofi.evaluation.tables import GroundTruth

MIN_SEEN_PRECISION = 0.05
"""Normalised precision above which a hit is a find (the tool's choice)."""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """The instances of one bucket; fractions between 0 and 1, NaN where it has no instance."""

    name: str
    above: float
    """Lower border, not included; -infinity for the first."""
    up_to: float
    """Upper border, included; infinity for the last."""
    num_instances: int
    average_map: float
    """Plain: grows with the number of instances, since the false positives stay the same."""
    average_map_n: float
    """Normalised: what DETAD compares."""
    missed: float
    """Share of the bucket's instances, the mean over the thresholds."""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Fractions between 0 and 1."""

    average_map_n: float
    """Normalised, of all predictions and instances: what the buckets' are compared with."""
    missed: float
    """Share of all instances, the mean over the thresholds."""
    buckets: dict[str, tuple[Bucket, ...]]
    """coverage, length, num_instances -> buckets, smallest first."""


def analyze_sensitivity(truth: GroundTruth, *, matching: Matching, borders: Borders) -> Sensitivity:
    """Score each bucket of instances by itself.

    Args:
        truth: what was matched, with durations of the videos; instances of a video without are in no bucket of coverage.
        matching: by `match_predictions`.
        borders: of the buckets.
    """
    found_MT = _found(matching, num_rows=len(truth))
    everything = np.zeros(len(truth), dtype=np.int8)
    _, average_map_n = _scores_of_bucket(truth, 0, matching=matching, bucket_M=everything)
    buckets = {
        each.name: _buckets(truth, matching=matching, characteristic=each, found_MT=found_MT)
        for each in characteristics_of(truth, matching=matching, borders=borders)
    }
    missed = float((~found_MT[matching.instances]).mean())
    return Sensitivity(average_map_n=average_map_n, missed=missed, buckets=buckets)


def _buckets(
    truth: GroundTruth, *, matching: Matching, characteristic: Characteristic, found_MT: np.ndarray
) -> tuple[Bucket, ...]:
    limits = (-np.inf, *characteristic.borders, np.inf)
    buckets = []
    for index, (above, up_to) in enumerate(pairwise(limits)):
        members = characteristic.bucket == index
        average_map, average_map_n = _scores_of_bucket(
            truth, index, matching=matching, bucket_M=characteristic.bucket
        )
        buckets.append(
            Bucket(
                name=BUCKET_NAMES[index],
                above=float(above),
                up_to=float(up_to),
                num_instances=int(members.sum()),
                average_map=average_map,
                average_map_n=average_map_n,
                missed=float((~found_MT[members]).mean()) if members.any() else float("nan"),
            )
        )
    return tuple(buckets)


def _scores_of_bucket(
    truth: GroundTruth, index: int, *, matching: Matching, bucket_M: np.ndarray
) -> tuple[float, float]:
    """Average mAP, plain and normalised, over the instances of one bucket."""
    members = matching.instances[bucket_M[matching.instances] == index]
    num_instances_K = np.bincount(truth.label[members], minlength=len(matching.classes))
    stays = np.ones(len(matching.rows), dtype=bool)
    stays[matching.hit_position[bucket_M[matching.hit_instance] != index]] = False
    per_class = mean_instances_per_class(matching)
    plain, normalized = [], []
    for column in range(len(matching.tious)):
        hits = PartialHits.at(column, matching=matching, counts=stays & _counts(matching, tiou_index=column))
        plain.append(hits.plain_map(num_instances_K, is_interpolated=matching.protocol.is_interpolated))
        normalized.append(hits.normalized_map(num_instances_K, per_class=per_class))
    return float(np.mean(plain)), float(np.mean(normalized))


def _found(matching: Matching, *, num_rows: int) -> np.ndarray:
    """Instances that a hit of enough normalised precision finds: (M, T) bool."""
    found_MT = np.zeros((num_rows, len(matching.tious)), dtype=bool)
    per_class = mean_instances_per_class(matching)
    for column in range(len(matching.tious)):
        hits = PartialHits.at(column, matching=matching, counts=_counts(matching, tiou_index=column))
        precision = hits.normalized_precision(matching.num_instances_K, per_class=per_class)
        instance = matching.hit_instance[matching.first_hit_T1[column] : matching.first_hit_T1[column + 1]]
        found_MT[instance[precision > MIN_SEEN_PRECISION], column] = True
    return found_MT


def _counts(matching: Matching, *, tiou_index: int) -> np.ndarray:
    """Predictions that count at a threshold, as hits or as false positives: (N,) bool."""
    counts = ~matching.is_ambiguous
    counts[
        matching.hit_position[matching.first_hit_T1[tiou_index] : matching.first_hit_T1[tiou_index + 1]]
    ] = True
    return counts
