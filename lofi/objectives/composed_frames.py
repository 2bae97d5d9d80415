"""Synthetic videos out of a batch's decoded frames: a map says where each frame comes from, and no frame is copied beforehand.

The decoded windows go to the device once, as uint8. A gradient path then carries the map in place of frames: chunk by chunk
the frames of its snippets are gathered, blended where two sources meet, cut out and mirrored as their synthetic video's view
says, and encoded. Recomputation gathers again, so nothing but the map and the decoded windows is held. Whatever a view draws is
the same for all frames of a synthetic video, whichever window they come from: a seam shows no change of augmentation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lofi.batches import Views
from lofi.gradients.prefetch import show
from lofi.protocols import RunBlock, call_block

BLEND_STEPS = 255
"""Weights of a blend are whole numbers from 0 (the first source alone) to this (the second)."""


@dataclass(frozen=True, kw_only=True)
class FrameMap:
    """Where the frames of S synthetic videos of F frames come from. A frame of B windows of F frames is `window * F + place`."""

    first: np.ndarray
    """(S, F) int64, the frame that is shown."""
    second: np.ndarray | None = None
    """(S, F) int64, one that is blended into it; None: nothing is blended."""
    blend: np.ndarray | None = None
    """(S, F) int64, the second's weight in BLEND_STEPS."""

    def snippets(self, *, frames: int) -> Tensor:
        """In snippets of T frames: (S, L, 1 + T) or, where frames are blended, (S, L, 1 + 3 T), int64; the first column is the
        synthetic video's number."""
        parts = [part for part in (self.first, self.second, self.blend) if part is not None]
        cut = [part.reshape(len(part), -1, frames) for part in parts]
        numbers = np.broadcast_to(np.arange(len(self.first))[:, None, None], (*cut[0].shape[:2], 1))
        return torch.from_numpy(np.concatenate([numbers, *cut], axis=2))


class ComposedEncoder(nn.Module):
    """A snippet encoder that takes where frames come from, in place of frames."""

    def __init__(self, encoder: nn.Module, frames: Tensor, *, views: Views | None) -> None:
        """Args: frames (B, L, C, T, H, W) uint8 of the decoded windows, on the encoder's device; views of S synthetic videos,
        there too."""
        super().__init__()
        self.encoder = encoder
        self._windows = frames.flatten(0, 1)
        self._views = views

    def forward(
        self, places: Tensor, *, snippet_seeds: Tensor | None = None, run_block: RunBlock = call_block
    ) -> Tensor:
        """places (N, 1 + T) or (N, 1 + 3 T), from `FrameMap.snippets` -> (N, D)."""
        features: Tensor = self.encoder(
            self.frames_at(places), snippet_seeds=snippet_seeds, run_block=run_block
        )
        return features

    def frames_at(self, places: Tensor) -> Tensor:
        """(N, C, T, h, w) uint8: gathered, blended and as its view shows it."""
        places = places.to(self._windows.device)
        num_frames = self._windows.shape[2]
        frames = self._gather(places[:, 1 : 1 + num_frames])
        if places.shape[1] > 1 + num_frames:
            second, blend = places[:, 1 + num_frames :].chunk(2, dim=1)
            frames = _blended(frames, self._gather(second), blend)
        return frames if self._views is None else show(frames, views_of(self._views, places[:, 0]))

    def _gather(self, frame_N_T: Tensor) -> Tensor:
        """(N, T) -> (N, C, T, H, W)."""
        num_frames = self._windows.shape[2]
        snippet, place = frame_N_T // num_frames, frame_N_T % num_frames
        gathered_NTCHW = self._windows[snippet, :, place]
        return gathered_NTCHW.transpose(1, 2)


def _blended(first: Tensor, second: Tensor, blend: Tensor) -> Tensor:
    """uint8 frames (N, C, T, H, W) mixed by the second's weights (N, T), in whole numbers."""
    weight = blend[:, None, :, None, None].to(torch.int32)
    mixed = first.to(torch.int32) * (BLEND_STEPS - weight) + second.to(torch.int32) * weight
    return ((mixed + BLEND_STEPS // 2) // BLEND_STEPS).to(torch.uint8)


def views_of(views: Views, indices: Tensor) -> Views:
    """The views of some windows (or one window several times). Args: indices (N,) int64."""
    return views.mapped(lambda drawn: drawn[indices])
