"""Sigmoid focal loss and one-dimensional distance-IoU loss, element by element.

Sources: Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 5; Zheng et al., "Distance-IoU loss",
AAAI 2020, equation 7, in one dimension; together as in ActionFormer (ECCV 2022), section 3.3.
Both return a value for every location, so that a mask chooses without a shape that depends on the data.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_LENGTH = 1e-8


def sigmoid_focal_loss(logits: Tensor, classes: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of each logit against 0 or 1. Any shape, the same for both."""
    probability = torch.sigmoid(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    probability_wrong = probability + classes - 2.0 * probability * classes
    weight = alpha * classes + (1.0 - alpha) * (1.0 - classes)
    return weight * probability_wrong**gamma * cross_entropy


def distance_iou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """1 - tIoU + (distance of the centres / length of the hull)^2 of segments seen from the same location.

    Args:
        predicted: (..., 2) distances >= 0 to start and to end.
        wanted: (..., 2) the same unit.

    Returns:
        (...), between 0 and 2.
    """
    intersection = torch.minimum(predicted, wanted).sum(dim=-1)
    union = predicted.sum(dim=-1) + wanted.sum(dim=-1) - intersection
    hull = torch.maximum(predicted, wanted).sum(dim=-1).clamp(min=SMALLEST_LENGTH)
    difference = predicted - wanted
    centre_distance = 0.5 * (difference[..., 1] - difference[..., 0])
    return 1.0 - intersection / union.clamp(min=SMALLEST_LENGTH) + (centre_distance / hull) ** 2
