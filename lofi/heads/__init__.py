"""Heads: a temporal feature sequence -> losses or detections. `HEADS` is the table of choices."""

from lofi.heads.actionformer.model import ActionFormerConfig, build_actionformer

HEADS = {"actionformer": (ActionFormerConfig, build_actionformer)}
"""name -> (config dataclass, build function `build(config, *, feature_width, num_classes) -> nn.Module`)."""
