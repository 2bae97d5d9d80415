"""Instances that a ground truth gives twice: ActivityNet's validation subset has 19 of them."""

import numpy as np

from lofi.evaluation.tables import GroundTruth

DUPLICATE_WITHIN_SEC = 1e-3


def duplicates(truth: GroundTruth, *, in_file_order: bool) -> np.ndarray:
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
