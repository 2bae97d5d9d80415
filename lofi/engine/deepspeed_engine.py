"""DeepSpeed, and nothing else, lives here: start-up, the engine, agreement between ranks, its checkpoint files.

Works under the `deepspeed` launcher, under any launcher that sets RANK, LOCAL_RANK and WORLD_SIZE, and as one plain
process; on CUDA (nccl) and on CPU (gloo). Written for DeepSpeed 0.19.8.
"""

import atexit
import logging
import math
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lofi.engine.optimizers import use_fused_kernels

OWNED_KEYS = {
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "train.batch_size",
    "gradient_clipping": "train.gradient_clipping",
    "torch_autocast": "train.precision",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "optimizer": "optimizer",
    "scheduler": "schedule",
    "amp": "train.precision",
}
"""DeepSpeed keys that the recipe states in its own words; every other key passes through."""

KNOWN_KEYS = (
    *OWNED_KEYS, "activation_checkpointing", "aio", "autotuning", "checkpoint", "comet", "comms_logger",
    "communication_data_type", "compile", "compression_training", "csv_monitor", "curriculum_learning",
    "data_efficiency", "data_types", "dataloader_drop_last", "disable_allgather", "dump_state", "eigenvalue",
    "elasticity", "flops_profiler", "gradient_accumulation_steps", "gradient_predivide_factor", "graph_harvesting",
    "hybrid_engine", "memory_breakdown", "nebula", "pipeline", "prescale_gradients", "progressive_layer_drop",
    "quantize_training", "sequence_parallel_size", "sparse_attention", "sparse_gradients", "steps_per_print",
    "tensor_parallel", "tensorboard", "timers", "use_node_local_storage", "wall_clock_breakdown", "wandb",
    "weight_quantization", "zenflow", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer",
    "zero_optimization",
)  # fmt: skip
"""DeepSpeed's documented top-level keys, to tell a misspelt one: DeepSpeed itself ignores those in silence."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Where this process stands among the ranks."""

    rank: int
    world_size: int
    device: torch.device


def start_ranks() -> Ranks:
    """Join the process group (once per process) and return this rank's place and device."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("RANK", "0")
    os.environ.setdefault("WORLD_SIZE", "1")
    os.environ.setdefault("LOCAL_RANK", "0")
    os.environ.setdefault("LOCAL_SIZE", os.environ["WORLD_SIZE"])
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    if "MASTER_PORT" not in os.environ:
        if os.environ["WORLD_SIZE"] != "1":
            raise ValueError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']} but MASTER_PORT is not set; start the ranks with `deepspeed` "
                "or another launcher that sets it."
            )
        os.environ["MASTER_PORT"] = str(_free_port())
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available() and local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"rank {local_rank} of this machine has no GPU of its own: there are {torch.cuda.device_count()}; start as "
            "many ranks as GPUs (deepspeed --num_gpus)."
        )
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    deepspeed = _import_deepspeed()
    if not dist.is_initialized():
        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
    return Ranks(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)


def check_deepspeed_block(block: dict[str, Any]) -> None:
    """Raise ValueError for a DeepSpeed key that the recipe says elsewhere."""
    for key, recipe_key in OWNED_KEYS.items():
        if key in block:
            raise ValueError(f"deepspeed.{key} is set by the recipe's own {recipe_key}; set that instead.")
    for key in block:
        near = get_close_matches(key, KNOWN_KEYS, n=1, cutoff=0.75)
        if near and near[0] != key and key not in KNOWN_KEYS:
            raise ValueError(f"deepspeed.{key} is no key of DeepSpeed (did you mean {near[0]}?).")
    zero = block.get("zero_optimization", {})
    if not isinstance(zero, dict):
        raise ValueError(f"deepspeed.zero_optimization is {zero!r}; it must be a mapping, such as stage: 1.")
    accumulated = block.get("gradient_accumulation_steps", 1)
    if not isinstance(accumulated, int) or isinstance(accumulated, bool) or accumulated < 1:
        raise ValueError(
            f"deepspeed.gradient_accumulation_steps is {accumulated!r}; it must be a whole number of at least 1."
        )
    stage = zero_stage(block)
    if stage not in (0, 1, 2, 3):
        raise ValueError(f"deepspeed.zero_optimization.stage is {stage}; allowed: 0, 1, 2, 3.")


def check_zero_section(block: dict[str, Any]) -> None:
    """Raise ValueError where DeepSpeed would not take the `zero_optimization` section. Imports DeepSpeed."""
    _import_deepspeed()
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from pydantic import ValidationError

    try:
        DeepSpeedZeroConfig(**block.get("zero_optimization", {}))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])} is {fault['input']!r}: {fault['msg']}"
            for fault in error.errors()
        )
        allowed = ", ".join(DeepSpeedZeroConfig.model_fields)
        raise ValueError(f"deepspeed.zero_optimization: {faults}. Allowed keys: {allowed}.") from error


def zero_stage(block: dict[str, Any]) -> int:
    """The ZeRO stage of a recipe's `deepspeed:` block; 0 where it says nothing."""
    stage: int = block.get("zero_optimization", {}).get("stage", 0)
    return stage


