"""On each rank of a process group: a step of PAL on windows of its own. Rank 0 prints one JSON line with what each rank has."""

import json
import os

import torch
from torch import distributed, nn

from lofi.batches import WindowBatch
from lofi.gradients.joint import encode_joint
from lofi.objectives.pal import PalConfig, PseudoActionLocalization, build_pal
from lofi.protocols import RunBlock, call_block
from lofi.segments import Targets, Window

SNIPPETS, FRAMES, QUEUE, BINS = 6, 4, 32, 3
NUM_WINDOWS = 4


class ColourEncoder(nn.Module):
    """(N, 3, T, H, W) -> (N, 7): a linear layer on each frame's mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * FRAMES, 7).double()

    def forward(self, frames, *, snippet_seeds=None, run_block: RunBlock = call_block):
        return run_block(self.linear, frames.double().mean(dim=(3, 4)).flatten(1) / 255)


def build() -> PseudoActionLocalization:
    """The same on every rank."""
    torch.manual_seed(5)
    config = PalConfig(bins=BINS, projection_width=5, queue=QUEUE, momentum=0.5)
    return build_pal(
        config, encoder=ColourEncoder(), encode=encode_joint, feature_width=7, key_chunk=4
    ).double()


def windows_of(rank: int) -> WindowBatch:
    """A rank's half of the global batch; on rank 1 one window could not be decoded."""
    generator = torch.Generator().manual_seed(rank)
    size = (NUM_WINDOWS, SNIPPETS, 3, FRAMES, 5, 6)
    no_targets = Targets(segments=torch.zeros(0, 2), labels=torch.zeros(0, dtype=torch.int64))
    return WindowBatch(
        windows=tuple(
            Window(video=f"{rank}-{index}", start_sec=0.0, end_sec=1.0, video_duration_sec=1.0)
            for index in range(NUM_WINDOWS)
        ),
        targets=(no_targets,) * NUM_WINDOWS,
        mask=torch.tensor([[(rank, index) != (1, 2)] * SNIPPETS for index in range(NUM_WINDOWS)]),
        frames=torch.randint(0, 256, size, dtype=torch.uint8, generator=generator),
    )


def loss_of(module: PseudoActionLocalization, rank: int) -> float:
    """Of a rank's windows, with the rank's draws; nothing follows or is remembered."""
    module.eval()
    torch.manual_seed(10 + rank)
    return float(module(windows_of(rank)).total.detach())


def main() -> None:
    rank = int(os.environ["RANK"])
    distributed.init_process_group("gloo", rank=rank, world_size=int(os.environ["WORLD_SIZE"]))
    module = build()
    loss = loss_of(module, rank)
    module.train()
    torch.manual_seed(20 + rank)
    module(windows_of(rank)).total.backward()
    queue, scale = module.queue, module.scale
    mine = {
        "loss": loss,
        "keys": queue.keys.tolist(),
        "owners": queue.owners.tolist(),
        "next_place": int(queue.next_place),
        "moments": scale.moments.tolist(),
    }
    found = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, mine)
    if rank == 0:
        print(json.dumps({"ranks": found}), flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
