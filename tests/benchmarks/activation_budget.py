"""What one chunk of R(2+1)D-18 saves for its backward pass, and holds at most: as it is, with blocks checkpointed, and
compiled under PyTorch's activation memory budget. Counted, not timed: bytes of the distinct storages that autograd saves in
the forward pass, and the peak of live tensors in the backward pass, both beyond weights and their gradients.

    OMP_NUM_THREADS=1 python tests/benchmarks/activation_budget.py --side 80

The budget (`torch._functorch.config.activation_memory_budget`, 0 to 1) tells the partitioner of `torch.compile` which
activations to keep and which to recompute. No code is generated here (backend aot_eager_decomp_partition): what is saved is
decided before that. Weights and buffers are left out.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from lofi.encoders.build import build_encoder
from lofi.encoders.choices import R2plus1dConfig
from lofi.gradients.checkpointed import checkpoint_block
from lofi.memory.counting import LiveTensorCount, storage_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--snippets", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=56)
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.0, 0.1])
    arguments = parser.parse_args()
    encoder, _ = build_encoder("r2plus1d", R2plus1dConfig())
    encoder.train()
    size = (arguments.snippets, 3, arguments.frames, arguments.side, arguments.side)
    frames = torch.zeros(size, dtype=torch.uint8)
    print(f"r2plus1d-18, frames {size}, torch {torch.__version__}")
    report("as it is", encoder, frames, encoder=encoder)
    report("blocks checkpointed", partial(encoder, run_block=checkpoint_block), frames, encoder=encoder)
    for budget in arguments.budgets:
        torch.compiler.reset()
        with torch._functorch.config.patch(activation_memory_budget=budget):
            compiled = torch.compile(encoder, backend="aot_eager_decomp_partition", dynamic=False)
            report(f"compiled, budget {budget}", compiled, frames, encoder=encoder)


def report(name: str, run: Callable[[Tensor], Tensor], frames: Tensor, *, encoder: nn.Module) -> None:
    """Count forward and backward passes, and print."""
    run(frames).sum().backward()  # compiles; from here on gradients are there, and only added to
    weights = [*encoder.parameters(), *encoder.buffers()]
    weights += [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None]
    known = {tensor.untyped_storage()._cdata for tensor in weights}
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in known:
            saved.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = run(frames).sum()
    # Compiled code does not run inside a counting mode, but its backward pass, compiled before, does.
    count = LiveTensorCount([*weights, *saved], device_type="cpu")
    saved_bytes = storage_bytes(saved)
    weight_bytes = count.live_bytes - saved_bytes
    saved.clear()
    with count:
        loss.backward()
    peak = f"{(count.peak_bytes - weight_bytes) / 2**20:8.1f} MiB at the peak of the backward pass"
    print(f"{name:24} {saved_bytes / 2**20:8.1f} MiB saved {peak}", flush=True)


if __name__ == "__main__":
    main()