def estimate_model_states(
    *, stage: int, num_weights: int, largest_module_weights: int, world_size: int, offloads_optimizer: bool
) -> int:
    """DeepSpeed's own estimate of weights, gradients and optimizer states on one device, bytes; for stages 2 and 3.

    It assumes 16-bit weights and gradients with a 32-bit copy and Adam's states, on one machine.
    """
    _import_deepspeed()
    if stage == 2:
        from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

        _, on_device = estimate_zero2_model_states_mem_needs(
            num_weights, num_gpus_per_node=world_size, num_nodes=1, cpu_offload=offloads_optimizer
        )
        return int(on_device)
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

    _, on_device, _ = estimate_zero3_model_states_mem_needs(
        num_weights,
        largest_module_weights,
        num_gpus_per_node=world_size,
        num_nodes=1,
        cpu_offload=offloads_optimizer,
        cpu_offload_params=False,
    )
    return int(on_device)


def build_engine(
    module: nn.Module,
    *,
    optimizer: torch.optim.Optimizer,
    lr_scheduler: Any,
    micro_batch_size: int,
    gradient_clipping: float,
    autocast_section: dict[str, Any],
    block: dict[str, Any],
) -> Any:
    """Wrap the module in a DeepSpeed engine.

    Args:
        module: the objective; its forward takes a batch.
        optimizer: over the parameters that train.
        lr_scheduler: stepped by `engine.step()`, not on steps that fp16 skips.
        micro_batch_size: windows per rank and step.
        gradient_clipping: greatest gradient norm, 0 for none. Where `gradient_norm_before_step` knows the norm, `step` clips
            by it and DeepSpeed, which would take it once more and tell nobody, does not.
        autocast_section: from `precision.autocast_section`.
        block: the recipe's `deepspeed:` block, passed through.

    Returns:
        A `deepspeed.DeepSpeedEngine`.
    """
    has_loss_scale = autocast_section.get("torch_autocast", {}).get("dtype") == "float16"
    clips_here = zero_stage(block) == 0 and not has_loss_scale
    config = {
        "steps_per_print": 10**9,
        "gradient_accumulation_steps": 1,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        **_with_bucket(block, module),
        **autocast_section,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_clipping": 0.0 if clips_here else gradient_clipping,
    }
    if torch.cuda.is_available():
        use_fused_kernels(optimizer)
    engine, *_ = _import_deepspeed().initialize(
        model=module, optimizer=optimizer, lr_scheduler=lr_scheduler, config=config
    )
    if zero_stage(block) == 0:
        engine.enable_backward_allreduce = reduces_in_buckets(block, world_size=engine.dp_world_size)
    return engine


