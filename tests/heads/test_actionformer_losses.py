"""The two losses against torchvision's and by hand."""

import torch
from torchvision.ops import distance_box_iou_loss
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from lofi.heads.actionformer.losses import distance_iou_loss, sigmoid_focal_loss


def test_focal_loss_equals_torchvision() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 5, dtype=torch.float64) * 4
    classes = (torch.rand(3, 7, 5) < 0.3).double()
    torch.testing.assert_close(sigmoid_focal_loss(logits, classes), torchvision_focal_loss(logits, classes))


def test_distance_iou_loss_equals_torchvision_for_boxes_of_no_height() -> None:
    torch.manual_seed(0)
    predicted, wanted = torch.rand(2, 11, 2, dtype=torch.float64) * 5 + 0.1

    def boxes(distances: torch.Tensor) -> torch.Tensor:
        flat = torch.zeros(11)
        return torch.stack([10 - distances[:, 0], flat, 10 + distances[:, 1], flat + 1e-4], dim=1)

    expected = distance_box_iou_loss(boxes(predicted), boxes(wanted), eps=0.0)
    torch.testing.assert_close(distance_iou_loss(predicted, wanted), expected, atol=1e-9, rtol=0)


def test_distance_iou_loss_is_zero_for_the_same_segment_and_finite_for_an_empty_one() -> None:
    wanted = torch.tensor([2.0, 3.0], dtype=torch.float64)
    assert distance_iou_loss(wanted, wanted).item() == 0.0
    empty = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    loss = distance_iou_loss(empty, wanted)
    loss.backward()
    assert loss.item() == 1.0 + (0.5 / 5.0) ** 2
    assert empty.grad is not None
    assert (empty.grad < 0).any()
