"""Pairs in blocks: all of them, once, whatever the block."""

import numpy as np
import pytest

from lofi.evaluation import pairs as pairs_module
from lofi.evaluation.pairs import pair_blocks, paired_tiou
from lofi.segments import tiou_matrix

COUNTS = np.array([2, 0, 5, 1, 1, 0, 3])


@pytest.mark.parametrize("owners_at_once", [2, 50])
@pytest.mark.parametrize("limit", [1, 3, 4, 100])
def test_every_owner_meets_every_member_of_its_group_once(
    limit: int, owners_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs_module, "OWNERS_AT_ONCE", owners_at_once)
    pairs, totals = [], []
    for block in pair_blocks(COUNTS, limit=limit):
        pairs += list(zip(block.owner.tolist(), block.rank.tolist(), strict=True))
        totals += list(zip(block.owners.tolist(), np.add.reduceat(block.rank, block.begin), strict=True))
        assert len(block.owner) <= limit or len(block.owners) == 1
    assert pairs == [(owner, rank) for owner, count in enumerate(COUNTS) for rank in range(count)]
    assert totals == [(owner, sum(range(count))) for owner, count in enumerate(COUNTS) if count]


def test_no_pairs_are_no_block() -> None:
    assert list(pair_blocks(np.zeros(3, dtype=np.int64))) == []


def test_paired_tiou_equals_the_matrix_and_is_0_for_reversed_and_empty_segments() -> None:
    first = np.array([[0, 10], [3, 3], [8, 2], [5, 9]], dtype=np.float64)
    second = np.array([[2, 12], [3, 3], [0, 10], [9, 11]], dtype=np.float64)
    found = paired_tiou(first[:, 0], first[:, 1], other_start=second[:, 0], other_end=second[:, 1])
    assert found.tolist() == [8 / 12, 0.0, 0.0, 0.0]
    np.testing.assert_array_equal(found, np.diagonal(tiou_matrix(first, second)))
