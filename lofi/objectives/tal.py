"""TAL: the head's own loss on annotated windows, through the gradient path to the encoder. No extra terms, as in LoFi."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TalConfig:
    """Temporal action localization. No options: the loss is the head's."""
