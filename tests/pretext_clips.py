"""Batches of random clips, and an encoder of one layer, for the tests of the pretexts."""

import torch
from torch import nn

from lofi.batches import WindowBatch
from lofi.protocols import call_block
from lofi.segments import Targets, Window

B, L, C, T, H, W, D, K = 3, 2, 3, 4, 5, 6, 7, 8


class MeanEncoder(nn.Module):
    """frames (N, C, T, H, W) -> (N, D): a linear layer on the colour of each frame, summed with weights that differ by frame.
    Notes the seeds that it was called with."""

    def __init__(self, frames=T):
        super().__init__()
        self.linear = nn.Linear(C * frames, D).double()
        self.feature_width = D
        self.seeds = []

    def forward(self, frames, *, snippet_seeds=None, run_block=call_block):
        self.seeds.append(snippet_seeds)
        return run_block(self.linear, frames.double().mean(dim=(3, 4)).flatten(1) / 255)


def clip_batch(labels, *, masked=(), num_snippets=L, frames=T, seed=3):
    """One window per label, each of a video of its own; None is one without a label. `masked`: could not be decoded."""
    generator = torch.Generator().manual_seed(seed)
    size = (len(labels), num_snippets, C, frames, H, W)
    return WindowBatch(
        windows=tuple(
            Window(video=f"v{index}", start_sec=0.0, end_sec=1.0, video_duration_sec=1.0)
            for index in range(len(labels))
        ),
        targets=tuple(
            Targets(
                segments=torch.zeros(0 if label is None else 1, 2),
                labels=torch.tensor([] if label is None else [label], dtype=torch.int64),
            )
            for label in labels
        ),
        mask=torch.tensor([[index not in masked] * num_snippets for index in range(len(labels))]),
        frames=torch.randint(0, 256, size, dtype=torch.uint8, generator=generator),
    )
