"""Instances in buckets of length, coverage and number, as DETAD sorts them.

Source: Alwassel et al., ECCV 2018 (arXiv:1807.10706); the borders are those of the authors' tool, which has
one set for ActivityNet and one for THUMOS14. A border belongs to the bucket below it. For other data `fitting_borders`
makes buckets that hold about a fifth of the instances each.
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
    """Length of the instance / duration of its video; in no bucket where that is not known."""
    length: tuple[float, ...]
    """Seconds."""
    num_instances: tuple[float, ...]
    """Instances of the same class in the same video."""

    def __post_init__(self) -> None:
        for name in ("coverage", "length", "num_instances"):
            limits = getattr(self, name)
            if len(limits) >= len(BUCKET_NAMES) or sorted(set(limits)) != list(limits):
                raise ValueError(
                    f"borders of {name} are {list(limits)}; they must ascend, and be at most {len(BUCKET_NAMES) - 1}."
                )


ACTIVITYNET_BORDERS = Borders(
    coverage=(0.2, 0.4, 0.6, 0.8), length=(30.0, 60.0, 120.0, 180.0), num_instances=(1, 4, 8)
)
THUMOS14_BORDERS = Borders(
    coverage=(0.02, 0.04, 0.06, 0.08), length=(3.0, 6.0, 12.0, 18.0), num_instances=(1, 40, 80)
)
BORDERS: Mapping[str, Borders] = {"activitynet13": ACTIVITYNET_BORDERS, "thumos14": THUMOS14_BORDERS}
"""Dataset -> the borders that its papers use."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Characteristic:
    """One property of the instances, cut into buckets."""

    name: str
    borders: tuple[float, ...]
    bucket: np.ndarray
    """(M,) int8, one per row of `GroundTruth`: index of a bucket, or -1 where the property is not known (a video without
    duration) or the instance takes no part."""


def fitting_borders(truth: GroundTruth) -> Borders:
    """Borders at the fifths of each property, to two digits; fewer where those coincide."""
    return Borders(**{name: _fifths(value) for name, value in _values(truth, np.arange(len(truth))).items()})


def characteristics_of(truth: GroundTruth, *, matching: Matching, borders: Borders) -> list[Characteristic]:
    """Coverage, length and number of the instances that take part."""
    takes_part = np.zeros(len(truth), dtype=bool)
    takes_part[matching.instances] = True
    found = []
    for name, value in _values(truth, matching.instances).items():
        limits: tuple[float, ...] = getattr(borders, name)
        bucket = np.searchsorted(limits, value, side="left").astype(np.int8)
        bucket[~(takes_part & np.isfinite(value))] = -1
        found.append(Characteristic(name=name, borders=limits, bucket=bucket))
    return found


def _values(truth: GroundTruth, instances: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> (M,) value of each row of the ground truth; NaN where it is not known. Only `instances` are numbered."""
    length = truth.end - truth.start
    duration = truth.durations_sec[truth.video]
    cell = truth.video[instances].astype(np.int64) * len(truth.classes) + truth.label[instances]
    _, place, count = np.unique(cell, return_inverse=True, return_counts=True)
    num_instances = np.full(len(truth), np.nan)
    num_instances[instances] = count[place]
    coverage = np.divide(length, duration, out=np.full(len(truth), np.nan), where=duration > 0)
    return {"coverage": coverage, "length": length, "num_instances": num_instances}


def _fifths(value: np.ndarray) -> tuple[float, ...]:
    known = value[np.isfinite(value)]
    if not len(known):
        return ()
    fifths = np.quantile(known, [0.2, 0.4, 0.6, 0.8])
    return tuple(sorted({float(f"{border:.2g}") for border in fifths}))
