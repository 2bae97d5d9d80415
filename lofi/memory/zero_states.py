"""What DeepSpeed's ZeRO changes about a step: weights, gradients and optimizer states shared by the ranks, and buckets.

By formula, for 32-bit weights under `torch_autocast` (as this project trains), from reading deepspeed 0.19.8 and from
steps that were counted on a CPU:

    stage   weights          gradients    optimizer                        buckets
    0       4 P              4 P          states                           a flat copy of all gradients, after backward
    1       4 P              4 P          (states + 4 P copy) / ranks      4 x reduce_bucket_size x C, in backward
    2       4 P              4 P / ranks  (states + 4 P copy) / ranks      4 x reduce_bucket_size x C, in backward
    3       4 P / ranks      4 P / ranks  states / ranks                   reduce_bucket_size x c, always, + gathered weights

P: weights that train. C: in how many types gradients travel between ranks; under autocast those of plain linear and
convolution layers in 16 bit and all others in 32, so 2 as a rule, else 1. At stages 1 and 2 each type has a bucket, of 32
bit whatever the type, or two with overlap_comm; at stage 3 each has one bucket of its own type, so that c is 2 + 4 bytes,
or 4 without autocast. Gathered weights stay up to stage3_max_live_parameters, which no encoder here exceeds by default. With the optimizer offloaded its share is on the
host. DeepSpeed's own estimators assume 16-bit weights, so they stand beside the prediction as a reference and are not
part of it (`deepspeed_engine.estimate_model_states`).

How exact: configs/synthetic/full_tiny_actionformer.yaml at 8 snippets in fp32, one rank on a CPU, deepspeed 0.19.8, against
a counted step. Stage 1: 464 bytes too many of 23.2 MB (the optimizer's counts of steps). Stage 3 was 1.7 MB too many of
21.5 MB when two buckets were assumed; since, one is. Stage 2 is not compared. The buckets themselves, their number, size and
type, were read off the engine on a CPU at stages 1, 2 and 3, in fp32 and bf16; with and without overlap_comm at stage 2 in
bf16 alone.

Not confirmed, and not part of the formula: under autocast a bucket of 32 bit is copied to 16 bit to be sent (stages 1
and 2), which adds up to 2 x reduce_bucket_size for that moment; gradients that a bucket of stages 1 and 2 took over are
counted both there and as gradients; and nothing here was measured on several GPUs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

FLOAT_BYTES = 4
HALF_BYTES = 2
DEFAULT_BUCKET = 500_000_000
DEFAULT_LIVE = 1_000_000_000
SENT_IN_HALF = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Under autocast; subclasses are not (`LOWER_PRECISION_SAFE_MODULES` of deepspeed)."""


@dataclass(frozen=True, kw_only=True)
class Zero:
    """The part of a recipe's `deepspeed:` block that decides about memory."""

    stage: int
    world_size: int
    reduce_bucket_elements: int | None = None
    """None: as many as there are gradients, at most DeepSpeed's default (`deepspeed_engine.build_engine` says so)."""
    overlaps: bool = False
    max_live_elements: int = DEFAULT_LIVE
    offloads_optimizer: bool = False
    offloads_weights: bool = False
    sent_bytes: frozenset[int] = frozenset({FLOAT_BYTES})
    """Of one gradient value, in every type in which gradients travel (`sent_bytes_of`)."""

    def bucket_bytes(self, trained_elements: int) -> int:
        """Held while the backward pass runs, at stage 3 always, for so many weights; 0 at stage 0."""
        if self.stage == 0:
            return 0
        elements = self.reduce_bucket_elements
        if elements is None:
            elements = min(trained_elements, DEFAULT_BUCKET)
        if self.stage == 3:
            return elements * sum(self.sent_bytes)
        return FLOAT_BYTES * elements * len(self.sent_bytes) * (2 if self.overlaps else 1)


def read_zero(block: dict[str, Any], *, world_size: int) -> Zero:
    """From the recipe's `deepspeed:` block."""
    section = block.get("zero_optimization", {})
    stage = int(section.get("stage", 0))
    bucket = section.get("reduce_bucket_size")

    def is_offloaded(key: str) -> bool:
        return stage > 0 and section.get(key, {}).get("device", "none") != "none"

    return Zero(
        stage=stage,
        world_size=world_size,
        reduce_bucket_elements=None if bucket is None else int(bucket),
        overlaps=bool(section.get("overlap_comm", False)),
        max_live_elements=int(section.get("stage3_max_live_parameters", DEFAULT_LIVE)),
        offloads_optimizer=is_offloaded("offload_optimizer"),
        offloads_weights=is_offloaded("offload_param"),
    )


def sent_bytes_of(module: nn.Module, *, trained: Iterable[nn.Parameter], autocasts: bool) -> frozenset[int]:
    """Bytes of one gradient value, in every type in which the gradients of the trained weights travel."""
    halved = {
        id(parameter)
        for each in module.modules()
        if autocasts and type(each) in SENT_IN_HALF
        for parameter in each.parameters(recurse=False)
    }
    return frozenset(HALF_BYTES if id(parameter) in halved else FLOAT_BYTES for parameter in trained)


@dataclass(frozen=True, kw_only=True)
class StateBytes:
    """Model states of one rank."""

    parameters: int
    gradients: int
    optimizer: int


def partition_states(
    zero: Zero, *, trained_elements: int, parameters: int, gradients: int, optimizer: int
) -> StateBytes:
    """Bytes at stage 0, at some moment of the step -> those of one rank under ZeRO, at the same moment.

    Args:
        zero: the stage and its options.
        trained_elements: P.
        parameters: bytes of weights and buffers.
        gradients: bytes of the weights' gradients that exist at the moment.
        optimizer: bytes of the optimizer's states.
    """
    if zero.stage == 0:
        return StateBytes(parameters=parameters, gradients=gradients, optimizer=optimizer)
    ranks = zero.world_size
    trained = FLOAT_BYTES * trained_elements
    copy = trained if zero.stage < 3 else 0
    if zero.stage >= 2:
        gradients = _share(gradients, ranks)
    if zero.stage == 3:
        gathered = min(trained, FLOAT_BYTES * zero.max_live_elements)
        kept = 0 if zero.offloads_weights else _share(trained, ranks)
        # On one rank the partition is the weight: gathering copies nothing.
        parameters = parameters - trained + (max(kept, gathered) if ranks == 1 else kept + gathered)
    return StateBytes(
        parameters=parameters,
        gradients=gradients,
        optimizer=0 if zero.offloads_optimizer else _share(optimizer + copy, ranks),
    )


def _share(num_bytes: int, ranks: int) -> int:
    return -(-num_bytes // ranks)
