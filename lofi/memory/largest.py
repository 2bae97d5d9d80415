"""The largest size that fits, with few predictions: bytes are predicted at few sizes and extrapolated between them.

What a step holds at each of its moments is affine in the number of windows, and in the snippets of a chunk; its peak is
the greatest of these, so convex and piecewise affine. A line through two sizes that fit is therefore never above the
peaks of larger sizes: a size that the line refuses needs no prediction. Rounding to blocks bends this by a few kilobytes.
Whatever is proposed has been predicted itself.
"""

from collections.abc import Callable, Sequence

Point = tuple[int, int]
"""A size and its bytes."""


def largest_that_fits(
    sizes: Sequence[int],
    *,
    bytes_of: Callable[[int], int | None],
    budget_bytes: int,
    bytes_of_none: Callable[[], int] = lambda: 0,
    starts_large: bool = False,
) -> int | None:
    """The largest of the sizes whose bytes are within the budget; None where not even the smallest is.

    Args:
        sizes: ascending.
        bytes_of: predicts; None where the size cannot be, or is known to be too large before its bytes are.
        budget_bytes: that must not be exceeded.
        bytes_of_none: what is held whatever the size, asked when one size is known: with it the second is guessed.
        starts_large: look at the largest size first, for bytes that hardly grow.
    """

    def fits(size: int) -> bool:
        found = bytes_of(size)
        if found is not None and found <= budget_bytes:
            fitting.append((size, found))
            return True
        refused.append((size, found))
        return False

    fitting: list[Point] = []
    refused: list[tuple[int, int | None]] = []
    if starts_large and fits(sizes[-1]):
        return sizes[-1]
    if not fits(sizes[0]):
        return None
    low, high = 0, len(sizes) - (1 if refused else 0)
    while high - low > 1:
        if len(fitting) == 1:
            guess = _reach(sizes, line=((0, bytes_of_none()), fitting[0]), budget_bytes=budget_bytes)
        else:
            guess = _reach(sizes, line=(fitting[-2], fitting[-1]), budget_bytes=budget_bytes)
            if guess <= low:
                break
        size, found = refused[-1] if refused else (0, None)
        if found is not None:  # a chord is never below the peaks between its ends: what it allows will fit
            sure = _reach(sizes, line=(fitting[-1], (size, found)), budget_bytes=budget_bytes)
            guess = (sure + min(guess, high - 1) + 1) // 2
        elif refused:
            guess = min(guess, (low + high) // 2)
        guess = min(max(guess, low + 1), high - 1)
        if fits(sizes[guess]):
            low = guess
        else:
            high = guess
    return sizes[low]


def _reach(sizes: Sequence[int], *, line: tuple[Point, Point], budget_bytes: int) -> int:
    """Place of the largest size at which a line is within the budget; 0 where it is nowhere."""
    (start, start_bytes), (end, end_bytes) = line
    slope = (end_bytes - start_bytes) / (end - start)
    within = [place for place, size in enumerate(sizes) if end_bytes + slope * (size - end) <= budget_bytes]
    return max(within, default=0)
