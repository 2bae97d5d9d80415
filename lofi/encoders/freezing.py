"""What of an encoder does not learn: norm layers and first stages. Applied once, at build; `train()` cannot undo it.

A batch norm in training makes a snippet's feature depend on the other snippets of the call, and counts its statistics
once more at every recomputation, so that checkpointed and chunked gradients would not be exact. Every end-to-end detector
in the literature freezes them (AFSD, E2E-TAD and OpenTAD, statistics and mostly the affine weights too), and so do we
unless a recipe says otherwise. Norms per sample (group, layer) have no statistics and are left alone.
"""

from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

NormMode = Literal["frozen", "affine", "train"]
"""frozen: statistics and weights; affine: statistics alone, weights learn; train: an ordinary batch norm."""

NORM_MODES = ("frozen", "affine", "train")


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A batch norm that stays in evaluation."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        return super().train(False)


class FrozenBatchNorm3d(nn.BatchNorm3d):
    """A batch norm that stays in evaluation."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm3d":
        return super().train(False)


FROZEN_BATCH_NORMS: dict[type[nn.Module], type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    nn.BatchNorm2d: FrozenBatchNorm2d,
    nn.BatchNorm3d: FrozenBatchNorm3d,
}


def freeze_norms(module: nn.Module, *, mode: NormMode = "frozen") -> None:
    """Replace every batch norm inside by one that stays in evaluation, with the same weights and state dict keys."""
    if mode not in NORM_MODES:
        raise ValueError(f"encoder.norm is {mode!r}; it must be one of {', '.join(NORM_MODES)}.")
    if mode == "train":
        return
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            frozen_class = FROZEN_BATCH_NORMS.get(type(child))
            if frozen_class is not None:
                assert isinstance(child, _BatchNorm)
                setattr(parent, name, _frozen_copy(child, frozen_class))
    if mode == "frozen":
        for child in module.modules():
            if isinstance(child, _BatchNorm):
                child.requires_grad_(False)


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
    frozen = tuple(FROZEN_BATCH_NORMS.values())
    return all(isinstance(child, frozen) for child in module.modules() if isinstance(child, _BatchNorm))


def _frozen_copy(
    norm: _BatchNorm, frozen_class: type[nn.BatchNorm2d] | type[nn.BatchNorm3d]
) -> nn.BatchNorm2d | nn.BatchNorm3d:
    frozen = frozen_class(
        norm.num_features, eps=norm.eps, momentum=norm.momentum, affine=norm.affine, track_running_stats=True
    )
    frozen.weight, frozen.bias = norm.weight, norm.bias
    frozen.running_mean, frozen.running_var = norm.running_mean, norm.running_var
    frozen.num_batches_tracked = norm.num_batches_tracked
    return frozen.eval()
