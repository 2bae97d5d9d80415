"""What the chunked gradient costs in time: its step's CPU seconds against those of the joint step, side by side.

    OMP_NUM_THREADS=1 python tests/benchmarks/chunked_time.py
    python tests/benchmarks/chunked_time.py --encoder tiny --snippets 64 --chunk 8 16 --repeat 5

n chunks run n - 1 of their forward passes twice, so where the forward pass is a share f of a joint step the limit is
1 + f (n - 1) / n: 4/3 at most where a backward pass costs two forward passes. f is measured too, and what is above the limit
is the cost of small chunks. Steps of all paths take turns, so that a busy machine slows all of them; the least CPU seconds of
each count, and the least wall seconds on CUDA, where the device is waited for.
"""

import argparse
import math
import platform
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lofi.encoders.build import build_encoder
from lofi.encoders.choices import R2plus1dConfig, TinyConfig, TsmConfig
from lofi.gradients.checkpointed import encode_checkpointed
from lofi.gradients.chunked import encode_chunked
from lofi.gradients.joint import encode_joint

FORWARD = "forward pass alone"
ENCODERS = {"r2plus1d": R2plus1dConfig, "tsm": TsmConfig, "tiny": TinyConfig}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--encoder", choices=ENCODERS, default="r2plus1d")
    parser.add_argument("--snippets", type=int, default=8)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--chunk", type=int, nargs="+", default=[2, 4], help="snippets per chunk")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    encoder, _ = build_encoder(arguments.encoder, ENCODERS[arguments.encoder]())
    encoder.to(device).train()
    size = (1, arguments.snippets, 3, arguments.frames, arguments.side, arguments.side)
    frames = torch.randint(0, 256, size, dtype=torch.uint8)
    if device.type == "cuda":
        frames = frames.pin_memory()
    paths: dict[str, Any] = {
        "joint": encode_joint,
        FORWARD: encode_joint,
        "checkpointed": encode_checkpointed,
    }
    limits = {"checkpointed": 1.0}
    for chunk in arguments.chunk:
        name = f"chunked, {chunk} of {arguments.snippets}"
        paths[name] = partial(encode_chunked, chunk_size=chunk)
        limits[name] = 1 - 1 / math.ceil(arguments.snippets / chunk)
    least = dict.fromkeys(paths, float("inf"))
    for repeat in range(arguments.repeat + 1):
        for name, encode in paths.items():
            with torch.set_grad_enabled(name != FORWARD):
                seconds = step_seconds(encoder, frames, encode=encode, device=device)
            if repeat > 0:  # the first round warms up
                least[name] = min(least[name], seconds)
    print(
        f"{arguments.encoder}, frames {size}, {device}, torch {torch.__version__}, {torch.get_num_threads()} thread(s), "
        f"{platform.machine()}, least of {arguments.repeat}"
    )
    share = least[FORWARD] / least["joint"]
    for name, seconds in least.items():
        limit = f", limit {1 + share * limits[name]:.2f}" if name in limits else ""
        print(f"{name:24} {seconds:8.3f} s   {seconds / least['joint']:.2f} x joint{limit}")


def step_seconds(encoder: nn.Module, frames: Tensor, *, encode: Any, device: torch.device) -> float:
    """Of one forward and, with gradients on, backward pass: CPU seconds of this process, or wall seconds on CUDA."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    encoder.zero_grad(set_to_none=True)
    _wait(device)
    begin = clock()
    loss = encode(encoder, frames, snippet_seeds=None).square().sum()
    if torch.is_grad_enabled():
        loss.backward()
    _wait(device)
    return clock() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
