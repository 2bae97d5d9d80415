"""What BMN and G-TAD do alike around their networks: logits as `ProposalOutputs`, losses, detections."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lofi.heads.float_range import at_least_float32
from lofi.heads.proposals.config import ProposalHeadConfig
from lofi.heads.proposals.detections import proposal_detections
from lofi.heads.proposals.losses import ProposalOutputs, proposal_losses
from lofi.protocols import StepLosses
from lofi.segments import Detections, Targets

Forward = Callable[..., ProposalOutputs]
"""The head's forward function: (features, *, mask) -> outputs."""


def outputs_of(*, start: Tensor, end: Tensor, maps: tuple[Tensor, Tensor, Tensor | None]) -> ProposalOutputs:
    """start, end (B, L) and what `MapHead` gives -> the same in float32 or wider."""
    regression, classification, labels = maps
    return ProposalOutputs(
        start=at_least_float32(start),
        end=at_least_float32(end),
        regression=at_least_float32(regression),
        classification=at_least_float32(classification),
        labels=None if labels is None else at_least_float32(labels),
    )


def losses_of(
    forward: Forward,
    features: Tensor,
    *,
    mask: Tensor,
    targets: Sequence[Targets],
    config: ProposalHeadConfig,
) -> StepLosses:
    """`TalHead.losses` of a proposal head. Not of its call: the hooks that ZeRO 3 puts on that cannot look into a dataclass."""
    mask = mask.to(features.device)
    out = forward(features, mask=mask)
    with torch.autocast(out.start.device.type, enabled=False):
        return proposal_losses(out, mask=mask, targets=targets, regression_weight=config.regression_weight)


def detections_of(
    forward: Forward,
    features: Tensor,
    *,
    mask: Tensor,
    scores: Callable[[ProposalOutputs], Tensor],
    config: ProposalHeadConfig,
) -> list[Detections]:
    """`TalHead.detect` of a proposal head; `scores` gives the score of every proposal, (B, D, L)."""
    mask = mask.to(features.device)
    out = forward(features, mask=mask)
    return proposal_detections(
        out,
        scores=scores(out),
        mask=mask,
        top_k=config.pre_nms_top_k,
        min_score=config.min_score,
        labels_per_proposal=config.labels_per_proposal,
    )
