"""The published sizes of VideoMAE's vision transformer (S to H: arXiv:2203.12602; g: VideoMAE V2, arXiv:2303.16727)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """One of the published sizes."""

    width: int
    """D."""
    depth: int
    heads: int
    patch: int = 16
    """Pixels, each side."""
    mlp_ratio: float = 4.0


TUBELET = 2
"""Frames of a tubelet, of every size."""

SIZES = {
    "small": Size(width=384, depth=12, heads=6),
    "base": Size(width=768, depth=12, heads=12),
    "large": Size(width=1024, depth=24, heads=16),
    "huge": Size(width=1280, depth=32, heads=16),
    "giant": Size(width=1408, depth=40, heads=16, patch=14, mlp_ratio=48 / 11),
}
