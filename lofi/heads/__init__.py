"""Heads: a temporal feature sequence -> losses or detections. `HEADS` is the table of choices."""

from collections.abc import Callable

from torch import nn

from lofi.heads.actionformer.model import ActionFormerConfig, build_actionformer
from lofi.heads.bmn.model import BmnConfig, build_bmn
from lofi.heads.gtad.model import GtadConfig, build_gtad

HEADS: dict[str, tuple[type, Callable[..., nn.Module]]] = {
    "actionformer": (ActionFormerConfig, build_actionformer),
    "bmn": (BmnConfig, build_bmn),
    "gtad": (GtadConfig, build_gtad),
}
"""name -> (config dataclass, build function `build(config, *, feature_width, num_classes) -> nn.Module`)."""
