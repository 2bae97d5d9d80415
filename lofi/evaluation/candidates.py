"""Pairs of prediction and instance that may hit, and the taking of turns among them.

All turns are played at once by deferred acceptance (Gale and Shapley 1962): everyone asks for the best on their list,
whoever is asked keeps the asker whose turn is earliest, the others ask for the next on their lists. Where all of the asked
prefer the same askers, as here, its one stable matching is the one that playing turn after turn gives. It takes as many
rounds as lists are long, and lists hold only those that reach the threshold.

Shapes: P pairs looked at together, C pairs that reach the lowest threshold, h hits at one threshold, K classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lofi.evaluation.protocols import Protocol
from lofi.evaluation.tables import GroundTruth, Predictions

PAIRS_AT_ONCE = 1 << 14
"""Pairs whose tIoU is computed together; a prediction with more instances than this is looked at alone."""
CANDIDATES_AT_ONCE = 1 << 15
"""Candidates after which what is matched so far is put away, at the end of a class. Both bound the memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Pairs of some classes whose tIoU reaches the lowest threshold: by chooser in turn, each chooser's best pair first."""

    position: np.ndarray
    """(C,) int32"""
    instance: np.ndarray
    """(C,) int32, row of the ground truth."""
    tiou: np.ndarray
    """(C,) float64, infinite for a hit by 0 / 0."""
    protocol: Protocol

    def choose(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """The matching at one threshold: positions (h,) ascending, and instances (h,)."""
        enough = self.tiou > threshold if self.protocol.is_strict else self.tiou >= threshold
        position, instance = self.position[enough], self.instance[enough]
        if self.protocol.chooser == "instance":
            kept = take_turns(instance, position)
            kept = kept[np.argsort(position[kept], kind="stable")]
        else:
            kept = take_turns(position, instance)
        return position[kept], instance[kept]


def candidates_by_class(
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
) -> Iterator[Candidates]:
    """The candidates of one class or several small ones after the other, in the order of the classes.

    Args:
        truth, predictions, protocol: as of `match_predictions`.
        instances: (M,) rows of `truth` that take part, ascending.
        rows, video, first_K1: as in `Matching`.
        num_videos: V.
        least_tiou: below it nothing hits.
    """
    cells = _Cells.of(truth, instances=instances, num_videos=num_videos)
    parts: list[Candidates] = []
    num_candidates = 0
    for label in range(len(first_K1) - 1):
        for position, instance in cells.pairs(
            video[first_K1[label] : first_K1[label + 1]], label=label, first_position=int(first_K1[label])
        ):
            tiou = _tious(truth, predictions, row=rows[position], instance=instance, protocol=protocol)
            enough = tiou >= least_tiou
            found = Candidates(
                position=position[enough], instance=instance[enough], tiou=tiou[enough], protocol=protocol
            )
            # A prediction's pairs come together, so lists of predictions are whole here; those of instances are not yet.
            parts.append(found if protocol.chooser == "instance" else _best_first(found, truth))
            num_candidates += len(found.position)
        if num_candidates >= CANDIDATES_AT_ONCE:
            yield _joined(parts, truth, protocol=protocol)
            parts, num_candidates = [], 0
    if parts:
        yield _joined(parts, truth, protocol=protocol)


def take_turns(chooser: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Let each chooser, lowest number first, take the first free one of its list.

    Args:
        chooser: (C,) ascending; its entries side by side are its list.
        chosen: (C,) whom each entry asks for.

    Returns:
        The entries that came to be, ascending.
    """
    if not len(chooser):
        return np.zeros(0, dtype=np.int64)
    chosen = chosen - chosen.min()
    nobody = len(chooser)
    holder = np.full(int(chosen.max()) + 1, nobody)  # entry that holds each of the chosen
    is_first = np.append(True, chooser[1:] != chooser[:-1])
    is_last = np.append(is_first[1:], True)
    asking = np.flatnonzero(is_first)
    while len(asking):
        # Entries ascend with the turn, so of several that ask for one the lowest entry wins: written last, it stays.
        asked = chosen[asking]
        before = holder[asked]
        holder[asked[::-1]] = np.minimum(asking, before)[::-1]
        wins = holder[asked] == asking
        refused = np.sort(np.concatenate([asking[~wins], before[wins & (before < nobody)]]))
        asking = refused[~is_last[refused]] + 1
    return np.sort(holder[holder < nobody])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cells:
    """Instances by class and video: those of one cell lie side by side."""

    instances: np.ndarray
    number: np.ndarray
    """Of each cell, ascending: class x V + video."""
    first: np.ndarray
    count: np.ndarray
    num_videos: int

    @staticmethod
    def of(truth: GroundTruth, *, instances: np.ndarray, num_videos: int) -> "_Cells":
        number = truth.label[instances].astype(np.int64) * num_videos + truth.video[instances]
        order = np.argsort(number, kind="stable")
        number = number[order]
        first = np.flatnonzero(np.append(True, number[1:] != number[:-1]))
        return _Cells(
            instances=instances[order],
            number=number[first],
            first=first,
            count=np.diff(np.append(first, len(order))),
            num_videos=num_videos,
        )

    def pairs(
        self, video: np.ndarray, *, label: int, first_position: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each prediction of a class, by its video, with every instance of its cell: positions (P,), instances (P,)."""
        number = label * self.num_videos + video.astype(np.int64)
        cell = np.minimum(np.searchsorted(self.number, number), len(self.number) - 1)
        active = np.flatnonzero(self.number[cell] == number)
        cell = cell[active]
        total = np.concatenate([[0], np.cumsum(self.count[cell])])
        first = 0
        while first < len(active):
            last = max(first + 1, int(np.searchsorted(total, total[first] + PAIRS_AT_ONCE, side="right")) - 1)
            count = self.count[cell[first:last]]
            in_cell = np.arange(count.sum()) - np.repeat(total[first:last] - total[first], count)
            slot = np.repeat(self.first[cell[first:last]], count) + in_cell
            position = np.repeat(active[first:last] + first_position, count).astype(np.int32)
            yield position, self.instances[slot]
            first = last


def _tious(
    truth: GroundTruth, predictions: Predictions, *, row: np.ndarray, instance: np.ndarray, protocol: Protocol
) -> np.ndarray:
    """tIoU of each pair: (P,)."""
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
    return tiou


def _best_first(found: Candidates, truth: GroundTruth) -> Candidates:
    """By chooser, and each chooser's pairs by falling tIoU."""
    position, instance, tiou = found.position, found.instance, found.tiou
    if found.protocol.chooser == "instance":
        order = np.lexsort((position, -tiou, instance))
    elif found.protocol.equal_tious == "last":
        order = np.lexsort((-instance, -tiou, position))
    else:
        order = np.lexsort((-truth.end[instance], -truth.start[instance], -tiou, position))
    return Candidates(
        position=position[order], instance=instance[order], tiou=tiou[order], protocol=found.protocol
    )


def _joined(parts: list[Candidates], truth: GroundTruth, *, protocol: Protocol) -> Candidates:
    whole = Candidates(
        position=np.concatenate([part.position for part in parts]),
        instance=np.concatenate([part.instance for part in parts]),
        tiou=np.concatenate([part.tiou for part in parts]),
        protocol=protocol,
    )
    return _best_first(whole, truth) if protocol.chooser == "instance" else whole
