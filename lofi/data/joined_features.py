"""Several feature directories as one: their features side by side, row by row (two streams, as in BSP and in RGB with flow)."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from lofi.data.feature_store import FeatureDirectory


def join_features(directories: Sequence[FeatureDirectory]) -> FeatureDirectory:
    """One directory's features, or those of several joined along their width, in the order given.

    Raises:
        ValueError: their rows do not stand for the same times; names the two directories and what differs.
    """
    first = directories[0]
    if len(directories) == 1:
        return first
    for other in directories[1:]:
        differing = [
            f"{name} ({mine} and {theirs})"
            for name, mine, theirs in (
                ("grid.mode", first.manifest.grid["mode"], other.manifest.grid["mode"]),
                (
                    "seconds from row to row",
                    first.manifest.snippet_stride_sec,
                    other.manifest.snippet_stride_sec,
                ),
                ("first_row_sec", first.manifest.first_row_sec, other.manifest.first_row_sec),
                ("rows of a window", first.manifest.rows_per_window, other.manifest.rows_per_window),
            )
            if mine != theirs
        ]
        if differing:
            raise ValueError(
                f"data.joined_features: {other.path} does not fit {first.path}: {'; '.join(differing)} differ. Extract both on "
                "one grid."
            )
    width = sum(directory.manifest.feature_width for directory in directories)
    return FeatureDirectory(
        path=first.path,
        manifest=replace(first.manifest, feature_width=width),
        parts=tuple(directories),
    )


def check_streams(directory: FeatureDirectory, streams: Sequence[Sequence[int]]) -> None:
    """Raise ValueError where `head.streams`, [width, channels] of each, would not cut the features of joined directories where
    they were joined, or have another width together. A directory may be several streams, and all of them may be one."""
    found = [part.manifest.feature_width for part in directory.parts]
    asked = [width for width, _ in streams]
    if not found or asked == [sum(found)]:
        return
    if sum(asked) != sum(found) or not set(accumulate(found)) <= set(accumulate(asked)):
        raise ValueError(
            f"head.streams have widths {asked}, but data.features and data.joined_features have {found}, in that order; give "
            f"each directory one stream or several that have its width together, or all of them one of {sum(found)}."
        )
