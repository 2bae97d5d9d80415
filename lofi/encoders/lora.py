"""LoRA: beside frozen linear layers, updates of low rank that learn (Hu et al., ICLR 2022, arXiv:2106.09685).

A layer W becomes W + B A, A of shape (r, in), B of shape (out, r) and zero at first, so that nothing changes; scale 1
(the paper's alpha equals r). It is on the layers of attention (section 4.2), which is where the paper has it. After
training B A is added to W, and the network has its published form again (`merge_lora`).

It is written out here, since it is short, and peft, which has it too, stands on transformers and accelerate, gives
the frozen layers other names, and draws its dropout for all snippets of a call together.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lofi.encoders.temporal_adapter import TemporalAdapter


class LowRank(nn.Module):
    """x -> B A x."""

    def __init__(self, num_in: int, num_out: int, *, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(num_in, rank, bias=False)
        self.up = nn.Linear(rank, num_out, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        result: Tensor = self.up(self.down(x))
        return result

    def matrix(self) -> Tensor:
        """B A, (out, in)."""
        return self.up.weight @ self.down.weight


class LoraLinear(nn.Linear):
    """A linear layer of the same names and weights with its update beside it, under the name `adapter`."""

    def __init__(self, base: nn.Linear, *, rank: int) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.adapter = LowRank(base.in_features, base.out_features, rank=rank)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        result: Tensor = F.linear(x, self.weight, self.bias) + self.adapter(x)
        return result

    def merged(self) -> nn.Linear:
        """The plain layer that computes the same."""
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        plain.weight = nn.Parameter((self.weight + self.adapter.matrix()).detach(), requires_grad=False)
        plain.bias = self.bias
        return plain


def add_lora(encoder: nn.Module, blocks: Iterable[nn.Module], *, rank: int) -> None:
    """Give the attention of every block updates of a rank. They, the layer norms, and temporal adapters are then all of the
    encoder that learns."""
    for block in blocks:
        attention = block.get_submodule("attn")
        for name, child in list(attention.named_children()):
            if isinstance(child, nn.Linear):
                setattr(attention, name, LoraLinear(child, rank=rank))
    encoder.requires_grad_(False)
    for module in encoder.modules():
        if isinstance(module, LowRank | TemporalAdapter | nn.LayerNorm):
            module.requires_grad_(True)


@torch.no_grad()
def merge_lora(encoder: nn.Module) -> bool:
    """Add every update to its layer, in place; whether there was any."""
    found = [
        (parent, name, child)
        for parent in encoder.modules()
        for name, child in parent.named_children()
        if isinstance(child, LoraLinear)
    ]
    for parent, name, child in found:
        setattr(parent, name, child.merged())
    return bool(found)
