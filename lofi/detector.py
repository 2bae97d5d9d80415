"""The detector: snippet encoder + TAL head. In training it returns losses, in prediction detections.

frames (B,L,C,T,H,W) uint8 -> encoder, by the gradient path -> (B,L,D) [-> adapter] -> temporal feature sequence (B,D,L)
-> head. Without an encoder the features come from disk.

An encoder with R features per snippet gives (B,L,R,D), and the head sees L x R positions, R to a snippet: what the batch says of
L snippets is said of positions before the head (`at_positions`), and what the head finds is in snippet index again after it.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lofi.batches import WindowBatch
from lofi.data.samples import window_mask
from lofi.gradients.detached import encode_detached
from lofi.protocols import GradientPath, StepLosses
from lofi.segments import Detections

PREDICTION_CHUNK_SNIPPETS = 32
"""Snippets encoded together in prediction, at most; fewer where training encodes fewer."""


class Detector(nn.Module):
    """Encoder (or None: features from disk), adapter (or None), scale (or None) and head. It is the `tal` objective."""

    head: Any

    def __init__(
        self,
        *,
        encoder: nn.Module | None,
        head: nn.Module,
        encode: GradientPath | None,
        adapter: nn.Module | None = None,
        scale: nn.Module | None = None,
        prediction_chunk: int = PREDICTION_CHUNK_SNIPPETS,
    ) -> None:
        """`scale`: before the head (`heads.feature_scale`); `prediction_chunk`: snippets encoded together in prediction; no more than training encodes together, so that
        prediction fits wherever training did."""
        super().__init__()
        self.encoder = encoder
        self.adapter = adapter
        self.scale = scale
        self.head = head
        self.encode = encode
        self.prediction_chunk = prediction_chunk

    def forward(self, batch: WindowBatch) -> StepLosses:
        """The head's losses on a batch."""
        features_BLD = self.feature_sequence(batch)
        batch = at_positions(batch, num_positions=features_BLD.shape[1])
        features_BDL = self._adapted(features_BLD, batch.mask)
        losses: StepLosses = self.head.losses(
            features_BDL, mask=batch.mask.to(features_BDL.device), targets=batch.targets
        )
        return losses

    @torch.no_grad()
    def detect(self, batch: WindowBatch) -> list[Detections]:
        """B detections in snippet index, before any suppression."""
        features_BLD = self._prediction_features(batch)
        num_snippets, num_positions = batch.mask.shape[1], features_BLD.shape[1]
        mask = at_positions(batch, num_positions=num_positions).mask
        features_BDL = self._adapted(features_BLD, mask)
        detections: list[Detections] = self.head.detect(features_BDL, mask=mask.to(features_BDL.device))
        if num_positions == num_snippets:
            return detections
        share = num_snippets / num_positions
        return [replace(each, segments=each.segments.float() * share) for each in detections]

    def feature_sequence(self, batch: WindowBatch) -> Tensor:
        """(B, L, D): encoded by the gradient path, or read from disk; (B, L * R, D) of an encoder with R per snippet."""
        if batch.features is not None:
            return batch.features.to(next(self.head.parameters()).device, non_blocking=True)
        assert self.encoder is not None
        assert self.encode is not None
        assert batch.frames is not None
        seeds = draw_snippet_seeds(batch.mask) if self.training else None
        return _in_a_row(self.encode(self.encoder, batch.frames, snippet_seeds=seeds, views=batch.views))

    def _adapted(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) -> what the head takes, (B, D, L)."""
        if self.adapter is not None:
            features = self.adapter(features, mask=mask.to(features.device))
        if self.scale is not None:
            features = self.scale(features)
        return features.transpose(1, 2)

    def _prediction_features(self, batch: WindowBatch) -> Tensor:
        """As `feature_sequence`, but always in chunks, which are small: prediction must fit wherever training did."""
        if batch.frames is None or self.encoder is None:
            return self.feature_sequence(batch)
        features = encode_detached(
            self.encoder,
            batch.frames,
            snippet_seeds=None,
            chunk_size=self.prediction_chunk,
            views=batch.views,
        )
        return _in_a_row(features)


def at_positions(batch: WindowBatch, *, num_positions: int) -> WindowBatch:
    """A batch of L snippets as a head of L * R positions sees it: the mask (B, L * R), the targets in position index.

    A position lies in the video where its own time does, as if each were a snippet of L * R (so that features from disk, which
    are, give the same). The batch itself where R is 1.
    """
    per_snippet = num_positions // batch.mask.shape[1]
    if per_snippet == 1:
        return batch
    inside = torch.stack([window_mask(window, num_snippets=num_positions) for window in batch.windows])
    is_decoded = batch.mask.any(dim=1, keepdim=True)
    return replace(
        batch,
        mask=inside.to(batch.mask.device) & is_decoded,
        targets=tuple(replace(each, segments=each.segments * per_snippet) for each in batch.targets),
    )


def _in_a_row(features: Tensor) -> Tensor:
    """(B, L, D) as it is; (B, L, R, D) -> (B, L * R, D)."""
    return features if features.ndim == 3 else features.flatten(1, 2)


def draw_snippet_seeds(mask: Tensor) -> Tensor:
    """One random seed per snippet, from the process's generator: mask (B, L) -> (B, L) int64 on the CPU."""
    return torch.randint(2**62, mask.shape, dtype=torch.int64)
