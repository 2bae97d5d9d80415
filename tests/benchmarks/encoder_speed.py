"""What the trainer costs in time: steps of its own loop against a bare PyTorch loop of the same module, batch and precision.

    OMP_NUM_THREADS=1 python tests/benchmarks/encoder_speed.py
    OMP_NUM_THREADS=1 python tests/benchmarks/encoder_speed.py --encoders r2plus1d --variants channels_last compile plain_adamw
    python tests/benchmarks/encoder_speed.py --encoders r2plus1d videomae --snippets 64 --frames 16 --side 112   (on a GPU)

The trainer's step is one of `engine.loop.train` on DeepSpeed's engine, logging included, with an encoder under a linear
classifier on the joint gradient path, and a batch in memory; the bare step is a forward pass, a backward pass, clipping and
AdamW. Ways take turns step by step, so that a busy machine slows all of them. "ratio" is of the least seconds of each, "of
turns" the median of the ratios of each turn; both must be within the limit. Both loops compute the same: how far their weights
are apart in the end is printed, as a share of how far they moved. Seconds are of CPU, or on CUDA wall seconds, with the device
waited for.

Variants are the bare loop once more, with one thing otherwise: channels_last (kernels in channels_last or channels_last_3d),
compile (`torch.compile` of the encoder), plain_adamw (no fused kernel; on CUDA PyTorch's default), plain_attention (likewise). What the trainer's own
step would gain from them is what they gain here.
"""

import argparse
import copy
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lofi.batches import WindowBatch
from lofi.encoders import ENCODERS
from lofi.encoders.build import build_encoder
from lofi.encoders.choices import VideomaeConfig
from lofi.engine import deepspeed_engine
from lofi.engine.checkpoint import Position
from lofi.engine.loop import TrainConfig, train
from lofi.engine.optimizers import AdamwConfig, build_optimizer
from lofi.engine.precision import autocast_section, check_precision, resolve_precision
from lofi.engine.run_directory import RunDirectory
from lofi.fidelity import Fidelity, FidelitySchedule
from lofi.gradients.joint import encode_joint
from lofi.memory.made_up_batch import made_up_batch
from lofi.objectives.tac import Classification, clip_labels

LIMIT = 1.05
"""Greatest share of a bare step that a step of the trainer may take."""
CLASSES = 20
CLIPPING = 1.0
WARM_UP = 2
SIZES = {"tiny": (64, 8, 64), "r2plus1d": (4, 4, 64), "image": (2, 2, 64)}
"""Snippets, frames, pixels a side, where others than the usual are wanted."""
USUAL = (4, 8, 64)
CONFIGS = {"videomae": VideomaeConfig(size="small")}
VARIANTS = ("channels_last", "compile", "plain_adamw", "plain_attention")
Clock = Callable[[], float]


class Measured(Exception):
    """Ends the training loop, before it saves a checkpoint."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--encoders", nargs="+", choices=ENCODERS, default=["tiny", "tsm", "r2plus1d", "videomae"]
    )
    parser.add_argument("--steps", type=int, default=7, help=f"timed, after {WARM_UP} more")
    parser.add_argument("--snippets", type=int, help="windows of one snippet, per step")
    parser.add_argument("--frames", type=int, help="per snippet")
    parser.add_argument("--side", type=int, help="pixels")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=[])
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error(f"--steps is {arguments.steps}; at least 1 must be timed.")
    ranks = deepspeed_engine.start_ranks()
    device = ranks.device
    precision = resolve_precision(
        arguments.precision, device_type=device.type, has_bf16=torch.cuda.is_available(), zero_stage=0
    )
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    print(
        f"{name}, torch {torch.__version__}, deepspeed {_version('deepspeed')}, {precision}, "
        f"{torch.get_num_threads()} thread(s), {arguments.steps} steps each; "
        f"{'wall' if device.type == 'cuda' else 'CPU'} seconds, ratios to the bare loop"
    )
    print(f"{'encoder':11} {'frames':16} {'way':16} {'least':>8} {'ratio':>6} {'of turns':>9}")
    for encoder in arguments.encoders:
        usual = SIZES.get(encoder, USUAL)
        given = (arguments.snippets, arguments.frames, arguments.side)
        snippets, frames, side = (own or default for own, default in zip(given, usual, strict=True))
        fidelity = Fidelity(num_snippets=1, frames=frames, height=side, width=side)
        seconds, distance = measure(
            encoder,
            fidelity,
            num_windows=snippets,
            steps=arguments.steps,
            precision=precision,
            variants=arguments.variants,
            ranks=ranks,
        )
        report(encoder, f"{snippets} x {frames} x {side} x {side}", seconds, distance=distance)


def measure(
    encoder_name: str,
    fidelity: Fidelity,
    *,
    num_windows: int,
    steps: int,
    precision: str,
    variants: list[str],
    ranks: deepspeed_engine.Ranks,
) -> tuple[dict[str, list[float]], float]:
    """Seconds of every timed step by way, and how far the trainer's weights and the bare loop's are apart in the end, as a
    share of how far they moved."""
    device = ranks.device
    torch.manual_seed(0)
    config = CONFIGS.get(encoder_name) or ENCODERS[encoder_name][0]()
    encoder: Any = build_encoder(encoder_name, config)[0]
    encoder.check_fidelity(fidelity)
    check_precision(
        precision,
        device_type=device.type,
        zero_stage=0,
        has_temporal_convolution=encoder.has_temporal_convolution,
    )
    module = Classification(
        encoder=encoder,
        classifier=nn.Linear(encoder.feature_width, CLASSES),
        encode=encode_joint,
        label_smoothing=0.0,
    )
    module.to(device).train()
    start = copy.deepcopy(module)
    bare = copy.deepcopy(module)
    batch = random_batch(fidelity, num_windows=num_windows, device=device)
    ways = {"bare": bare_step(bare, batch, precision=precision, variant=None)}
    for variant in variants:
        ways[variant] = bare_step(copy.deepcopy(module), batch, precision=precision, variant=variant)
    seconds = train_beside(
        module, batch, ways, fidelity=fidelity, steps=steps, precision=precision, ranks=ranks
    )
    moved = distance_between(bare, start)
    return seconds, distance_between(bare, module) / moved


def random_batch(fidelity: Fidelity, *, num_windows: int, device: torch.device) -> WindowBatch:
    """Windows of one snippet of random pixels, each with a label; pinned where there is a GPU."""
    batch = made_up_batch(fidelity, num_windows=num_windows, num_segments=1, num_classes=CLASSES)
    assert batch.frames is not None
    batch.frames.random_(0, 256, generator=torch.Generator().manual_seed(0))
    targets = tuple(
        replace(target, labels=torch.tensor([place % CLASSES])) for place, target in enumerate(batch.targets)
    )
    batch = replace(batch, targets=targets)
    return batch.pin_memory() if device.type == "cuda" else batch


def bare_step(
    module: Classification, batch: WindowBatch, *, precision: str, variant: str | None
) -> Callable[[], None]:
    """One training step without any of the trainer's parts but its parameter groups."""
    device = next(module.parameters()).device
    assert batch.frames is not None
    frames_NCTHW = batch.frames.flatten(0, 1)
    labels = clip_labels(batch).to(device)
    optimizer = build_optimizer(module, AdamwConfig())
    encoder: Any = module.encoder
    if variant == "channels_last":
        use_channels_last(encoder)
    if variant == "compile":
        encoder = torch.compile(encoder)
    if variant == "plain_adamw":
        for group in optimizer.param_groups:
            group["fused"] = False

    def step() -> None:
        attention = sdpa_kernel(SDPBackend.MATH) if variant == "plain_attention" else nullcontext()
        with attention:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                features = encoder(frames_NCTHW.to(device, non_blocking=True))
                loss = F.cross_entropy(module.classifier(features).float(), labels)
            loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), CLIPPING)
        optimizer.step()
        optimizer.zero_grad()

    return step


