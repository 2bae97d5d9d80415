"""A running mean of the trained weights, which is what a run evaluates, saves and hands on.

Source: ActionFormer's code, which evaluates such a mean with a decay of 0.999 (Polyak and Juditsky, 1992, give the idea). The
optimizer goes on from the weights themselves. A checkpoint's `weights.safetensors` holds the means (and all else as it is), so a
resumed run reads them there; DeepSpeed's own files hold the weights. The means take 4 bytes per trained weight on every rank.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """mean <- decay x mean + (1 - decay) x weight, of every weight that trains; the weights must be whole on each rank."""

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        """The means start as the weights are now."""
        self._weights = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._means = {name: p.detach().clone() for name, p in self._weights.items()}
        self._move = get_ema_multi_avg_fn(decay)

    @property
    def tensors(self) -> list[Tensor]:
        """The means, in the order of the module's trained weights."""
        return list(self._means.values())

    @torch.no_grad()
    def update(self) -> None:
        """Move the means towards the weights: once after each step of the optimizer."""
        self._move(self.tensors, [p.detach() for p in self._weights.values()], 0)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the module has the means for weights; nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def load(self, weights: Path) -> None:
        """Read the means of a checkpoint's weights.safetensors."""
        with safe_open(weights, framework="pt") as file:
            for name, mean in self._means.items():
                mean.copy_(file.get_tensor(name))

    def _swap(self) -> None:
        for name, weight in self._weights.items():
            weight.data, self._means[name] = self._means[name], weight.data
