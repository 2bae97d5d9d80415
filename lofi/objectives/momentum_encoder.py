"""A slowly moving copy of a module (MoCo, He et al., CVPR 2020, arXiv:1911.05722): its weights are a moving average.

The copy's weights are buffers, not parameters: no optimizer and no ZeRO stage sees them, every rank's checkpoint file has them
(so a run resumes bit for bit), and the exported weights have not.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class MomentumCopy(nn.Module):
    """A copy of a module, always in evaluation, without gradient."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # The clones are made here, since fake tensors (planning) cannot be copied deeply.
        clones = {id(tensor): tensor.detach().clone() for tensor in (*module.parameters(), *module.buffers())}
        self.module = _without_parameters(copy.deepcopy(module, memo=clones)).eval()

    def train(self, mode: bool = True) -> "MomentumCopy":
        return super().train(False)

    @torch.no_grad()
    def follow(self, module: nn.Module, *, momentum: float) -> None:
        """Move every weight by 1 - momentum towards the module's; its buffers are taken over.

        With gradient accumulation it is called several times for a step of the optimizer.
        """
        mine = dict(self.module.named_buffers())
        weights = [(mine[name], parameter) for name, parameter in module.named_parameters()]
        torch._foreach_lerp_([own for own, _ in weights], [each for _, each in weights], 1 - momentum)
        for name, buffer in module.named_buffers():
            mine[name].copy_(buffer)

    @torch.no_grad()
    def forward(self, *args: Any, **options: Any) -> Tensor:
        output: Tensor = self.module(*args, **options)
        return output


def _without_parameters(module: nn.Module) -> nn.Module:
    """Every parameter and buffer in its place as a buffer that no state dict holds."""
    for part in module.modules():
        for name, value in [*part._parameters.items(), *part._buffers.items()]:
            if value is None:
                continue
            delattr(part, name)
            part.register_buffer(name, value, persistent=False)
    return module
