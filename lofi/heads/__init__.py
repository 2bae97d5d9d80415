"""Heads: a temporal feature sequence -> losses or detections. `HEADS` is the table of choices."""

from collections.abc import Callable

from torch import nn

from lofi.heads.actionformer.config import ActionFormerConfig
from lofi.heads.actionformer.model import build_actionformer
from lofi.heads.bmn.model import BmnConfig, build_bmn
from lofi.heads.gtad.model import GtadConfig, build_gtad
from lofi.heads.tridet.model import TridetConfig, build_tridet

HEADS: dict[str, tuple[type, Callable[..., nn.Module]]] = {
    "actionformer": (ActionFormerConfig, build_actionformer),
    "bmn": (BmnConfig, build_bmn),
    "gtad": (GtadConfig, build_gtad),
    "tridet": (TridetConfig, build_tridet),
}
"""name -> (config dataclass, build function `build(config, *, feature_width, num_classes) -> nn.Module`)."""