def reduces_in_buckets(block: dict[str, Any], *, world_size: int) -> bool:
    """Whether all gradients are copied into flat buckets after the backward pass (5e8 values each): at stage 0, on more than
    one rank. DeepSpeed does it on a single one too, which has nothing to reduce, for as many bytes as all gradients have."""
    return zero_stage(block) == 0 and world_size > 1


def _with_bucket(block: dict[str, Any], module: nn.Module) -> dict[str, Any]:
    """The block with ZeRO's gradient bucket no larger than the gradients.

    DeepSpeed allocates the whole bucket, 5e8 values (2 GB) by default, however small the module.
    """
    zero = block.get("zero_optimization", {})
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    if zero_stage(block) == 0 or "reduce_bucket_size" in zero or not trained:
        return block
    return {**block, "zero_optimization": {**zero, "reduce_bucket_size": min(trained, 500_000_000)}}


def all_ranks_agree(is_fine: bool, device: torch.device) -> bool:
    """True where every rank says so. Collective."""
    if dist.get_world_size() == 1:
        return is_fine
    flag = torch.tensor(1 if is_fine else 0, device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag.item())


def mean_over_ranks(values: list[float], device: torch.device) -> list[float]:
    """The mean of each value over the ranks. Collective."""
    if dist.get_world_size() == 1:
        return values
    summed = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(summed)
    means: list[float] = (summed / dist.get_world_size()).tolist()
    return means


def gather_from_ranks(value: Any) -> list[Any]:
    """Every rank's value, in rank order, on every rank. Collective."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def wait_for_ranks() -> None:
    """Barrier. Collective."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


def gradient_norm_before_step(engine: Any) -> float | None:
    """The global gradient norm at ZeRO stage 0, where DeepSpeed checks nothing, as the mean over the ranks, so that all of them
    clip alike; None where it is not known yet: at the other stages, which compute it inside their step, and in fp16, where
    gradients are still scaled. Collective."""
    if engine.zero_optimization_stage() > 0 or _has_loss_scale(engine):
        return None
    gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
    return mean_over_ranks([norm], engine.device)[0]


def step(engine: Any, *, norm: float | None, gradient_clipping: float) -> bool:
    """Clip the gradients where the norm is known, else leave it to DeepSpeed; then step the optimizer.

    Args:
        engine: after its backward pass.
        norm: from `gradient_norm_before_step`; finite or None.
        gradient_clipping: as for `build_engine`.

    Returns:
        True where DeepSpeed left the step out because gradients were not finite, which is usual in fp16 alone (its loss
        scale then falls) and is never reported for it.
    """
    if norm is not None and norm > gradient_clipping > 0 and engine.is_gradient_accumulation_boundary():
        torch.nn.utils.clip_grads_with_norm_(
            engine.module.parameters(), gradient_clipping, torch.tensor(norm)
        )
    skipped_before = engine.skipped_steps
    engine.step()
    return bool(engine.skipped_steps > skipped_before) and not _has_loss_scale(engine)


def gradient_norm_after_step(engine: Any) -> float | None:
    """The global gradient norm before clipping of the step just taken, at ZeRO stages 1 to 3; else None."""
    norm = engine.get_global_grad_norm() if engine.zero_optimization_stage() > 0 else None
    return None if norm is None or not math.isfinite(float(norm)) else float(norm)


def _has_loss_scale(engine: Any) -> bool:
    return getattr(engine, "torch_autocast_z0_gradscaler", None) is not None


