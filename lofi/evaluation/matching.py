"""Which prediction hits which instance, at every tIoU threshold: what mAP, its curves and its bootstrap are computed from.

One side chooses in turn (predictions from the best score on; under the THUMOS14 protocol instances in the order of the
file): each takes the free one of the other side, of its own video and class, at the largest tIoU that reaches the
threshold. All turns are played at once by deferred acceptance (Gale and Shapley 1962): everyone asks for the best on their
list, whoever is asked keeps the asker whose turn is earliest, the others ask for the next on their lists. Where all of the
asked prefer the same askers, as here, its one stable matching is the one that playing the turns gives. It takes as many
rounds as lists are long, and lists hold only those that reach the threshold.

Shapes: N predictions that take part, M instances that take part, K classes, T thresholds, V videos, H hits.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lofi.evaluation.protocols import DUPLICATE_WITHIN_SEC, PROTOCOLS, Protocol
from lofi.evaluation.tables import GroundTruth, Predictions, indices_in

PAIRS_AT_ONCE = 1 << 16
"""Pairs of prediction and instance whose tIoU is computed together: bounds the memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Matching:
    """Predictions by class, within a class best first; a prediction's place in that order is its position.

    Costs 16 bytes per prediction and 16 per hit.
    """

    protocol: Protocol
    tious: tuple[float, ...]
    """T thresholds."""
    classes: tuple[str, ...]
    """K names, those of the ground truth."""
    videos: tuple[str, ...]
    """V names: those of the ground truth in its order, then others that have a prediction here, sorted."""
    rows: np.ndarray
    """(N,) int32, row of `Predictions`. Predictions whose label is none of the classes have no position."""
    video: np.ndarray
    """(N,) int32, index of `videos`."""
    score: np.ndarray
    """(N,) float64, falling within a class."""
    first_K1: np.ndarray
    """(K + 1,) int64: class k has positions first_K1[k] to first_K1[k + 1], the last excluded."""
    is_ambiguous: np.ndarray
    """(N,) bool: left out of a threshold where it does not hit (THUMOS14's Ambiguous); else all False."""
    hit_position: np.ndarray
    """(H,) int32, the prediction, ascending within a threshold."""
    hit_instance: np.ndarray
    """(H,) int32, row of `GroundTruth` that it hits."""
    first_hit_T1: np.ndarray
    """(T + 1,) int64: threshold t has hits first_hit_T1[t] to first_hit_T1[t + 1], the last excluded."""
    instances: np.ndarray
    """(M,) int32, rows of `GroundTruth` that take part, ascending."""
    num_instances_K: np.ndarray
    """(K,) int64, of those."""
    num_duplicates: int
    """Instances given again in the ground truth, whether or not they count."""
    num_zero_length: int
    """Instances whose end is not after their start, whether or not they count."""
    num_predictions: int
    """All predictions given."""
    num_unknown_labels: int
    """Of them, without a position: their label is none of the classes."""
    num_outside: int
    """Of them, in videos that the ground truth does not name: they count as false positives."""

    @property
    def label(self) -> np.ndarray:
        """(N,) int32, index of `classes`."""
        return np.repeat(np.arange(len(self.classes), dtype=np.int32), np.diff(self.first_K1))

    @property
    def hits_NT(self) -> np.ndarray:
        """(N, T) bool."""
        hits = np.zeros((len(self.rows), len(self.tious)), dtype=bool)
        hits[self.hit_position, self.hit_threshold] = True
        return hits

    @property
    def instance_NT(self) -> np.ndarray:
        """(N, T) int32, row of `GroundTruth` that the prediction hits, or -1."""
        found = np.full((len(self.rows), len(self.tious)), -1, dtype=np.int32)
        found[self.hit_position, self.hit_threshold] = self.hit_instance
        return found

    @property
    def hit_threshold(self) -> np.ndarray:
        """(H,) int32, index of `tious`."""
        return np.repeat(np.arange(len(self.tious), dtype=np.int32), np.diff(self.first_hit_T1))

    def hits_of(self, *, class_index: int, tiou_index: int) -> np.ndarray:
        """(h,) positions of one class's hits at one threshold, ascending."""
        at_tiou = self.hit_position[self.first_hit_T1[tiou_index] : self.first_hit_T1[tiou_index + 1]]
        first, last = np.searchsorted(at_tiou, self.first_K1[class_index : class_index + 2])
        return at_tiou[first:last]


