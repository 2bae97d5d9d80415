"""The search against a slow loop, on convex piecewise affine bytes as steps have them."""

import numpy as np
import pytest

from lofi.memory.largest import largest_that_fits


def peaks(generator):
    """A function of the size: the greatest of a few lines, of slopes at least 0."""
    slopes, starts = generator.integers(0, 40, 4), generator.integers(1, 400, 4)
    return lambda size: int((starts + slopes * size).max())


@pytest.mark.parametrize("starts_large", [False, True])
def test_the_search_finds_what_a_loop_over_all_sizes_finds(starts_large):
    generator = np.random.default_rng(0)
    sizes = [1, 2, 3, 6, 12, 25, 50]
    for _ in range(400):
        bytes_of, budget = peaks(generator), int(generator.integers(1, 2000))
        fitting = [size for size in sizes if bytes_of(size) <= budget]
        asked = []

        def ask(size, bytes_of=bytes_of, asked=asked):
            asked.append(size)
            return bytes_of(size)

        found = largest_that_fits(
            sizes, bytes_of=ask, budget_bytes=budget, bytes_of_none=lambda: 7, starts_large=starts_large
        )
        assert found == (fitting[-1] if fitting else None)
        assert found is None or found in asked
        assert len(asked) == len(set(asked))


def test_bytes_that_grow_evenly_take_two_predictions():
    asked = []

    def ask(size):
        asked.append(size)
        return 100 + 10 * size

    assert (
        largest_that_fits([1, 2, 4, 8, 16, 32], bytes_of=ask, budget_bytes=270, bytes_of_none=lambda: 100)
        == 16
    )
    assert len(asked) == 2  # the smallest, and the one that the line names: its next is known to be too large


def test_sizes_without_bytes_are_too_large():
    def ask(size):
        return None if size > 5 else size

    assert largest_that_fits([1, 2, 4, 8, 16], bytes_of=ask, budget_bytes=1000) == 4
