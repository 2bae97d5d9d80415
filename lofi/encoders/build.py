"""A snippet encoder ready for use: built, its weights loaded, its norms and first stages frozen, in that order."""

from typing import Any

from torch import nn

from lofi.encoders import ENCODERS
from lofi.encoders.freezing import freeze_norms, freeze_stages
from lofi.encoders.weights import WeightsReport, load_encoder_weights


def build_encoder(
    name: str, config: Any, *, with_weights: bool = True
) -> tuple[nn.Module, WeightsReport | None]:
    """Build an encoder.

    Args:
        name: a key of `ENCODERS`.
        config: an instance of its configuration.
        with_weights: load `config.weights`; False where a whole checkpoint follows.

    Returns:
        The encoder, and what was loaded where `config.weights` names a source.

    Raises:
        ValueError: an unknown name, weights that cannot be read or do not fit, exceptions without weights, more frozen stages
            than there are.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder.name is {name!r}; it must be one of {', '.join(ENCODERS)}.")
    config_class, build = ENCODERS[name]
    if not isinstance(config, config_class):
        raise ValueError(f"encoder {name} takes a {config_class.__name__}, not a {type(config).__name__}.")
    allow = getattr(config, "allow_unmatched", ())
    if allow and config.weights is None:
        raise ValueError(
            f"encoder.allow_unmatched is {list(allow)}, which has no effect without encoder.weights; "
            "remove it."
        )
    encoder: Any = build(config)
    report = None
    if with_weights and config.weights is not None:
        report = load_encoder_weights(encoder, config.weights, allow=allow)
    freeze_norms(encoder, mode=getattr(config, "norm", "frozen"))
    freeze_stages(encoder.stages, count=config.frozen_stages)
    return encoder, report
