"""Predictions in groups (classes, videos) and within a group best first; equal scores in an order that the protocol says.

Shapes: N predictions, K classes, G groups, V videos.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from lofi.evaluation.protocols import Protocol
from lofi.evaluation.tables import GroundTruth, Predictions, indices_in


def ranked_rows(
    truth: GroundTruth,
    predictions: Predictions,
    *,
    protocol: Protocol,
    has_instance_K: np.ndarray,
    name_rank_V: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Order the predictions.

    Returns:
        (N,) int32 rows by class, best first; (K + 1,) borders of the classes; how many rows have a label that is no
        class, and so no place.

    Raises:
        ValueError: a time or score is not finite, or the protocol refuses a label.
    """
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
        occurs = np.bincount(predictions.label, minlength=len(predictions.labels)) > 0
        without = [
            name
            for name, index, some in zip(predictions.labels, class_of_label, occurs, strict=True)
            if some and (index < 0 or not has_instance_K[index])
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
    order_groups(rows, predictions, borders=borders[:-1], ties=protocol.ties, name_rank_V=name_rank_V)
    return rows[: borders[-2]], borders[:-1], int(borders[-1] - borders[-2])


def order_groups(
    rows: np.ndarray,
    predictions: Predictions,
    *,
    borders: np.ndarray,
    ties: Literal["time", "unstable", "video"],
    name_rank_V: np.ndarray,
) -> None:
    """Put each group of rows in the order of falling scores, in place: a group at a time, so that little memory is held.

    Args:
        rows: (N,) rows of `predictions`, group by group, in the order of the file within a group.
        predictions: what the rows are of.
        borders: (G + 1,) group g has rows borders[g] to borders[g + 1], the last excluded.
        ties: the order of equal scores, as of `Protocol.ties`.
        name_rank_V: place of each of `predictions.videos` in the order of names.
    """
    for begin, end in itertools.pairwise(borders.tolist()):
        if end - begin < 2:
            continue
        of_group = rows[begin:end]
        score = predictions.score[of_group]
        if ties == "unstable":
            rows[begin:end] = of_group[score.argsort()[::-1]]
            continue
        if ties == "video":
            of_group = of_group[np.argsort(name_rank_V[predictions.video[of_group]], kind="stable")]
            score = predictions.score[of_group]
        order = np.argsort(-score, kind="stable")
        of_group, score = of_group[order], score[order]
        if ties == "time":
            _order_ties_by_time(of_group, score, predictions, name_rank_V=name_rank_V)
        rows[begin:end] = of_group


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


def rank_of_names(names: Sequence[str]) -> np.ndarray:
    """(V,) int32: place of each name in the order of names."""
    rank = np.empty(len(names), dtype=np.int32)
    rank[sorted(range(len(names)), key=lambda index: names[index])] = np.arange(len(names))
    return rank
