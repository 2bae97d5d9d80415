"""What DeepSpeed's ZeRO changes about a step: weights, gradients and optimizer states shared by the ranks, and buckets.

By formula, for 32-bit weights under `torch_autocast` (as this project trains), from reading deepspeed 0.19.8 and from
steps that were counted on a CPU:

    stage   weights          gradients    optimizer                        buckets (while the backward pass runs)
    0       4 P              4 P          states                           a flat copy of all gradients, after it
    1       4 P              4 P          (states + 4 P copy) / ranks      4 x reduce_bucket_size
    2       4 P              4 P / ranks  (states + 4 P copy) / ranks      4 x reduce_bucket_size
    3       4 P / ranks      4 P / ranks  states / ranks                   4 x reduce_bucket_size, + gathered weights

P: weights that train. Buckets double with overlap_comm (by default at stage 3 alone). Gathered weights stay up to
stage3_max_live_parameters, which no encoder here exceeds by default. With the optimizer offloaded its share is on the
host. DeepSpeed's own estimators assume 16-bit weights, so they stand beside the prediction as a reference and are not
part of it (`deepspeed_engine.estimate_model_states`).

How exact: configs/synthetic/full_tiny_actionformer.yaml at 8 snippets in fp32, one rank on a CPU, deepspeed 0.19.8, against
a counted step. Stage 1: 464 bytes too many of 23.2 MB (the optimizer's counts of steps). Stage 3: 1.7 MB too many of
21.5 MB: on a CPU one bucket is held, not two, and the gradients are not there any more at the peak. Stage 2 is not compared.
"""

from dataclasses import dataclass
from typing import Any

FLOAT_BYTES = 4
DEFAULT_BUCKET = 500_000_000
DEFAULT_LIVE = 1_000_000_000


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

    def bucket_bytes(self, trained_elements: int) -> int:
        """Held from the start of the backward pass to the optimizer's step, for so many weights; 0 at stage 0."""
        if self.stage == 0:
            return 0
        elements = self.reduce_bucket_elements
        if elements is None:
            elements = min(trained_elements, DEFAULT_BUCKET)
        return FLOAT_BYTES * elements * (2 if self.overlaps else 1)


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
        overlaps=bool(section.get("overlap_comm", stage == 3)),
        max_live_elements=int(section.get("stage3_max_live_parameters", DEFAULT_LIVE)),
        offloads_optimizer=is_offloaded("offload_optimizer"),
        offloads_weights=is_offloaded("offload_param"),
    )


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
