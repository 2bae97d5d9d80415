"""Average precision when some predictions or instances are left out, plain and normalised.

Normalised precision (Hoiem et al., "Diagnosing Error in Object Detectors", ECCV 2012; DETAD)
puts the mean number of instances per class N in the place of the class's own number, R N / (R N + F) at recall R and F
false positives, so that subsets of different size can be compared. mAP_N is the mean of the interpolated average
precision under it.

Shapes: N predictions of a `Matching`, K classes, H hits at one threshold.
"""

from dataclasses import dataclass

import numpy as np

from lofi.evaluation.matching import Matching


def mean_instances_per_class(matching: Matching) -> float:
    """N of normalised precision: instances that take part / classes that have one."""
    return len(matching.instances) / int(np.count_nonzero(matching.num_instances_K))


@dataclass(frozen=True, kw_only=True, eq=False)
class PartialHits:
    """What is left of the hits at one threshold, in the order of a `Matching`."""

    positions: np.ndarray
    """(H,) ascending, the predictions that hit."""
    first_hit_K1: np.ndarray
    """(K + 1,) class k has hits first_hit_K1[k] to first_hit_K1[k + 1], the last excluded."""
    hits: np.ndarray
    """(H,) hits of the class up to and with this one."""
    misses: np.ndarray
    """(H,) false positives of the class before this hit."""

    @staticmethod
    def at(tiou_index: int, *, matching: Matching, counts: np.ndarray) -> "PartialHits":
        """Leave predictions out.

        Args:
            tiou_index: the threshold.
            matching: N predictions.
            counts: (N,) bool, predictions that are not left out.
        """
        positions = matching.hit_position[
            matching.first_hit_T1[tiou_index] : matching.first_hit_T1[tiou_index + 1]
        ]
        positions = positions[counts[positions]]
        first_hit_K1 = np.searchsorted(positions, matching.first_K1)
        hits_K = np.diff(first_hit_K1)
        before = np.zeros(len(counts) + 1, dtype=np.int32)
        np.cumsum(counts, out=before[1:])
        hits = np.arange(1, len(positions) + 1) - np.repeat(first_hit_K1[:-1], hits_K)
        rank = before[positions + 1] - np.repeat(before[matching.first_K1[:-1]], hits_K)
        return PartialHits(positions=positions, first_hit_K1=first_hit_K1, hits=hits, misses=rank - hits)

    def normalized_precision(self, num_instances_K: np.ndarray, *, per_class: float) -> np.ndarray:
        """(H,) normalised precision at each hit.

        Args:
            num_instances_K: (K,) instances to be found.
            per_class: N, see `mean_instances_per_class`.
        """
        recall = self.hits / np.repeat(num_instances_K, np.diff(self.first_hit_K1))
        return recall * per_class / (recall * per_class + self.misses)

    def plain_map(self, num_instances_K: np.ndarray, *, is_interpolated: bool) -> float:
        """mAP over the classes that have one of these instances; NaN if none has."""
        precision = self.hits / (self.hits + self.misses)
        return self._mean(precision, num_instances_K, is_interpolated=is_interpolated)

    def normalized_map(self, num_instances_K: np.ndarray, *, per_class: float) -> float:
        """mAP_N over the classes that have one of these instances; NaN if none has."""
        precision = self.normalized_precision(num_instances_K, per_class=per_class)
        return self._mean(precision, num_instances_K, is_interpolated=True)

    def _mean(self, precision: np.ndarray, num_instances_K: np.ndarray, *, is_interpolated: bool) -> float:
        if not num_instances_K.any():
            return float("nan")
        ap_K = np.zeros(len(num_instances_K))
        for label in np.flatnonzero(np.diff(self.first_hit_K1)):
            of_class = precision[self.first_hit_K1[label] : self.first_hit_K1[label + 1]]
            if is_interpolated:
                of_class = np.maximum.accumulate(of_class[::-1])
            ap_K[label] = of_class.sum() / num_instances_K[label]
        return float(ap_K[num_instances_K > 0].mean())
