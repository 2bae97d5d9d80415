"""The similarity matching objective: adapter and predictor on windows of features, without labels.

Source: SoLa's published code, main_simsiam.py, at the defaults: windows of 23 snippets, 8 positions from the 5th on, 2
apart; the predictor is linear, ReLU, linear without norm; one direction, the other side carries no gradient (SimSiam,
Chen and He, CVPR 2021). What the code does not have is an option that is off.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lofi.batches import WindowBatch
from lofi.protocols import StepLosses
from sola.similarity import matching_loss, predicted_similarity, step_distance, target_similarity

PUBLISHED_VIDEOS = 3770
"""Training videos of the published linear evaluation, a tenth of HACS."""


@dataclass(frozen=True, kw_only=True)
class SimilarityMatchingConfig:
    """Similarity matching (SoLa)."""

    window: int = 23
    """Snippets of a window, drawn from a random place of its video in each epoch."""
    positions: int = 8
    """Of the window's features, how many are compared with one another."""
    step: int = 2
    """Snippets from one of them to the next."""
    margin: int = 4
    """Snippets before the first of them; the convolutions' padding does not reach them."""
    coefficient: float = 16.0
    """c of the target sigmoid(c / d^2)."""
    predictor_width: int = 512
    """Hidden channels of the predictor."""
    symmetric: bool = False
    """Beyond the paper: also let the gradient reach the side that stays, averaged. (Exchanging the two sides alone, as
    SimSiam does, changes nothing here: the target is symmetric.)"""
    target_scale_sec: float | None = None
    """Beyond the paper: measure d in these seconds and not in gathered steps, so that features of any stride share one
    setting. 1.0 is what the published setting amounts to on its own features (2 per second, 2 apart)."""
    stride_jitter: float = 0.0
    """Beyond the paper: stretch each window by a random factor in [1 - x, 1 + x], features interpolated."""
    linear_evaluation_every_epochs: int | None = None
    """Look at the adapted features by linear evaluation every so many epochs, on data.validation_subset; null for never.
    It needs annotations, which training does not."""
    linear_evaluation_videos: int = PUBLISHED_VIDEOS
    """Linear evaluation takes so many videos of each subset at most, drawn by the seed; their features lie in memory, 4
    bytes a number, on one rank."""
    weights: Literal["newest", "best"] = "newest"
    """Which checkpoint the run hands on; best is the one with the greatest balanced linear accuracy."""

    def __post_init__(self) -> None:
        for name in (
            "window",
            "step",
            "predictor_width",
            "linear_evaluation_every_epochs",
            "linear_evaluation_videos",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"objective.{name} is {value}; it must be at least 1.")
        if self.weights == "best" and self.linear_evaluation_every_epochs is None:
            raise ValueError(
                "objective.weights: best has no effect without objective.linear_evaluation_every_epochs, which finds it."
            )
        if self.linear_evaluation_every_epochs is None and self.linear_evaluation_videos != PUBLISHED_VIDEOS:
            raise ValueError(
                "objective.linear_evaluation_videos has no effect without objective.linear_evaluation_every_epochs; "
                "remove it."
            )
        if self.positions < 2:
            raise ValueError(f"objective.positions is {self.positions}; at least 2 can be compared.")
        if self.margin < 0:
            raise ValueError(f"objective.margin is {self.margin}; it must not be negative.")
        needed = self.margin + (self.positions - 1) * self.step + 1
        if needed > self.window:
            raise ValueError(
                f"objective.window is {self.window}, but {self.positions} positions {self.step} apart after a margin of "
                f"{self.margin} need {needed} snippets."
            )
        for name in ("coefficient", "target_scale_sec"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"objective.{name} is {value}; it must be positive.")
        if not 0 <= self.stride_jitter < 1:
            raise ValueError(f"objective.stride_jitter is {self.stride_jitter}; it must lie in [0, 1).")


class SimilarityMatching(nn.Module):
    """Adapter and predictor; the predictor is left behind when the adapter is used."""

    adapter: Any

    def __init__(self, *, adapter: nn.Module, feature_width: int, config: SimilarityMatchingConfig) -> None:
        super().__init__()
        self.adapter = adapter
        self.predictor = nn.Sequential(
            nn.Linear(feature_width, config.predictor_width),
            nn.ReLU(),
            nn.Linear(config.predictor_width, feature_width),
        )
        self.margin = config.margin
        self.num_positions = config.positions
        self.step = config.step
        self.coefficient = config.coefficient
        self.symmetric = config.symmetric
        self.target_scale_sec = config.target_scale_sec

    def forward(self, batch: WindowBatch) -> StepLosses:
        """features (B, L, D), L the window -> the loss, and how much the adapter changes its input."""
        assert batch.features is not None
        features_BLD = batch.features.to(next(self.predictor.parameters()).device, non_blocking=True)
        mask = batch.mask.to(features_BLD.device)
        change_BLD = self.adapter.change(features_BLD, mask=mask)
        gathered_BND = self._gather(features_BLD + change_BLD)
        # In bfloat16 similarities near 1 are 0.004 apart, and on CUDA autocast refuses binary_cross_entropy.
        with torch.autocast(gathered_BND.device.type, enabled=False):
            loss = self._matching(gathered_BND.float(), self._distance(batch).to(gathered_BND.device))
        change = change_BLD.detach().norm(dim=-1).mean() / features_BLD.norm(dim=-1).mean()
        return StepLosses(
            total=loss,
            parts={"alpha": self.adapter.alpha.detach().clone().squeeze(), "relative_change": change},
        )

    def _matching(self, gathered: Tensor, distance: Tensor) -> Tensor:
        """gathered (B, N, D) float32; distance as `_distance` gives it -> the loss, a scalar."""
        normalized_BND = nn.functional.normalize(gathered, dim=-1)
        projected_BND = self.predictor(normalized_BND)
        target = target_similarity(distance, coefficient=self.coefficient)
        loss = matching_loss(predicted_similarity(normalized_BND, projected_BND), target)
        if self.symmetric:
            exchanged = predicted_similarity(projected_BND, normalized_BND)
            loss = (loss + matching_loss(exchanged, target)) / 2
        return loss

    def _gather(self, features: Tensor) -> Tensor:
        """(B, L, D) -> the compared positions, (B, N, D)."""
        last = self.margin + (self.num_positions - 1) * self.step
        return features[:, self.margin : last + 1 : self.step]

    def _distance(self, batch: WindowBatch) -> Tensor:
        """(N, N) in gathered steps, or (B, N, N) in units of `target_scale_sec`."""
        distance_NN = step_distance(self.num_positions)
        if self.target_scale_sec is None:
            return distance_NN
        num_snippets = batch.mask.shape[1]
        stride_sec_B = torch.tensor(
            [(window.end_sec - window.start_sec) / num_snippets for window in batch.windows]
        )
        return distance_NN * (stride_sec_B * self.step / self.target_scale_sec)[:, None, None]
