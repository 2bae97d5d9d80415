"""The temporal shift (Lin et al., ICCV 2019, arXiv:1811.08383): a residual branch that sees the frames beside its own.

Of C channels the first C // 8 show the next frame, the following C // 8 the frame before, zeros where the snippet
ends; the shift never leaves the snippet.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def shift_frames(x: Tensor, *, fraction: float) -> Tensor:
    """Show some channels of the next frame, some of the frame before.

    Args:
        x: (N, T, C, H, W).
        fraction: share of the C channels shifted each way, rounded down.

    Returns:
        (N, T, C, H, W): of the first channels x[t + 1], of as many that follow x[t - 1], of the rest x[t]; zeros outside
        the snippet.
    """
    num_shifted = int(x.shape[2] * fraction)
    if num_shifted == 0:
        return x
    from_next, from_before, rest = x.split([num_shifted, num_shifted, x.shape[2] - 2 * num_shifted], dim=2)
    from_next = F.pad(from_next[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
    from_before = F.pad(from_before[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([from_next, from_before, rest], dim=2)


def shift_branch(block: nn.Module, branch: str, *, fraction: float) -> None:
    """Let the module `branch` of a residual block, and not its shortcut, see shifted frames.

    The block then takes frames folded into the batch, (N * T, C, H, W), and T, which hooks take off and hand to the branch
    each time that the block runs, also when a checkpoint runs it again: its forward function stays the library's.
    """
    module: Any = block.get_submodule(branch)
    module.shift_fraction = fraction
    module.num_frames = 1
    module.register_forward_pre_hook(_shift_input)
    holder: Any = block
    holder.shifted_branch = branch
    block.register_forward_pre_hook(_tell_num_frames)


def _tell_num_frames(block: Any, arguments: tuple[Any, ...]) -> tuple[Tensor]:
    x_FCHW, num_frames = arguments
    block.get_submodule(block.shifted_branch).num_frames = num_frames
    return (x_FCHW,)


def _shift_input(branch: Any, arguments: tuple[Tensor]) -> tuple[Tensor]:
    x_NTCHW = arguments[0].unflatten(0, (-1, branch.num_frames))
    return (shift_frames(x_NTCHW, fraction=branch.shift_fraction).flatten(0, 1),)
