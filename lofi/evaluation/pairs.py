"""Pairs of segments that share a group (a video, or a class of a video): temporal IoU of each, a block at a time.

Shapes: P pairs of one block. A block bounds the memory, whatever the number of predictions of a video.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PAIRS_PER_BLOCK = 1 << 15
"""Pairs that are looked at together: some 2 MiB of temporaries, and enough that numpy's overhead does not count."""
OWNERS_AT_ONCE = 1 << 16
"""Owners whose blocks are planned together: bounds the memory of many owners with few pairs."""


@dataclass(frozen=True, kw_only=True)
class PairBlock:
    """All pairs of some owners, owner by owner."""

    owners: np.ndarray
    """(B,) int64 the owners of this block."""
    begin: np.ndarray
    """(B,) int64 where the pairs of each begin: what `ufunc.reduceat` takes."""
    owner: np.ndarray
    """(P,) int64 the owner of each pair."""
    rank: np.ndarray
    """(P,) int64 place of the pair's other side in its group, from 0."""


def pair_blocks(counts: np.ndarray, *, limit: int = PAIRS_PER_BLOCK) -> Iterator[PairBlock]:
    """Pair every owner with all members of its group.

    Args:
        counts: (N,) number of members of each owner's group. An owner without any is in no block.
        limit: pairs per block; one owner's pairs are never parted.
    """
    for first in range(0, len(counts), OWNERS_AT_ONCE):
        part = counts[first : first + OWNERS_AT_ONCE]
        with_pairs = np.flatnonzero(part)
        yield from _blocks(first + with_pairs, part[with_pairs].astype(np.int64), limit=limit)


def _blocks(with_pairs: np.ndarray, sizes: np.ndarray, *, limit: int) -> Iterator[PairBlock]:
    ends = np.cumsum(sizes)
    first = 0
    while first < len(with_pairs):
        before = ends[first] - sizes[first]
        last = max(int(np.searchsorted(ends, before + limit, side="right")), first + 1)
        block = slice(first, last)
        begin = ends[block] - sizes[block] - before
        yield PairBlock(
            owners=with_pairs[block],
            begin=begin,
            owner=np.repeat(with_pairs[block], sizes[block]),
            rank=np.arange(int(sizes[block].sum())) - np.repeat(begin, sizes[block]),
        )
        first = last


def paired_tiou(
    start: np.ndarray, end: np.ndarray, *, other_start: np.ndarray, other_end: np.ndarray
) -> np.ndarray:
    """Temporal IoU of pairs, elementwise; 0 where the union is empty or an end lies before its start.

    Rounded as the ActivityNet toolkit rounds it, so that a tIoU equal to a threshold stays equal.
    """
    intersection = np.minimum(end, other_end)
    intersection -= np.maximum(start, other_start)
    np.maximum(intersection, 0.0, out=intersection)
    union = (end - start) + (other_end - other_start)
    union -= intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
