"""Sigmoid focal loss and one-dimensional distance-IoU loss, element by element, and what their sums are divided by.

Sources: Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 5; Zheng et al., "Distance-IoU loss",
AAAI 2020, equation 7, in one dimension; together as in ActionFormer (ECCV 2022), section 3.3.
Both return a value for every location, so that a mask chooses without a shape that depends on the data.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lofi.heads.rank_counts import rank_share, ranks_together

SMALLEST_LENGTH = 1e-8


def sigmoid_focal_loss(logits: Tensor, classes: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of each logit against a target in [0, 1]. Any shape, the same for both."""
    probability = torch.sigmoid(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    probability_wrong = probability + classes - 2.0 * probability * classes
    weight = alpha * classes + (1.0 - alpha) * (1.0 - classes)
    return weight * probability_wrong**gamma * cross_entropy


def smoothed(classes: Tensor, *, share: float) -> Tensor:
    """classes (..., K) 0 or 1 -> a `share` of each spread over the K classes and background."""
    return classes * (1.0 - share) + share / (classes.shape[-1] + 1)


def location_tiou(predicted: Tensor, wanted: Tensor) -> Tensor:
    """tIoU of segments seen from the same location: (..., 2) distances >= 0 to start and end, the same unit -> (...)."""
    intersection = torch.minimum(predicted, wanted).sum(dim=-1)
    union = predicted.sum(dim=-1) + wanted.sum(dim=-1) - intersection
    return intersection / union.clamp(min=SMALLEST_LENGTH)


def distance_iou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """1 - tIoU + (distance of the centres / length of the hull)^2 of segments seen from the same location.

    Args:
        predicted: (..., 2) distances >= 0 to start and to end.
        wanted: (..., 2) the same unit.

    Returns:
        (...), between 0 and 2.
    """
    hull = torch.maximum(predicted, wanted).sum(dim=-1).clamp(min=SMALLEST_LENGTH)
    difference = predicted - wanted
    centre_distance = 0.5 * (difference[..., 1] - difference[..., 0])
    return 1.0 - location_tiou(predicted, wanted) + (centre_distance / hull) ** 2


@torch.no_grad()
def running_share(mean: Tensor, num_positive: Tensor, *, momentum: float, moves: bool) -> Tensor:
    """One rank's share of the running mean of positive locations per batch; in training a step moves the mean first.

    The mean is over the batch of all ranks together, so that their mean loss is the loss of one rank on that batch.

    Args:
        mean: scalar buffer, changed in place where it moves.
        num_positive: of this rank's batch.
        momentum: how much of the mean stays.
        moves: in training.
    """
    num_ranks = ranks_together()
    if moves:
        count = rank_share(num_positive.to(mean.dtype)) * num_ranks
        mean.lerp_(count.clamp(min=1.0), 1.0 - momentum)
    return mean / num_ranks
