"""What a pyramid's heads say at each location, and its two losses: of ActionFormer, and of TriDet on the same locations.

Sources: ActionFormer (ECCV 2022), section 3.3: focal loss of every valid location and distance-IoU loss of those that learn a
segment, both divided by a running mean of the number of positive locations. TriDet (CVPR 2023), section 3.4: what a location
learns counts in the classification loss by its tIoU to a power.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lofi.heads.actionformer.config import PyramidHeadConfig
from lofi.heads.actionformer.losses import (
    distance_iou_loss,
    location_tiou,
    running_share,
    sigmoid_focal_loss,
    smoothed,
)
from lofi.heads.actionformer.pyramid import Locations
from lofi.heads.actionformer.targets import assign_targets
from lofi.protocols import StepLosses
from lofi.segments import Targets


@dataclass(frozen=True, kw_only=True)
class LocationOutputs:
    """logits (B, M, K); distances (B, M, K or 1, 2) >= 0, strides, of each class or the same for all; mask (B, M) bool;
    locations (M,). float32 or wider."""

    logits: Tensor
    distances: Tensor
    mask: Tensor
    locations: Locations


def location_losses(
    out: LocationOutputs,
    *,
    targets: Sequence[Targets],
    config: PyramidHeadConfig,
    normalizer: Tensor,
    moves: bool,
    tiou_power: float = 0.0,
) -> StepLosses:
    """The step's losses. Without any valid location they are 0.

    Args:
        out: of B windows.
        targets: B of them, in snippet index.
        config: of the head.
        normalizer: scalar buffer, the running mean of positive locations; changed in place where it moves.
        moves: in training.
        tiou_power: above 0 only with distances of each class.
    """
    with torch.autocast(out.logits.device.type, enabled=False):
        wanted = assign_targets(
            targets,
            locations=out.locations,
            num_classes=out.logits.shape[2],
            centre_radius=config.centre_radius,
            class_agnostic=config.class_agnostic,
        )
        is_positive = wanted.is_positive & out.mask
        per = running_share(
            normalizer, is_positive.sum(), momentum=config.loss_normalizer_momentum, moves=moves
        ).to(out.logits.dtype)
        is_of_all = out.distances.shape[2] == 1
        is_learned = (  # (B, M, K or 1)
            is_positive[..., None] if is_of_all else (wanted.classes > 0) & out.mask[..., None]
        )
        distances = wanted.distances[:, :, None].expand_as(out.distances)
        focal = sigmoid_focal_loss(out.logits, smoothed(wanted.classes, share=config.label_smoothing))
        if tiou_power > 0.0:
            tiou = location_tiou(out.distances.detach(), distances)
            focal = torch.where(is_learned, tiou**tiou_power, 1.0) * focal
        classification = torch.where(out.mask, focal.sum(dim=2), 0.0).sum() / per
        distance = distance_iou_loss(out.distances, distances)
        regression = torch.where(is_learned, distance, 0.0).sum() / per
        total = classification + config.regression_weight * regression
    return StepLosses(
        total=total,
        parts={"classification": classification.detach(), "regression": regression.detach()},
    )
