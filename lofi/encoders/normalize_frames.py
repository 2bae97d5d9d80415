"""The first step of every encoder: uint8 frames -> floats, normalised per colour.

Float frames take four times the bytes of uint8 (twice in half precision), so they are made here, inside the call that
uses them, in the type that the first convolution computes in, and live no longer than it needs them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""What torchvision's and TSM's ResNets were trained with."""

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)
"""What torchvision's and TSP's R(2+1)D were trained with."""


class NormalizeFrames(nn.Module):
    """(frames / 255 - mean) / std, in the dtype that `Module.to` gives the encoder; under autocast in autocast's, rounded once
    from there."""

    scale: Tensor
    shift: Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean, self.std = tuple(mean), tuple(std)
        scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        # Not in the state dict: they are facts of the encoder, not weights.
        self.register_buffer("scale", scale.to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("shift", shift.to(torch.get_default_dtype()), persistent=False)

    @torch.no_grad()
    def forward(self, frames: Tensor, *, order: str) -> Tensor:
        """Cast and normalise.

        Args:
            frames: (N, 3, T, H, W) uint8 RGB.
            order: the order of the result's axes, a permutation of "NCTHW".

        Returns:
            Contiguous in that order, float.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[1] != 3:
            raise ValueError(
                f"frames are {tuple(frames.shape)} {frames.dtype}; an encoder takes (N, 3, T, H, W) uint8 RGB."
            )
        ordered = frames.permute(*("NCTHW".index(axis) for axis in order))
        colour_shape = [3 if axis == "C" else 1 for axis in order]
        scale, shift = self.scale.view(colour_shape), self.shift.view(colour_shape)
        device_type = frames.device.type
        if torch.is_autocast_enabled(device_type):
            # One pass over the frames, with no copy of them in the wider type.
            half = torch.empty(
                ordered.shape, dtype=torch.get_autocast_dtype(device_type), device=frames.device
            )
            return torch.addcmul(shift, ordered, scale, out=half)
        floats = ordered.to(self.scale.dtype, memory_format=torch.contiguous_format)
        return floats.mul_(scale).add_(shift)
