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
"""Pairs of prediction and instance whose tIoU is computed together: bounds the memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
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
    ) -> "Candidates":
        # The instances of one class and video lie side by side; a prediction is paired with all of its own.
        cell_of_instance = truth.label[instances].astype(np.int64) * num_videos + truth.video[instances]
        by_cell = np.argsort(cell_of_instance, kind="stable")
        instances = instances[by_cell]
        sorted_cells = cell_of_instance[by_cell]
        first_in_cell = np.flatnonzero(np.append(True, sorted_cells[1:] != sorted_cells[:-1]))
        count_in_cell = np.diff(np.append(first_in_cell, len(by_cell)))
        cells = sorted_cells[first_in_cell]
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
        return Candidates(
            position=position[order], instance=instance[order], tiou=tiou[order], protocol=protocol
        )

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
    nobody = len(chooser)
    holder = np.full(int(chosen.max()) + 1, nobody)  # entry that holds each of the chosen
    is_last = np.append(chooser[1:] != chooser[:-1], True)
    asking = np.flatnonzero(np.append(True, chooser[1:] != chooser[:-1]))
    while len(asking):
        # Entries ascend with the turn, so of several that ask for one the lowest entry wins: written last, it stays.
        asked = chosen[asking]
        before = holder[asked]
        holder[asked[::-1]] = np.minimum(asking, before)[::-1]
        wins = holder[asked] == asking
        refused = np.sort(np.concatenate([asking[~wins], before[wins & (before < nobody)]]))
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
