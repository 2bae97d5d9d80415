"""mAP of resampled videos: the predictions are matched once, and a resample only weighs them.

Predictions are matched within their video, so a video drawn w times is its predictions and instances, w times each: what
is counted at a hit is the weight of the predictions up to it. Classes without an instance in a resample are left out of
its mean, as the measure leaves them out; a resample without any instance is drawn again. Videos of the predictions that
the ground truth does not name are drawn like the others: their predictions are part of what was measured.

Shapes: S resamples, V videos, T thresholds; of one class: R predictions, B borders, h hits at one threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lofi.evaluation.matching import Matching
from lofi.progress import track

SAMPLES_AT_ONCE = 128
ROWS_AT_ONCE = 4096
"""Both bound the memory: the weights of a class's predictions are looked up and added in blocks of this size."""


def resampled_maps(matchings: Sequence[Matching], *, samples: int, seed: int) -> list[np.ndarray]:
    """mAP of each matching on the same resamples: (S, T) each."""
    videos = {name: index for index, name in enumerate(matchings[0].videos)}
    for matching in matchings[1:]:
        for name in matching.videos:
            videos.setdefault(name, len(videos))
    # The ground truth's videos come first in every matching.
    has_instance_V = np.zeros(len(videos), dtype=bool)
    has_instance_V[matchings[0].instance_video] = True
    places = [np.array([videos[name] for name in matching.videos]) for matching in matchings]
    plans = [_plan(matching) for matching in matchings]
    generator = np.random.default_rng(seed)
    maps: list[list[np.ndarray]] = [[] for _ in matchings]
    with track("resamples of the videos", total=samples) as advance:
        for first in range(0, samples, SAMPLES_AT_ONCE):
            count = min(SAMPLES_AT_ONCE, samples - first)
            drawn_VS = _draw(generator, count=count, has_instance_V=has_instance_V)
            for index, plan in enumerate(plans):
                maps[index].append(_weighted_maps(plan, drawn_VS[places[index]]))
            advance(count)
    return [np.concatenate(of_matching) for of_matching in maps]


def _draw(generator: np.random.Generator, *, count: int, has_instance_V: np.ndarray) -> np.ndarray:
    """How often each video is drawn: (V, count) int32."""
    num_videos = len(has_instance_V)
    drawn: list[np.ndarray] = []
    while len(drawn) < count:
        times = np.bincount(generator.integers(num_videos, size=num_videos), minlength=num_videos)
        if times[has_instance_V].any():
            drawn.append(times)
    return np.ascontiguousarray(np.stack(drawn, axis=1), dtype=np.int32)


@dataclass(frozen=True, kw_only=True, eq=False)
class _ClassPlan:
    """What a resample needs of one class; positions are counted within the class."""

    instance_video: np.ndarray
    """Video of each instance."""
    video: np.ndarray
    """(R,) video of each prediction up to the last hit."""
    counts: np.ndarray | None
    """(R,) bool, False where a prediction is left out unless it hits; None where all count."""
    borders: np.ndarray
    """(B,) ascending ends of the stretches that are added up: each hit, and each block."""
    hit_border_T: tuple[np.ndarray, ...]
    """For each threshold (h,), place of each hit in `borders`."""
    hit_video_T: tuple[np.ndarray, ...]
    hit_is_ambiguous_T: tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    classes: tuple[_ClassPlan, ...]
    num_tious: int
    is_interpolated: bool


def _plan(matching: Matching) -> _Plan:
    classes = []
    instance_label, instance_video = matching.instance_label, matching.instance_video
    for label in np.flatnonzero(matching.num_instances_K):
        begin = int(matching.first_K1[label])
        hits_T = [
            matching.hits_of(class_index=int(label), tiou_index=index) for index in range(len(matching.tious))
        ]
        last = max((int(hits[-1]) + 1 for hits in hits_T if len(hits)), default=begin)
        is_border = np.zeros(last - begin, dtype=bool)
        is_border[ROWS_AT_ONCE - 1 :: ROWS_AT_ONCE] = True
        for hits in hits_T:
            is_border[hits - begin] = True
        border_of_row = is_border.cumsum() - 1
        classes.append(
            _ClassPlan(
                instance_video=instance_video[instance_label == label],
                video=matching.video[begin:last],
                counts=~matching.is_ambiguous[begin:last]
                if matching.protocol.ambiguous_is_left_out
                else None,
                borders=np.flatnonzero(is_border) + 1,
                hit_border_T=tuple(border_of_row[hits - begin] for hits in hits_T),
                hit_video_T=tuple(matching.video[hits] for hits in hits_T),
                hit_is_ambiguous_T=tuple(matching.is_ambiguous[hits] for hits in hits_T),
            )
        )
    return _Plan(
        classes=tuple(classes),
        num_tious=len(matching.tious),
        is_interpolated=matching.protocol.is_interpolated,
    )


