"""The width of features that a head takes."""

from torch import Tensor


def check_feature_width(features: Tensor, *, expected: int) -> None:
    """features (B, D, L): raise ValueError where D is not what the head was built for."""
    if features.shape[1] != expected:
        raise ValueError(
            f"features have width {features.shape[1]}, but the head was built for {expected}; "
            "use the encoder (or the feature directory) that the head was built for."
        )
