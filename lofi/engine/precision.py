"""Mixed precision through DeepSpeed's `torch_autocast`: weights, norm buffers and optimizer states stay float32.

Two combinations give silently wrong gradients and are refused here (DeepSpeed 0.19.8, torch 2.15):
- fp16 at ZeRO stages 1 to 3: gradient clipping takes the norm of the *scaled* gradients, which shrinks every update by the
  loss scale; and after an overflow the scale does not fall, so that every later step is skipped too (by reading).
- bf16 on a CPU: the weight gradient of a temporal convolution is garbage where its input has exactly two frames, which
  (2+1)D encoders reach for every usual snippet length.
"""

from typing import Any, Literal

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def resolve_precision(precision: Precision, *, device_type: str, has_bf16: bool, zero_stage: int) -> str:
    """`auto` is fp32 on a CPU; on a GPU bf16 where it has it, else fp16 at ZeRO stage 0 and fp32 at the others."""
    if precision != "auto":
        return precision
    if device_type == "cpu":
        return "fp32"
    if has_bf16:
        return "bf16"
    return "fp16" if zero_stage == 0 else "fp32"


def device_has_bf16(device: torch.device) -> bool:
    """True for a GPU that computes in bf16 itself; emulation, as on a V100, does not count."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def check_precision(
    precision: str,
    *,
    device_type: str,
    zero_stage: int,
    has_temporal_convolution: bool,
) -> None:
    """Raise ValueError for the combinations that train wrongly in silence; says what to set instead."""
    if precision == "fp16" and zero_stage >= 1:
        raise ValueError(
            f"train.precision: fp16 at ZeRO stage {zero_stage} clips the scaled gradients, so that weights hardly move, "
            "and never lowers a loss scale that overflows (DeepSpeed 0.19.8); use deepspeed.zero_optimization.stage: 0, "
            "or train.precision: bf16 (a GPU from Ampere on) or fp32."
        )
    if precision == "bf16" and device_type == "cpu" and has_temporal_convolution:
        raise ValueError(
            "train.precision: bf16 on a CPU gives wrong gradients for this encoder's temporal convolutions (a fault of "
            "the CPU kernel for two-frame inputs); use train.precision: fp32 (or auto)."
        )


def autocast_section(precision: str) -> dict[str, Any]:
    """The `torch_autocast` section of DeepSpeed's configuration; empty for fp32."""
    if precision == "fp32":
        return {}
    dtype = {"bf16": "bfloat16", "fp16": "float16"}[precision]
    return {"torch_autocast": {"enabled": True, "dtype": dtype}}