@contextmanager
def prediction_mode(engine: Any) -> Iterator[nn.Module]:
    """The engine's module, ready to predict: in evaluation, and on every rank with the buffers of rank 0, which are those of
    a checkpoint's weights; in training again afterwards, as it was. Not at ZeRO stage 3, which partitions the weights and
    gathers them in step with the other ranks, that may have fewer batches to predict. Collective."""
    assert engine.zero_optimization_stage() < 3
    module: nn.Module = engine.module
    buffers = list(module.buffers()) if dist.get_world_size() > 1 else []
    own = [buffer.detach().clone() for buffer in buffers]
    for buffer in buffers:
        dist.broadcast(buffer.detach(), src=0)
    engine.eval()
    try:
        yield module
    finally:
        engine.train()
        for buffer, before in zip(buffers, own, strict=True):
            buffer.detach().copy_(before)


def full_state_dict(engine: Any) -> dict[str, Tensor]:
    """All weights and buffers on the CPU, gathered where ZeRO 3 has partitioned them. Collective; whole on rank 0."""
    module = engine.module
    if engine.zero_optimization_stage() < 3:
        if dist.get_rank() > 0:
            return {}
        return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}
    deepspeed = _import_deepspeed()
    state = {}
    for name, parameter in module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            if dist.get_rank() == 0:
                state[name] = parameter.detach().cpu().clone()
    for name, buffer in module.named_buffers():
        state[name] = buffer.detach().cpu().clone()
    persistent = set(module.state_dict())
    return {name: tensor for name, tensor in state.items() if name in persistent}


def save_engine(engine: Any, folder: Path, client_state: dict[str, Any]) -> None:
    """Write DeepSpeed's own files below `folder/deepspeed`. Collective."""
    engine.save_checkpoint(str(folder), tag="deepspeed", client_state=client_state, save_latest=False)


def load_engine(engine: Any, folder: Path) -> dict[str, Any]:
    """Read them back, tensors and plain values alone, and return the client state. Collective.

    Check the files first (`checkpoint.is_whole`): a rank that fails here leaves the others waiting.
    """
    with _weights_only():
        path, client_state = engine.load_checkpoint(str(folder), tag="deepspeed")
    if path is None:
        raise ValueError(f"checkpoint {folder} holds no engine state of DeepSpeed.")
    loaded: dict[str, Any] = client_state
    return loaded


def read_saved_state(engine: Any, folder: Path) -> dict[str, Any]:
    """What DeepSpeed's main file of this rank below `folder/deepspeed` holds; its tensors are mapped, not read."""
    with _weights_only():
        state: dict[str, Any] = torch.load(
            engine._get_ckpt_name(str(folder), "deepspeed"), map_location="cpu", mmap=True
        )
    return state


def group_shapes(engine: Any) -> list[dict[str, Any]]:
    """Name -> shape of the weights in each of the optimizer's groups, in the form of `param_shapes` in that file; for ZeRO
    stages 1 to 3."""
    shapes: list[dict[str, Any]] = engine._get_zero_param_shapes()
    return shapes


def close_engine(engine: Any) -> None:
    """Drop what the engine holds, so that the next stage of this process starts from nothing."""
    engine.destroy()


@contextmanager
def _weights_only() -> Iterator[None]:
    """DeepSpeed calls torch.load(weights_only=False) everywhere; this forces the safe form for a while."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        with torch.serialization.safe_globals(
            [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]
        ):
            yield
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before


def _import_deepspeed() -> Any:
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # A shared-memory all-reduce for CPUs that is compiled at start-up: a minute, and a compiler, for nothing we need.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def end_process(code: int) -> NoReturn:
    """Leave the ranks and end this process with an exit code; what a script does last.

    DeepSpeed keeps references to process groups, so gloo's threads outlive `destroy_process_group` and are torn down
    with the interpreter, in no fixed order: now and then that aborted a rank whose work was done ("terminate called
    without an active exception"), and the launcher then failed a good run. So exit handlers run and streams are
    flushed here, and the process ends without that teardown. A process that joined no group exits as usual.
    """
    if not dist.is_initialized():
        sys.exit(code)
    if code == 0:  # after a failure the others may never answer
        dist.destroy_process_group()
    atexit._run_exitfuncs()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
