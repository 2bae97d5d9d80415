"""On two ranks, for each ZeRO stage (and with the optimizer offloaded): three steps with chunked gradients, a checkpoint
after the second, and what plain PyTorch gives. Prints one JSON line per case on rank 0."""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lofi.engine import deepspeed_engine
from lofi.engine.checkpoint import Position, load_checkpoint, newest_whole, save_checkpoint
from lofi.engine.optimizers import AdamwConfig, build_optimizer
from lofi.gradients.chunked import encode_chunked
from lofi.gradients.joint import encode_joint
from lofi.protocols import call_block

CLIPPING = 0.5
CONFIG = AdamwConfig(lr=1e-2, encoder_lr=3e-3)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = nn.Conv3d(3, 4, 1)
        self.block = nn.Sequential(nn.Conv3d(4, 5, 3, padding=1), nn.GroupNorm(1, 5), nn.GELU())
        self.frozen.requires_grad_(False)

    def forward(self, frames, *, snippet_seeds=None, run_block=call_block):
        return run_block(self.block, self.frozen(frames.float() / 255)).mean(dim=(2, 3, 4))


class Objective(nn.Module):
    def __init__(self, encode):
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
        self.encode = encode

    def forward(self, frames):
        features = self.encode(self.encoder, frames, snippet_seeds=None)
        return (self.head(features) ** 2).mean()


def build(encode):
    torch.manual_seed(5)
    return Objective(encode)


def batches(count):
    generator = torch.Generator().manual_seed(7)
    return [
        torch.randint(0, 256, (4, 3, 3, 2, 5, 6), dtype=torch.uint8, generator=generator)
        for _ in range(count)
    ]


def plain_weights(steps):
    module = build(encode_joint)
    optimizer = build_optimizer(module, CONFIG)
    for frames in batches(steps):
        optimizer.zero_grad()
        module(frames).backward()
        torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], CLIPPING)
        optimizer.step()
    return module.state_dict()


def make_engine(block):
    module = build(partial(encode_chunked, chunk_size=2))
    optimizer = build_optimizer(module, CONFIG)
    return deepspeed_engine.build_engine(
        module,
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        micro_batch_size=2,
        gradient_clipping=CLIPPING,
        autocast_section={},
        block=block,
    )


def step(engine, frames, ranks):
    loss = engine(frames[2 * ranks.rank : 2 * ranks.rank + 2])
    engine.backward(loss)
    norm = deepspeed_engine.gradient_norm_before_step(engine)
    deepspeed_engine.step(engine, norm=norm, gradient_clipping=CLIPPING)
    return float(loss.detach())


def difference(state, other):
    return max(float((state[name] - other[name]).abs().max()) for name in other)


def main(folder):
    ranks = deepspeed_engine.start_ranks()
    cases = {f"stage_{stage}": {"zero_optimization": {"stage": stage}} for stage in range(4)}
    cases["stage_2_offload"] = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    start = build(encode_joint).state_dict()
    expected = plain_weights(3)
    for name, block in cases.items():
        frames = batches(3)
        engine = make_engine(block)
        losses = [step(engine, frames[0], ranks), step(engine, frames[1], ranks)]
        save_checkpoint(
            engine, folder / name, position=Position(epoch=1, batch=0, step=2), keep=1, metadata={}
        )
        losses.append(step(engine, frames[2], ranks))
        state = deepspeed_engine.full_state_dict(engine)
        norm = deepspeed_engine.gradient_norm_after_step(engine)
        deepspeed_engine.close_engine(engine)

        resumed = make_engine(block)
        checkpoint, _ = newest_whole(folder / name, world_size=2, device=ranks.device)
        position = load_checkpoint(resumed, checkpoint)
        resumed_loss = step(resumed, frames[2], ranks)
        resumed_state = deepspeed_engine.full_state_dict(resumed)
        deepspeed_engine.close_engine(resumed)
        if ranks.rank == 0:
            line = {
                "case": name,
                "difference": difference(state, expected),
                "moved": difference(start, expected),
                "resumed_difference": difference(resumed_state, state),
                "resumed_loss_equal": resumed_loss == losses[2],
                "position": vars(position),
                "norm": norm,
                "names": sorted(state) == sorted(expected),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    deepspeed_engine.end_process(0)
