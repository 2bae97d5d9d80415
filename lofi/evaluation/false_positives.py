"""What is wrong with a false positive: five types, in the manner of DETAD.

Source: Alwassel et al., "Diagnosing Error in Temporal Action Detectors", ECCV 2018 (arXiv:1807.10706), and the
tool that its authors published. A prediction that hits an instance (`matching`) is a true positive. Any other is named by
the instance of its video, of whatever class, with which its tIoU is largest:

| largest tIoU | instance has the predicted label | instance has another label |
|---|---|---|
| reaches the threshold of mAP | double_detection | wrong_label |
| 0.1 up to that threshold | localization | confusion |
| below 0.1, or no instance in the video | background | background |

Of several instances at the same largest tIoU one with the predicted label decides (the tool takes the first of the file).

Predictions of class k are looked at in bands of G_k, its number of instances: the G_k best, the next G_k, ... (the
paper's "false positive profile"). What a type costs is what average mAP gains when its false positives are taken away:
plain, of all predictions, so that it adds to the mAP that is reported; and normalised, as DETAD has it, mAP_N
(`partial_precision`) of the 10 G_k best of every class.

Shapes: N predictions of a `Matching`, T thresholds, E = 6 types (`TYPES`), B bands, K classes.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from lofi.evaluation.matching import Matching
from lofi.evaluation.pairs import pair_blocks, paired_tiou
from lofi.evaluation.partial_precision import PartialHits, mean_instances_per_class
from lofi.evaluation.tables import GroundTruth, Predictions

TYPES = (
    "true_positive",
    "double_detection",
    "wrong_label",
    "localization",
    "confusion",
    "background",
)
"""Types of predictions by their code; code 0 is no error."""
LEFT_OUT = -1
"""Code of a prediction that does not count at a threshold (THUMOS14's Ambiguous)."""
LOW_TIOU = 0.1
"""Below this a prediction is background (DETAD's choice)."""
NUM_BANDS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class FalsePositives:
    """Fractions between 0 and 1, and differences of such."""

    counts_BTE: np.ndarray
    """(B, T, E) int64 predictions by band, threshold and type."""
    average_map: float
    """As reported."""
    gains: dict[str, float]
    """Error type -> what average mAP gains without it."""
    gain_of_all: float
    """What it gains without any false positive: what is then missing was not found."""
    average_map_n: float
    """Normalised, of the B x G_k best predictions of each class."""
    gains_n: dict[str, float]
    """Error type -> what average_map_n gains without it."""

    @property
    def band_shares_BE(self) -> np.ndarray:
        """(B, E) share of each type in each band, all thresholds together; sums to 1, NaN where the band is empty."""
        return _shares(self.counts_BTE)

    @property
    def best_shares_BE(self) -> np.ndarray:
        """(B, E) share of each type among the 1, 2, ... B x G_k best predictions."""
        return _shares(self.counts_BTE.cumsum(axis=0))


def analyze_false_positives(
    truth: GroundTruth, predictions: Predictions, *, matching: Matching, low_tiou: float = LOW_TIOU
) -> FalsePositives:
    """Count the types by band, and weigh what each costs. Arguments as of `error_analysis.analyze_errors`."""
    nearest = nearest_instances(truth, predictions, matching=matching)
    band = bands(matching)
    is_best = (band >= 0) & (band < NUM_BANDS)
    per_class = mean_instances_per_class(matching)
    counts_BTE = np.zeros((NUM_BANDS, len(matching.tious), len(TYPES)), dtype=np.int64)
    plain: dict[str, list[float]] = defaultdict(list)
    normalized: dict[str, list[float]] = defaultdict(list)
    for column in range(len(matching.tious)):
        types = types_at(column, matching=matching, nearest=nearest, low_tiou=low_tiou)
        counts = types != LEFT_OUT
        banded = is_best & counts
        cells = np.bincount(band[banded] * len(TYPES) + types[banded], minlength=NUM_BANDS * len(TYPES))
        counts_BTE[:, column] = cells.reshape(NUM_BANDS, len(TYPES))
        for removed in ("nothing", *TYPES[1:], "every error"):
            left = types == 0 if removed == "every error" else counts
            if removed in TYPES:
                left = counts & (types != TYPES.index(removed))
            hits = PartialHits.at(column, matching=matching, counts=left)
            plain[removed].append(
                hits.plain_map(matching.num_instances_K, is_interpolated=matching.protocol.is_interpolated)
            )
            hits = PartialHits.at(column, matching=matching, counts=left & is_best)
            normalized[removed].append(hits.normalized_map(matching.num_instances_K, per_class=per_class))
    average_map, average_map_n = float(np.mean(plain["nothing"])), float(np.mean(normalized["nothing"]))
    return FalsePositives(
        counts_BTE=counts_BTE,
        average_map=average_map,
        gains={name: float(np.mean(plain[name])) - average_map for name in TYPES[1:]},
        gain_of_all=float(np.mean(plain["every error"])) - average_map,
        average_map_n=average_map_n,
        gains_n={name: float(np.mean(normalized[name])) - average_map_n for name in TYPES[1:]},
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class NearestInstances:
    """Of each prediction, in the order of a `Matching`, the instance of its video with the largest tIoU."""

    tiou: np.ndarray
    """(N,) float64; 0 where the video has no instance."""
    has_same_label: np.ndarray
    """(N,) bool: an instance at that tIoU has the predicted label."""


def nearest_instances(
    truth: GroundTruth, predictions: Predictions, *, matching: Matching
) -> NearestInstances:
    """Compare every prediction with all instances of its video that take part."""
    by_video = matching.instances[np.argsort(truth.video[matching.instances], kind="stable")]
    count_V = np.bincount(truth.video[by_video], minlength=len(matching.videos))
    first_V = np.cumsum(count_V) - count_V
    label = matching.label
    best = np.zeros(len(matching.rows))
    has_same_label = np.zeros(len(matching.rows), dtype=bool)
    for block in pair_blocks(count_V.astype(np.int32)[matching.video]):
        instance = by_video[first_V[matching.video[block.owner]] + block.rank]
        row = matching.rows[block.owner]
        start, end = predictions.start[row], predictions.end[row]
        if matching.protocol.union == "hull":
            start, end = np.minimum(start, end), np.maximum(start, end)
        tiou = paired_tiou(start, end, other_start=truth.start[instance], other_end=truth.end[instance])
        best[block.owners] = np.maximum.reduceat(tiou, block.begin)
        tiou[truth.label[instance] != label[block.owner]] = -1.0
        has_same_label[block.owners] = np.maximum.reduceat(tiou, block.begin) == best[block.owners]
    return NearestInstances(tiou=best, has_same_label=has_same_label)


def types_at(
    tiou_index: int, *, matching: Matching, nearest: NearestInstances, low_tiou: float = LOW_TIOU
) -> np.ndarray:
    """Type of every prediction at one threshold: (N,) int8 codes of `TYPES`, or LEFT_OUT."""
    threshold = matching.tious[tiou_index]
    reaches = nearest.tiou > threshold if matching.protocol.is_strict else nearest.tiou >= threshold
    near = np.where(reaches, np.int8(1), np.int8(3)) + ~nearest.has_same_label
    types = np.where(reaches | (nearest.tiou >= low_tiou), near, np.int8(5))
    types[matching.is_ambiguous] = LEFT_OUT
    types[
        matching.hit_position[matching.first_hit_T1[tiou_index] : matching.first_hit_T1[tiou_index + 1]]
    ] = 0
    return types


def bands(matching: Matching) -> np.ndarray:
    """Band of every prediction: (N,) int32, place in its class // instances of the class; -1 for a class without any."""
    band = np.full(len(matching.rows), -1, dtype=np.int32)
    for label in np.flatnonzero(matching.num_instances_K):
        first, last = matching.first_K1[label : label + 2]
        band[first:last] = np.arange(last - first) // matching.num_instances_K[label]
    return band


def _shares(counts_BTE: np.ndarray) -> np.ndarray:
    counts_BE = counts_BTE.sum(axis=1)
    totals = counts_BE.sum(axis=1, keepdims=True)
    return np.divide(counts_BE, totals, out=np.full(counts_BE.shape, np.nan), where=totals > 0)
