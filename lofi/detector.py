"""The detector: snippet encoder + TAL head. In training it returns losses, in prediction detections.

frames (B,L,C,T,H,W) uint8 -> encoder, by the gradient path -> (B,L,D) [-> adapter] -> temporal feature sequence (B,D,L)
-> head. Without an encoder the features come from disk.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lofi.batches import WindowBatch
from lofi.gradients.detached import encode_detached
from lofi.protocols import GradientPath, StepLosses
from lofi.segments import Detections

PREDICTION_CHUNK_SNIPPETS = 32
"""Snippets encoded together in prediction, at most; fewer where training encodes fewer."""


class Detector(nn.Module):
    """Encoder (or None: features from disk), adapter (or None) and head. It is the `tal` objective."""

    head: Any

    def __init__(
        self,
        *,
        encoder: nn.Module | None,
        head: nn.Module,
        encode: GradientPath | None,
        adapter: nn.Module | None = None,
        prediction_chunk: int = PREDICTION_CHUNK_SNIPPETS,
    ) -> None:
        """`prediction_chunk`: snippets encoded together in prediction; no more than training encodes together, so that
        prediction fits wherever training did."""
        super().__init__()
        self.encoder = encoder
        self.adapter = adapter
        self.head = head
        self.encode = encode
        self.prediction_chunk = prediction_chunk

    def forward(self, batch: WindowBatch) -> StepLosses:
        """The head's losses on a batch."""
        features_BDL = self._adapted(self.feature_sequence(batch), batch.mask)
        losses: StepLosses = self.head.losses(
            features_BDL, mask=batch.mask.to(features_BDL.device), targets=batch.targets
        )
        return losses

    @torch.no_grad()
    def detect(self, batch: WindowBatch) -> list[Detections]:
        """B detections in snippet index, before any suppression."""
        features_BDL = self._adapted(self._prediction_features(batch), batch.mask)
        detections: list[Detections] = self.head.detect(features_BDL, mask=batch.mask.to(features_BDL.device))
        return detections

    def feature_sequence(self, batch: WindowBatch) -> Tensor:
        """(B, L, D): encoded by the gradient path, or read from disk."""
        if batch.features is not None:
            return batch.features.to(next(self.head.parameters()).device, non_blocking=True)
        assert self.encoder is not None
        assert self.encode is not None
        assert batch.frames is not None
        seeds = draw_snippet_seeds(batch.mask) if self.training else None
        return self.encode(self.encoder, batch.frames, snippet_seeds=seeds, views=batch.views)

    def _adapted(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) -> what the head takes, (B, D, L)."""
        if self.adapter is not None:
            features = self.adapter(features, mask=mask.to(features.device))
        return features.transpose(1, 2)

    def _prediction_features(self, batch: WindowBatch) -> Tensor:
        """As `feature_sequence`, but always in chunks, which are small: prediction must fit wherever training did."""
        if batch.frames is None or self.encoder is None:
            return self.feature_sequence(batch)
        return encode_detached(
            self.encoder,
            batch.frames,
            snippet_seeds=None,
            chunk_size=self.prediction_chunk,
            views=batch.views,
        )


def draw_snippet_seeds(mask: Tensor) -> Tensor:
    """One random seed per snippet, from the process's generator: mask (B, L) -> (B, L) int64 on the CPU."""
    return torch.randint(2**62, mask.shape, dtype=torch.int64)
