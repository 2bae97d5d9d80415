"""Instances in buckets of length, coverage and number, as DETAD sorts them.

Source: Alwassel et al., ECCV 2018 (arXiv:1807.10706); the borders are those of the authors' tool, which has
one set for ActivityNet and one for THUMOS14. A border belongs to the bucket below it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lofi.evaluation.matching import Matching
from lofi.evaluation.tables import GroundTruth

BUCKET_NAMES = ("XS", "S", "M", "L", "XL")


@dataclass(frozen=True, kw_only=True)
class Borders:
    """Ascending borders between buckets, at most four each; the first bucket has no lower border, the last no upper."""

    coverage: tuple[float, ...]
    """Length of the instance / duration of its video."""
    length: tuple[float, ...]
    """Seconds."""
    num_instances: tuple[float, ...]
    """Instances of the same class in the same video."""


ACTIVITYNET_BORDERS = Borders(
    coverage=(0.2, 0.4, 0.6, 0.8), length=(30.0, 60.0, 120.0, 180.0), num_instances=(1, 4, 8)
)
THUMOS14_BORDERS = Borders(
    coverage=(0.02, 0.04, 0.06, 0.08), length=(3.0, 6.0, 12.0, 18.0), num_instances=(1, 40, 80)
)
BORDERS: Mapping[str, Borders] = {"activitynet13": ACTIVITYNET_BORDERS, "thumos14": THUMOS14_BORDERS}
"""Dataset -> borders; for any other take the set whose lengths fit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Characteristic:
    """One property of the instances, cut into buckets."""

    name: str
    borders: tuple[float, ...]
    bucket: np.ndarray
    """(M,) int8, one per row of `GroundTruth`: index of a bucket, or -1 where the property is not known (a video without
    duration) or the instance takes no part."""


def characteristics_of(truth: GroundTruth, *, matching: Matching, borders: Borders) -> list[Characteristic]:
    """Coverage, length and number of the instances that take part."""
    length = truth.end - truth.start
    duration = truth.durations_sec[truth.video]
    known = np.where(duration > 0, duration, np.nan)
    cell = truth.video.astype(np.int64) * len(truth.classes) + truth.label
    _, place, count = np.unique(cell[matching.instances], return_inverse=True, return_counts=True)
    num_instances = np.full(len(truth), np.nan)
    num_instances[matching.instances] = count[place]
    takes_part = np.isfinite(num_instances)
    values = {"coverage": length / known, "length": length, "num_instances": num_instances}
    found = []
    for name, value in values.items():
        limits: tuple[float, ...] = getattr(borders, name)
        bucket = np.searchsorted(limits, value, side="left").astype(np.int8)
        bucket[~(takes_part & np.isfinite(value))] = -1
        found.append(Characteristic(name=name, borders=limits, bucket=bucket))
    return found
