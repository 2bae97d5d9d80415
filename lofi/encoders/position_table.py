"""VideoMAE's table of positions: fixed sines and cosines, interpolated in time and space for other grids of tubelets."""

import torch
from torch import Tensor
from torch.nn import functional as F


def sine_table(num_positions: int, *, width: int) -> Tensor:
    """(num_positions, width): sines and cosines in turn, of wavelengths from 2 pi to 20000 pi (Vaswani et al. 2017, 3.5)."""
    positions = torch.arange(num_positions, dtype=torch.float64)[:, None]
    place = torch.arange(width)
    angles = positions / 10000 ** (2 * (place // 2).double() / width)
    return torch.where(place % 2 == 0, angles.sin(), angles.cos()).to(torch.get_default_dtype())


def interpolate_table(table: Tensor, *, grid: tuple[int, ...], to: tuple[int, ...]) -> Tensor:
    """Position codes of one grid of tubelets -> of another.

    Args:
        table: (T * H * W, D), row by row.
        grid: its T, H, W.
        to: T', H', W'.

    Returns:
        (T' * H' * W', D): linear in time, bicubic in space; the table itself where the grids are equal.
    """
    if grid == to:
        return table
    codes_THWD = table.unflatten(0, grid)
    if grid[0] != to[0]:
        lines = codes_THWD.permute(1, 2, 3, 0).flatten(0, 1)
        lines = F.interpolate(lines, size=to[0], mode="linear", align_corners=False)
        codes_THWD = lines.unflatten(0, grid[1:]).permute(3, 0, 1, 2)
    if grid[1:] != to[1:]:
        planes = codes_THWD.permute(0, 3, 1, 2)
        planes = F.interpolate(planes, size=to[1:], mode="bicubic", align_corners=False)
        codes_THWD = planes.permute(0, 2, 3, 1)
    return codes_THWD.flatten(0, 2)
