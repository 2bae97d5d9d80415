"""Optimizers and parameter groups: encoder, adapter and everything else; the encoder may have its own learning rate.

Plain `torch.optim` classes, so that every ZeRO stage takes them without compiling anything; and, where bitsandbytes is
installed, its AdamW with states of 8 bits. (torchao's was tried, 0.18: it compiles its step, a minute on a CPU, and keeps 32
bits, in silence, for every tensor whose size is no multiple of 256.)
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class SgdConfig:
    """Stochastic gradient descent; LoFi's own: momentum 0, lr 0.1, weight decay 1e-4 (section 4.2)."""

    lr: float = 0.1
    """Base learning rate of everything but the encoder."""
    encoder_lr: float | None = None
    """Base learning rate of the encoder; null is the same as `lr` (LoFi gives one rate)."""
    encoder_layer_decay: float = 1.0
    """Factor on the encoder's rate from each block to the one before it, in (0, 1]; 1 is one rate for all."""
    momentum: float = 0.0
    """In [0, 1)."""
    weight_decay: float = 1e-4
    """L2 penalty."""

    def __post_init__(self) -> None:
        _check_rates(self.lr, self.encoder_lr, self.weight_decay, self.encoder_layer_decay)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optimizer.momentum is {self.momentum}; it must lie in [0, 1).")


@dataclass(frozen=True, kw_only=True)
class AdamwConfig:
    """Adam with decoupled weight decay, of the weights of linear layers and convolutions alone (`is_decayed`)."""

    lr: float = 1e-4
    """Base learning rate of everything but the encoder."""
    encoder_lr: float | None = None
    """Base learning rate of the encoder; null is the same as `lr`."""
    encoder_layer_decay: float = 1.0
    """Factor on the encoder's rate from each block to the one before it, in (0, 1]; 1 is one rate for all."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    weight_decay: float = 0.05
    """Decoupled, on the weights of linear layers and convolutions; never on biases, norms, scales, tokens and position tables."""

    def __post_init__(self) -> None:
        _check_rates(self.lr, self.encoder_lr, self.weight_decay, self.encoder_layer_decay)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name} is {getattr(self, name)}; it must lie in [0, 1).")


@dataclass(frozen=True, kw_only=True)
class Adamw8bitConfig(AdamwConfig):
    """AdamW with 8-bit states (Dettmers et al., ICLR 2022, arXiv:2110.02861), of bitsandbytes: 2 bytes per weight in place
    of 8. Each stretch of 256 values has a scale of its own; tensors of fewer than 4096 elements keep states of 32 bits (at
    ZeRO stages 1 to 3, where all weights lie in flat partitions, none does). Needs the extra `lowmem`.
    """


OptimizerConfig = SgdConfig | AdamwConfig

OPTIMIZERS: dict[str, type[SgdConfig] | type[AdamwConfig]] = {
    "sgd": SgdConfig,
    "adamw": AdamwConfig,
    "adamw_8bit": Adamw8bitConfig,
}


def parameter_groups(module: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Group the parameters that require grad by role (`encoder.*`, `adapter.*` or not) and, for AdamW, by kind (`is_decayed`);
    the encoder's also by depth where its learning rate decays from block to block.

    The layer-wise decay is that of BEiT and VideoMAE (arXiv:2106.08254, appendix): with factor d and blocks 0 to n - 1 (the
    embedding is 0, a norm behind the last attention is n - 1), block i learns at d ** (n - 1 - i) times the encoder's rate.

    Frozen parameters are left out. Every group carries its `name`, which the log uses.
    """
    depths = _encoder_depths(module) if config.encoder_layer_decay < 1 else {}
    groups: dict[tuple[str, int, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            block = name.partition(".")[0]
            role = block if block in ("encoder", "adapter") else "head"
            decays = isinstance(config, SgdConfig) or is_decayed(name, parameter)
            depth = depths.get(id(parameter), -1)
            groups.setdefault((role, depth, decays), []).append(parameter)
    encoder_lr = config.lr if config.encoder_lr is None else config.encoder_lr
    last = max(depths.values(), default=-1)
    return [
        {
            "name": (role if depth < 0 else f"{role}_{depth}") + ("" if decays else "_no_decay"),
            "params": parameters,
            "lr": encoder_lr * (1.0 if depth < 0 else config.encoder_layer_decay ** (last - depth))
            if role == "encoder"
            else config.lr,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (role, depth, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether AdamW decays a parameter: the weights of linear layers and convolutions, which have more than one dimension and a
    name that ends in "weight", and nothing else.

    The rule of ActionFormer's and TriDet's code, whose scales of residual branches, of shape (C, 1), do not decay; of VideoMAE's
    and Swin's, whose tokens and position tables do not. SGD decays everything, as LoFi states it.
    """
    return parameter.ndim > 1 and name.endswith("weight")


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer over `parameter_groups`; ValueError where nothing is left to train, or a library is missing. AdamW updates
    by fused kernels on every device, which were measured to win; they read a gradient as its weight lies, so give both the
    same strides, as autograd does."""
    groups = parameter_groups(module, config)
    if not groups:
        raise ValueError("no parameter is left to train: every module of this recipe is frozen.")
    if isinstance(config, SgdConfig):
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    if isinstance(config, Adamw8bitConfig):
        optimizer: torch.optim.Optimizer = _adamw_8bit()(
            groups, lr=config.lr, betas=(config.beta1, config.beta2)
        )
        return optimizer
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2))
    use_fused_kernels(adamw)
    return adamw


def use_fused_kernels(optimizer: torch.optim.Optimizer) -> None:
    """Let PyTorch's own optimizers update each weight in one kernel, in place. On CUDA their default takes all weights through
    one operation at a time, with temporaries as large as all weights together.

    The groups say it and not the constructor: an optimizer that is built with `fused=True` asks DeepSpeed's fp16 scaler to
    leave steps that overflowed to it, and SGD's kernel then keeps a momentum that was never written (torch 2.15)."""
    for group in optimizer.param_groups:
        if "fused" in group:
            group["fused"], group["foreach"] = True, False


def _adamw_8bit() -> Any:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ValueError(
            f"optimizer.name: adamw_8bit needs bitsandbytes ({error}); install it with pip install 'lofi-sola[lowmem]', "
            "or use optimizer.name: adamw."
        ) from error
    return AdamW8bit


def _encoder_depths(module: nn.Module) -> dict[int, int]:
    """id of each of the encoder's parameters -> the place of its block, from 0 at the input; what lies outside of the blocks
    (position tables, class tokens, poolings) counts to the block before it."""
    encoder: Any = getattr(module, "encoder", None)
    if encoder is None:
        return {}
    depths = {
        id(parameter): place
        for place, block in enumerate(encoder.all_blocks)
        for parameter in block.parameters()
    }
    last = 0
    for parameter in encoder.parameters():
        last = depths.setdefault(id(parameter), last)
    return depths


def _check_rates(
    lr: float, encoder_lr: float | None, weight_decay: float, encoder_layer_decay: float
) -> None:
    for name, value in (("lr", lr), ("encoder_lr", encoder_lr), ("weight_decay", weight_decay)):
        if value is not None and value < 0:
            raise ValueError(f"optimizer.{name} is {value}; it must not be negative.")
    if not 0 < encoder_layer_decay <= 1:
        raise ValueError(
            f"optimizer.encoder_layer_decay is {encoder_layer_decay}; it must be greater than 0 and at most 1."
        )
