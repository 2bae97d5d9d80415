"""Checks that the configurations of all encoders share."""

from typing import Any

from lofi.encoders.freezing import NORM_MODES


def check_encoder_options(config: Any, *, num_stages: int | None = None) -> None:
    """Raise ValueError for an option out of range; options that a configuration lacks are passed over.

    Args:
        config: an encoder's configuration.
        num_stages: how many stages can be frozen; None where the network must be built to know.
    """
    for name in ("dropout", "drop_path"):
        if not 0 <= getattr(config, name, 0.0) < 1:
            raise ValueError(f"encoder.{name} is {getattr(config, name)}; it must lie in [0, 1).")
    if getattr(config, "norm", NORM_MODES[0]) not in NORM_MODES:
        raise ValueError(f"encoder.norm is {config.norm!r}; it must be one of {', '.join(NORM_MODES)}.")
    fraction = getattr(config, "temporal_shift_fraction", 0.0)
    if not 0 <= fraction <= 0.5:
        raise ValueError(f"encoder.temporal_shift_fraction is {fraction}; it must lie in [0, 0.5].")
    if config.frozen_stages < 0 or (num_stages is not None and config.frozen_stages > num_stages):
        allowed = "be at least 0" if num_stages is None else f"lie in 0 to {num_stages}"
        raise ValueError(f"encoder.frozen_stages is {config.frozen_stages}; it must {allowed}.")


def check_choice(key: str, value: str, allowed: Any) -> None:
    """Raise ValueError where `value` is none of `allowed`."""
    if value not in allowed:
        raise ValueError(f"encoder.{key} is {value!r}; it must be one of {', '.join(allowed)}.")


def check_lora(config: Any) -> None:
    """Raise ValueError for a rank below 0, and for frozen stages of an encoder whose own weights are all frozen."""
    if config.lora_rank < 0:
        raise ValueError(f"encoder.lora_rank is {config.lora_rank}; it must be at least 0 (0: none).")
    if config.lora_rank and config.frozen_stages:
        raise ValueError(
            f"encoder.frozen_stages is {config.frozen_stages}, which has no effect with encoder.lora_rank: {config.lora_rank}, "
            "where all but norms is frozen; remove it."
        )