def match_predictions(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    tious: Sequence[float],
    protocol: Protocol = PROTOCOLS["default"],
) -> Matching:
    """Match the predictions of one subset with its instances.

    Args:
        truth: all videos of the subset, also those without an instance.
        predictions: of any videos; those in videos that the subset does not have count as false positives.
        tious: T thresholds, each above 0 and at most 1.
        protocol: the rules.

    Raises:
        ValueError: a threshold out of range, times or scores that are not finite, no instance left to find, or, where the
            protocol refuses them, predictions with a label that has no instance.
    """
    thresholds = np.asarray(tious, dtype=np.float64)
    if not thresholds.size or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ValueError(f"tIoU thresholds are {list(tious)}; each must be above 0 and at most 1.")
    is_empty = ~(truth.end > truth.start)
    is_duplicate = _duplicates(truth, in_file_order=not protocol.duplicates_count)
    keep = np.ones(len(truth), dtype=bool)
    if not protocol.zero_length_counts:
        keep &= ~is_empty
    if not protocol.duplicates_count:
        keep &= ~is_duplicate
    instances = np.flatnonzero(keep).astype(np.int32)
    if not len(instances):
        raise ValueError(
            f"the ground truth has no instance in {len(truth.videos)} videos; nothing to evaluate."
        )
    num_instances_K = np.bincount(truth.label[instances], minlength=len(truth.classes))

    videos, video_index = _all_videos(truth, predictions)
    rows, first_K1, num_unknown = _ranked_rows(
        truth,
        predictions,
        protocol=protocol,
        has_instance_K=num_instances_K > 0,
        name_rank_V=_rank_of_names(videos)[video_index],
    )
    video = video_index[predictions.video[rows]]
    candidates = _Candidates.of(
        truth,
        predictions,
        instances=instances,
        rows=rows,
        video=video,
        first_K1=first_K1,
        num_videos=len(videos),
        least_tiou=float(thresholds.min()),
        protocol=protocol,
    )
    hits = [candidates.choose(tiou) for tiou in thresholds]
    return Matching(
        protocol=protocol,
        tious=tuple(float(tiou) for tiou in tious),
        classes=truth.classes,
        videos=videos,
        rows=rows,
        video=video,
        score=predictions.score[rows],
        first_K1=first_K1,
        is_ambiguous=_overlaps_ambiguous(truth, predictions, rows=rows, video=video, protocol=protocol),
        hit_position=np.concatenate([position for position, _ in hits]),
        hit_instance=np.concatenate([instance for _, instance in hits]),
        first_hit_T1=np.concatenate([[0], np.cumsum([len(position) for position, _ in hits])]),
        instances=instances,
        num_instances_K=num_instances_K,
        num_duplicates=int(is_duplicate.sum()),
        num_zero_length=int(is_empty.sum()),
        num_predictions=len(predictions),
        num_unknown_labels=num_unknown,
        num_outside=int((video_index[predictions.video] >= len(truth.videos)).sum()),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidates:
    """Pairs whose tIoU reaches the lowest threshold: by chooser in turn, each chooser's best pair first."""

    position: np.ndarray
    instance: np.ndarray
    tiou: np.ndarray
    protocol: Protocol

    @staticmethod
    def of(
        truth: GroundTruth,
        predictions: Predictions,
        *,
        instances: np.ndarray,
        rows: np.ndarray,
        video: np.ndarray,
        first_K1: np.ndarray,
        num_videos: int,
        least_tiou: float,
        protocol: Protocol,
    ) -> "_Candidates":
        # The instances of one class and video lie side by side; a prediction is paired with all of its own.
        cell_of_instance = truth.label[instances].astype(np.int64) * num_videos + truth.video[instances]
        by_cell = np.argsort(cell_of_instance, kind="stable")
        instances = instances[by_cell]
        cells, first_in_cell, count_in_cell = np.unique(
            cell_of_instance[by_cell], return_index=True, return_counts=True
        )
        found = [
            _tious_that_reach(
                truth,
                predictions,
                position=position,
                row=rows[position],
                instance=instances[slot],
                least_tiou=least_tiou,
                protocol=protocol,
            )
            for position, slot in _pairs(
                video,
                first_K1,
                num_videos,
                cells=cells,
                first_in_cell=first_in_cell,
                count_in_cell=count_in_cell,
            )
        ]
        position, instance, tiou = (np.concatenate(column) for column in zip(*found, strict=True))
        if protocol.chooser == "instance":
            order = np.lexsort((position, -tiou, instance))
        elif protocol.equal_tious == "last":
            order = np.lexsort((-instance, -tiou, position))
        else:
            order = np.lexsort((-truth.end[instance], -truth.start[instance], -tiou, position))
        return _Candidates(
            position=position[order], instance=instance[order], tiou=tiou[order], protocol=protocol
        )

    def choose(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """The matching at one threshold: positions (h,) ascending, and instances (h,)."""
        enough = self.tiou > threshold if self.protocol.is_strict else self.tiou >= threshold
        position, instance = self.position[enough], self.instance[enough]
        if self.protocol.chooser == "instance":
            kept = _take_turns(instance, position)
            kept = kept[np.argsort(position[kept], kind="stable")]
        else:
            kept = _take_turns(position, instance)
        return position[kept], instance[kept]


def _take_turns(chooser: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Let each chooser, lowest number first, take the first free one of its list.

    Args:
        chooser: (C,) ascending; its entries side by side are its list.
        chosen: (C,) whom each entry asks for.

    Returns:
        The entries that came to be, ascending.
    """
    if not len(chooser):
        return np.zeros(0, dtype=np.int64)
    _, chosen = np.unique(chosen, return_inverse=True)
    nobody = len(chooser)
    holder = np.full(chosen.max() + 1, nobody)  # entry that holds each of the chosen
    is_last = np.append(chooser[1:] != chooser[:-1], True)
    asking = np.flatnonzero(np.append(True, chooser[1:] != chooser[:-1]))
    while len(asking):
        # Entries ascend with the turn, so of several that ask for one the lowest entry wins: written last, it stays.
        asked = chosen[asking]
        before = holder[asked]
        holder[asked[::-1]] = np.minimum(asking, before)[::-1]
        refused = np.unique(np.concatenate([asking, before[before < nobody]]))
        refused = refused[holder[chosen[refused]] != refused]
        asking = refused[~is_last[refused]] + 1
    return np.sort(holder[holder < nobody])


def _pairs(
    video: np.ndarray,
    first_K1: np.ndarray,
    num_videos: int,
    *,
    cells: np.ndarray,
    first_in_cell: np.ndarray,
    count_in_cell: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every prediction with every instance of its class and video, some at a time: position (P,), place of instance (P,)."""
    empty = np.zeros(0, dtype=np.int32)
    yield empty, empty
    for label in range(len(first_K1) - 1):
        begin = int(first_K1[label])
        cell = label * num_videos + video[begin : int(first_K1[label + 1])].astype(np.int64)
        which = np.minimum(np.searchsorted(cells, cell), len(cells) - 1)
        active = np.flatnonzero(cells[which] == cell)
        which = which[active]
        total = np.concatenate([[0], np.cumsum(count_in_cell[which])])
        first = 0
        while first < len(active):
            last = max(first + 1, int(np.searchsorted(total, total[first] + PAIRS_AT_ONCE, side="right")) - 1)
            counts = count_in_cell[which[first:last]]
            offset = np.arange(counts.sum()) - np.repeat(total[first:last] - total[first], counts)
            position = np.repeat(active[first:last] + begin, counts).astype(np.int32)
            yield position, (np.repeat(first_in_cell[which[first:last]], counts) + offset)
            first = last


def _tious_that_reach(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    position: np.ndarray,
    row: np.ndarray,
    instance: np.ndarray,
    least_tiou: float,
    protocol: Protocol,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those of the pairs whose tIoU reaches the threshold: position, instance, tIoU (infinite for a hit by 0 / 0)."""
    start, end = predictions.start[row], predictions.end[row]
    other_start, other_end = truth.start[instance], truth.end[instance]
    if protocol.union == "hull":
        start, end = np.minimum(start, end), np.maximum(start, end)
    intersection = np.clip(np.minimum(end, other_end) - np.maximum(start, other_start), 0.0, None)
    if protocol.union == "hull":
        union = np.maximum(end, other_end) - np.minimum(start, other_start)
    else:
        union = (end - start) + (other_end - other_start) - intersection
    tiou = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    if protocol.empty_union == "hit":
        tiou[(union == 0) & (intersection == 0)] = np.inf
    elif protocol.empty_union == "same":
        tiou[(union == 0) & (start == other_start) & (end == other_end)] = 1.0
    enough = tiou >= least_tiou
    return position[enough], instance[enough], tiou[enough]


def _duplicates(truth: GroundTruth, *, in_file_order: bool) -> np.ndarray:
    """(M,) bool: instances of positive length within 1e-3 s of an earlier one that is none itself.

    Earlier in the file, or earlier in time: a chain of near ones may fall apart differently, so a result that must not
    depend on the order of the file takes time.
    """
    is_duplicate = np.zeros(len(truth), dtype=bool)
    order = np.lexsort((truth.end, truth.start, truth.label, truth.video))
    near = (
        (np.diff(truth.video[order]) == 0)
        & (np.diff(truth.label[order]) == 0)
        & (np.diff(truth.start[order]) <= DUPLICATE_WITHIN_SEC)
    )
    # Runs whose starts lie near each other hold every duplicate; they are few and short.
    for run in np.split(order, np.flatnonzero(~near) + 1):
        if len(run) == 1:
            continue
        kept: list[int] = []
        for index in np.sort(run) if in_file_order else run:
            if not truth.end[index] > truth.start[index]:
                continue
            is_duplicate[index] = any(
                abs(truth.start[index] - truth.start[other]) <= DUPLICATE_WITHIN_SEC
                and abs(truth.end[index] - truth.end[other]) <= DUPLICATE_WITHIN_SEC
                for other in kept
            )
            if not is_duplicate[index]:
                kept.append(index)
    return is_duplicate


def _all_videos(truth: GroundTruth, predictions: Predictions) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of all videos that count, and the place among them of each of `predictions.videos`."""
    known = set(truth.videos)
    has_rows = np.bincount(predictions.video, minlength=len(predictions.videos)) > 0
    others = sorted(
        name for name, some in zip(predictions.videos, has_rows, strict=True) if some and name not in known
    )
    videos = (*truth.videos, *others)
    return videos, indices_in(predictions.videos, videos)


def _rank_of_names(names: Sequence[str]) -> np.ndarray:
    """(V,) int32: place of each name in the order of names."""
    rank = np.empty(len(names), dtype=np.int32)
    rank[sorted(range(len(names)), key=lambda index: names[index])] = np.arange(len(names))
    return rank


def _ranked_rows(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    protocol: Protocol,
    has_instance_K: np.ndarray,
    name_rank_V: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows by class, best first; the borders of the classes; how many rows have a label that is no class."""
    for name, column in (
        ("start", predictions.start),
        ("end", predictions.end),
        ("score", predictions.score),
    ):
        if not np.isfinite(column).all():
            row = int(np.flatnonzero(~np.isfinite(column))[0])
            raise ValueError(
                f"prediction of video {predictions.videos[predictions.video[row]]!r} has the {name} "
                f"{column[row]}; start, end and score must be finite."
            )
    class_of_label = indices_in(predictions.labels, truth.classes)
    if protocol.unknown_labels == "refused":
        without = [
            name
            for name, index in zip(predictions.labels, class_of_label, strict=True)
            if index < 0 or not has_instance_K[index]
        ]
        if without:
            raise ValueError(
                f"predictions have {len(without)} labels without an instance in the subset, such as {without[0]!r}; "
                f"the protocol {protocol.name} refuses them (its evaluator stops). Take protocol default to ignore them."
            )
    num_classes = len(truth.classes)
    # One class more holds the unknown labels; small integers make the sort quick.
    label = np.where(class_of_label < 0, num_classes, class_of_label).astype(np.int32)[predictions.label]
    borders = np.concatenate([[0], np.cumsum(np.bincount(label, minlength=num_classes + 1))])
    rows = np.argsort(label, kind="stable").astype(np.int32)
    del label
    for begin, end in itertools.pairwise(borders[:-1]):
        of_class = rows[begin:end]
        score = predictions.score[of_class]
        if protocol.ties == "unstable":
            rows[begin:end] = of_class[score.argsort()[::-1]]
            continue
        if protocol.ties == "video":
            of_class = of_class[np.argsort(name_rank_V[predictions.video[of_class]], kind="stable")]
            score = predictions.score[of_class]
        order = np.argsort(-score, kind="stable")
        of_class, score = of_class[order], score[order]
        if protocol.ties == "time":
            _order_ties_by_time(of_class, score, predictions, name_rank_V=name_rank_V)
        rows[begin:end] = of_class
    return rows[: borders[-2]], borders[:-1], int(borders[-1] - borders[-2])


def _order_ties_by_time(
    rows: np.ndarray, score: np.ndarray, predictions: Predictions, *, name_rank_V: np.ndarray
) -> None:
    """Put rows of equal score in the order of start, end and name of the video, in place."""
    is_equal = score[1:] == score[:-1]
    if not is_equal.any():
        return
    tied = np.flatnonzero(np.append(is_equal, False) | np.append(False, is_equal))
    of_tied = rows[tied]
    order = np.lexsort(
        (
            name_rank_V[predictions.video[of_tied]],
            predictions.end[of_tied],
            predictions.start[of_tied],
            -score[tied],
        )
    )
    rows[tied] = of_tied[order]


def _overlaps_ambiguous(
    truth: GroundTruth, predictions: Predictions, *, rows: np.ndarray, video: np.ndarray, protocol: Protocol
) -> np.ndarray:
    overlaps = np.zeros(len(rows), dtype=bool)
    if not protocol.ambiguous_is_left_out or not truth.ambiguous:
        return overlaps
    by_video = np.argsort(video, kind="stable")
    sorted_video = video[by_video]
    for index, name in enumerate(truth.videos):
        stretches = truth.ambiguous.get(name, ())
        if not len(stretches):
            continue
        of_video = by_video[slice(*np.searchsorted(sorted_video, [index, index + 1]))]
        start, end = predictions.start[rows[of_video]], predictions.end[rows[of_video]]
        for first, last in stretches:
            overlaps[of_video] |= np.minimum(np.maximum(start, end), last) > np.maximum(
                np.minimum(start, end), first
            )
    return overlaps