def use_channels_last(module: nn.Module) -> None:
    """Kernels of two or three dimensions in channels_last or channels_last_3d; convolutions then give such maps on."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])


def train_beside(
    module: nn.Module,
    batch: WindowBatch,
    ways: dict[str, Callable[[], None]],
    *,
    fidelity: Fidelity,
    steps: int,
    precision: str,
    ranks: deepspeed_engine.Ranks,
) -> dict[str, list[float]]:
    """Train `module`, and take a step of every other way whenever the loop asks for a batch. Seconds of timed steps by way."""
    seconds: dict[str, list[float]] = {"trainer": [], **{way: [] for way in ways}}
    clock = clock_of(ranks.device)
    optimizer = build_optimizer(module, AdamwConfig())
    engine = deepspeed_engine.build_engine(
        module,
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        micro_batch_size=batch.num_windows,
        gradient_clipping=CLIPPING,
        autocast_section=autocast_section(precision),
        block={},
    )

    def batches(*, epoch: int, first_batch: int) -> Iterator[WindowBatch]:
        for step in range(WARM_UP + steps):
            for way in ways if step % 2 == 0 else reversed(ways):
                begin = clock()
                ways[way]()
                seconds[way].append(clock() - begin)
            begin = clock()
            yield batch
            seconds["trainer"].append(clock() - begin)
        raise Measured

    with tempfile.TemporaryDirectory() as folder:
        try:
            train(
                engine,
                batches=batches,
                batches_per_epoch=WARM_UP + steps + 1,
                schedule=FidelitySchedule(fidelities=(fidelity,)),
                config=TrainConfig(epochs=1, batch_size=batch.num_windows),
                run=RunDirectory(path=Path(folder)),
                ranks=ranks,
                meter=NeverDue(),
                start=Position(),
                weights_metadata={},
            )
        except Measured:
            pass
        finally:
            deepspeed_engine.close_engine(engine)
    return {way: values[WARM_UP:] for way, values in seconds.items()}


class NeverDue:
    """A `loop.Meter` that leaves all steps alone."""

    def is_due(self, step_of_run: int, fidelity: Fidelity) -> bool:
        return False

    def measure(self, step_of_run: int, fidelity: Fidelity) -> nullcontext[None]:
        return nullcontext()


def clock_of(device: torch.device) -> Clock:
    """CPU seconds of this process, or on CUDA wall seconds, with the device waited for."""
    if device.type == "cpu":
        return time.process_time

    def wait_and_read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return wait_and_read


def distance_between(one: nn.Module, other: nn.Module) -> float:
    """Euclidean, over all weights."""
    squares: list[Tensor] = [
        (a.detach().double() - b.detach().double()).square().sum()
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    ]
    return float(torch.stack(squares).sum().sqrt())


def report(encoder: str, size: str, seconds: dict[str, list[float]], *, distance: float) -> None:
    for way, values in seconds.items():
        of_least = min(values) / min(seconds["bare"])
        of_turns = statistics.median(own / bare for own, bare in zip(values, seconds["bare"], strict=True))
        note = ""
        if way == "trainer":
            verdict = "kept" if max(of_least, of_turns) <= LIMIT else "NOT KEPT"
            note = f"   limit {LIMIT} {verdict}, weights {distance:.0e} apart"
        print(
            f"{encoder:11} {size:16} {way:16} {min(values):8.4f} {of_least:6.3f} {of_turns:9.3f}{note}",
            flush=True,
        )


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    main()