def _weighted_maps(plan: _Plan, weights_VS: np.ndarray) -> np.ndarray:
    """mAP where each video counts as often as it was drawn: (S, T)."""
    num_samples = weights_VS.shape[1]
    total_TS = np.zeros((plan.num_tious, num_samples))
    num_classes_S = np.zeros(num_samples)
    for of_class in plan.classes:
        num_instances_S = weights_VS[of_class.instance_video].sum(axis=0)
        num_classes_S += num_instances_S > 0
        ranks_BS = _weight_up_to(of_class, weights_VS)
        for index in range(plan.num_tious):
            if not len(of_class.hit_border_T[index]):
                continue
            weight_hS = weights_VS[of_class.hit_video_T[index]]
            ranks_hS = ranks_BS[of_class.hit_border_T[index]]
            is_ambiguous = of_class.hit_is_ambiguous_T[index]
            if is_ambiguous.any():  # those that hit count
                ranks_hS = ranks_hS + (weight_hS * is_ambiguous[:, None]).cumsum(axis=0)
            area_S = (_envelope_area if plan.is_interpolated else _plain_area)(weight_hS, ranks_hS)
            total_TS[index] += np.divide(
                area_S, num_instances_S, out=np.zeros(num_samples), where=num_instances_S > 0
            )
    return (total_TS / num_classes_S).T


def _weight_up_to(of_class: _ClassPlan, weights_VS: np.ndarray) -> np.ndarray:
    """Weight of the predictions that count before each border: (B, S) int32."""
    sums = []
    first = first_border = 0
    while first_border < len(of_class.borders):
        # Borders stand at least every ROWS_AT_ONCE rows.
        last_border = int(np.searchsorted(of_class.borders, first + ROWS_AT_ONCE, side="right"))
        last = int(of_class.borders[last_border - 1])
        rows_RS = weights_VS[of_class.video[first:last]]
        if of_class.counts is not None:
            rows_RS *= of_class.counts[first:last, None]
        starts = np.concatenate([[0], of_class.borders[first_border : last_border - 1] - first])
        sums.append(np.add.reduceat(rows_RS, starts, axis=0))
        first, first_border = last, last_border
    if not sums:
        return np.zeros((0, weights_VS.shape[1]), dtype=np.int32)
    return np.concatenate(sums).cumsum(axis=0, dtype=np.int32)


def _envelope_area(weight_hS: np.ndarray, rank_hS: np.ndarray) -> np.ndarray:
    """Interpolated: every copy of a hit counts the highest precision from its last copy on. (S,)."""
    precision_hS = weight_hS.cumsum(axis=0) / np.maximum(rank_hS, 1)
    envelope_hS = np.maximum.accumulate(precision_hS[::-1], axis=0)[::-1]
    return np.einsum("hs,hs->s", weight_hS, envelope_hS)


def _plain_area(weight_hS: np.ndarray, rank_hS: np.ndarray) -> np.ndarray:
    """Not interpolated: the copies of a hit come one after the other, each with its precision. (S,)."""
    hits_before_hS = weight_hS.cumsum(axis=0) - weight_hS
    rank_before_hS = rank_hS - weight_hS
    area = np.zeros(weight_hS.shape[1])
    for copy in range(1, int(weight_hS.max()) + 1):
        precision_hS = (hits_before_hS + copy) / (rank_before_hS + copy)
        area += np.where(weight_hS >= copy, precision_hS, 0.0).sum(axis=0)
    return area
