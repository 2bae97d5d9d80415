"""What of an encoder does not learn: norm layers and first stages. Applied once, at build; `train()` cannot undo it.

A batch norm in training makes a snippet's feature depend on the other snippets of the call, and counts its statistics
once more at every recomputation, so that checkpointed and chunked gradients would not be exact. Every end-to-end
detector in the literature freezes them (AFSD, E2E-TAD and OpenTAD, statistics and mostly the affine weights too), and
so do we unless a recipe says otherwise. Norms per sample (group, layer) have no statistics and are left alone.
"""

from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

NormMode = Literal["frozen", "affine", "train"]
"""frozen: statistics and weights; affine: statistics alone, weights learn; train: an ordinary batch norm."""

NORM_MODES = ("frozen", "affine", "train")


class StaysInEvaluation(nn.Module):
    """What a frozen norm is beside its own class: `train()` leaves it in evaluation."""

    def train(self, mode: bool = True) -> "StaysInEvaluation":
        return super().train(False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies by its own class: the class of both is made at run time, and has no place in a module."""
        return _new_frozen, (type(self).__bases__[1],), self.__dict__


FROZEN_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}
"""A library's norm -> the same that stays in evaluation, filled as they are met."""


def _frozen_class(norm_class: type[nn.Module]) -> type[nn.Module]:
    if norm_class not in FROZEN_CLASSES:
        bases = (StaysInEvaluation, norm_class)
        FROZEN_CLASSES[norm_class] = type(f"Frozen{norm_class.__name__}", bases, {})
    return FROZEN_CLASSES[norm_class]


def _new_frozen(norm_class: type[nn.Module]) -> nn.Module:
    frozen_class = _frozen_class(norm_class)
    return frozen_class.__new__(frozen_class)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a layer has statistics over the batch: PyTorch's, their subclasses (timm's), others that keep a variance."""
    return isinstance(module, _BatchNorm) or module._buffers.get("running_var") is not None


def freeze_norms(module: nn.Module, *, mode: NormMode = "frozen") -> None:
    """Let every batch norm inside stay in evaluation, in place: weights, names and what it computes are as before."""
    if mode not in NORM_MODES:
        raise ValueError(f"encoder.norm is {mode!r}; it must be one of {', '.join(NORM_MODES)}.")
    if mode == "train":
        return
    for norm in filter(is_batch_norm, module.modules()):
        if not isinstance(norm, StaysInEvaluation):
            norm.__class__ = _frozen_class(type(norm))
            norm.train()
        if mode == "frozen":
            norm.requires_grad_(False)


def freeze_stages(stages: list[nn.Module], *, count: int) -> None:
    """Freeze the first `count` stages, batch norms included."""
    if not 0 <= count <= len(stages):
        raise ValueError(
            f"encoder.frozen_stages is {count}; this encoder has {len(stages)} stages, the stem among them: "
            f"0 to {len(stages)} are allowed."
        )
    for stage in stages[:count]:
        freeze_norms(stage, mode="frozen")
        stage.requires_grad_(False)


def norm_is_frozen(module: nn.Module) -> bool:
    """Whether no norm layer inside mixes the samples of a batch: the condition of exact chunked gradients."""
    norms = filter(is_batch_norm, module.modules())
    # Without running statistics those of the batch are taken, in evaluation too.
    return all(
        isinstance(norm, StaysInEvaluation) and norm._buffers["running_var"] is not None for norm in norms
    )
