"""Which axis of somebody's feature arrays is time, told from all their shapes together: widths agree, lengths differ."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Layout = Literal["LD", "DL"]

SURE_SHARE = 0.9
"""This part of the files agrees in the width, at the least ..."""
UNSURE_SHARE = 0.5
"""... and at most this part in the length. In between nobody can tell: files of one length, or of mixed widths."""


@dataclass(frozen=True, kw_only=True)
class KnownLayout:
    """How arrays lie, and why that is believed."""

    layout: Layout
    """LD: time is the first axis."""
    width: int
    """D."""
    reason: str
    """For who reads the log."""


def find_layout(
    shapes: Collection[tuple[int, int]], *, layout: Layout | None = None, width: int | None = None
) -> KnownLayout:
    """The layout and width of most of the files.

    Args:
        shapes: of every file, at least one.
        layout: said by the user; found where None.
        width: said by the user; the most common one where None.

    Raises:
        ValueError: the shapes do not tell, with what to say.
    """
    assert shapes
    if layout is not None:
        common, _ = _most_common(shapes, axis=_width_axis(layout))
        return KnownLayout(layout=layout, width=width or common, reason=f"{layout} as said")
    widths = {each: _most_common(shapes, axis=_width_axis(each)) for each in ("LD", "DL")}
    if width is not None:
        shares = {
            each: sum(shape[_width_axis(each)] == width for shape in shapes) / len(shapes) for each in widths
        }
    else:
        shares = {each: share for each, (_, share) in widths.items()}
    likely: Layout = "LD" if shares["LD"] >= shares["DL"] else "DL"
    other: Layout = "DL" if likely == "LD" else "LD"
    if shares[likely] < SURE_SHARE or shares[other] > UNSURE_SHARE:
        rows, columns = (sorted(shape[axis] for shape in shapes) for axis in (0, 1))
        raise ValueError(
            f"the shapes of the {len(shapes)} files do not tell which axis is time (first axis {_range(rows)}, second axis "
            f"{_range(columns)}); say the layout (--layout): LD where time is the first axis, DL where it is the second."
        )
    found = width or widths[likely][0]
    lengths = sorted(shape[1 - _width_axis(likely)] for shape in shapes)
    return KnownLayout(
        layout=likely,
        width=found,
        reason=f"{likely}, found: {shares[likely]:.0%} of the files are {found} wide, their lengths are {_range(lengths)}",
    )


def _width_axis(layout: str) -> int:
    return 1 if layout == "LD" else 0


def _most_common(shapes: Collection[tuple[int, int]], *, axis: int) -> tuple[int, float]:
    (size, count), *_ = Counter(shape[axis] for shape in shapes).most_common(1)
    return size, count / len(shapes)


def _range(sizes: list[int]) -> str:
    """Of sorted sizes."""
    return str(sizes[0]) if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
