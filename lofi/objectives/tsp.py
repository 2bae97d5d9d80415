"""TSP: temporally-sensitive pretraining (Alwassel et al., ICCVW 2021, arXiv:2011.11479).

Clips from inside and from outside the actions of untrimmed videos, two heads on the clip's feature: the action's class, on
foreground clips alone, and the temporal region (foreground or background), a linear layer on [clip feature ; global video
feature]. The global video feature (GVF) is the maximum over time of the video's features by the frozen initial encoder: it
lets the region head know what the video's clips have in common. The loss is the weighted sum of two cross entropies, each the
mean over the clips that its head sees.

What differs from the published code: batch norms are frozen by default (there they train); a batch is that of all ranks
together, and learning rates are not multiplied by their number.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lofi.batches import WindowBatch
from lofi.data.global_features import GlobalFeatures
from lofi.detector import draw_snippet_seeds
from lofi.gradients.detached import encode_detached
from lofi.objectives.accuracies import (
    VALIDATION_CHUNK_SNIPPETS,
    Measured,
    check_validation,
    class_accuracies,
    place_of_label,
    rows_of,
    valid_rows,
)
from lofi.objectives.ranks import mean_over_ranks
from lofi.objectives.tac import NO_LABEL, clip_labels
from lofi.protocols import GradientPath, StepLosses

BACKGROUND, FOREGROUND = 0, 1


@dataclass(frozen=True, kw_only=True)
class TspConfig:
    """Action class and temporal region of clips of untrimmed videos."""

    global_features: str | None = None
    """Feature directory of the frozen initial encoder (launch/extract.py), for the global video features; null: the region
    head sees the clip's feature alone, as in the paper's ablation."""
    action_weight: float = 1.0
    """Of the action head's loss."""
    region_weight: float = 1.0
    """Of the region head's loss."""
    min_background_sec: float = 1.0
    """Stretches between actions that are shorter are no background, seconds; at least the length of a clip."""
    validate_every_epochs: int | None = 1
    """Epochs between two validations on data.validation_subset (accuracy of both heads); null for none."""
    weights: Literal["newest", "best"] = "best"
    """Which checkpoint the run hands on; best is the one of the highest mean of both accuracies, as published."""

    def __post_init__(self) -> None:
        for name in ("action_weight", "region_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"objective.{name} is {getattr(self, name)}; it must not be negative.")
        if self.region_weight == 0:
            raise ValueError(
                "objective.region_weight is 0, which is action classification: set objective: tac."
            )
        if self.min_background_sec <= 0:
            raise ValueError(
                f"objective.min_background_sec is {self.min_background_sec}; it must be a positive number of seconds."
            )
        check_validation(self.validate_every_epochs, self.weights)


class TemporallySensitive(nn.Module):
    """A snippet encoder under an action head and a region head. It is the `tsp` objective."""

    def __init__(
        self,
        *,
        encoder: nn.Module,
        encode: GradientPath,
        action_head: nn.Module,
        region_head: nn.Module,
        global_features: GlobalFeatures | None,
        action_weight: float = 1.0,
        region_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.encode = encode
        self.action_head = action_head
        self.region_head = region_head
        self.global_features = global_features
        self.action_weight = action_weight
        self.region_weight = region_weight

    def forward(self, batch: WindowBatch) -> StepLosses:
        """frames (B, L, C, T, H, W); a window with a label is foreground, one without background, a masked one neither."""
        assert batch.frames is not None
        seeds = draw_snippet_seeds(batch.mask) if self.training else None
        features_BLD = self.encode(self.encoder, batch.frames, snippet_seeds=seeds, views=batch.views)
        actions_BK, regions_B2 = self._logits(features_BLD, batch)
        labels_B, places_B = (x.to(actions_BK.device) for x in (clip_labels(batch), region_labels(batch)))
        action_sum = F.cross_entropy(actions_BK, labels_B, ignore_index=NO_LABEL, reduction="sum")
        region_sum = F.cross_entropy(regions_B2, places_B, ignore_index=NO_LABEL, reduction="sum")
        num_foreground = mean_over_ranks((labels_B != NO_LABEL).sum().to(actions_BK)).clamp(min=1)
        num_valid = mean_over_ranks((places_B != NO_LABEL).sum().to(actions_BK)).clamp(min=1)
        action, region = action_sum / num_foreground, region_sum / num_valid
        return StepLosses(
            total=self.action_weight * action + self.region_weight * region,
            parts={
                "action": action.detach(),
                "region": region.detach(),
                "action_accuracy": (actions_BK.argmax(dim=1) == labels_B).sum() / num_foreground,
                "region_accuracy": (regions_B2.argmax(dim=1) == places_B).sum() / num_valid,
            },
        )

    def _logits(self, features_BLD: Tensor, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        features_BD = features_BLD.mean(dim=1)
        regions_from = features_BD
        if self.global_features is not None:
            whole_BG = self.global_features.of([window.video for window in batch.windows])
            regions_from = torch.cat([features_BD, whole_BG.to(features_BD)], dim=1)
        return self.action_head(features_BD).float(), self.region_head(regions_from).float()

    @torch.no_grad()
    def measure(self, batch: WindowBatch) -> Tensor:
        """(B, 4): region, whether it was told, label (NO_LABEL for background), place of the label."""
        assert batch.frames is not None
        features_BLD = encode_detached(
            self.encoder,
            batch.frames,
            snippet_seeds=None,
            chunk_size=VALIDATION_CHUNK_SNIPPETS,
            views=batch.views,
        )
        actions_BK, regions_B2 = (logits.cpu() for logits in self._logits(features_BLD, batch))
        labels_B, places_B = clip_labels(batch), region_labels(batch)
        ranks_B = place_of_label(actions_BK, labels_B.clamp(min=0))
        is_told_B = place_of_label(regions_B2, places_B.clamp(min=0)) == 0
        return rows_of((places_B, is_told_B, labels_B, ranks_B), is_valid=places_B != NO_LABEL)

    def summarise(self, rows: Tensor) -> Measured:
        """The score is the mean of the action accuracy (foreground clips) and the region accuracy (all), as published."""
        regions, is_told, labels, ranks = valid_rows(rows).unbind(dim=1)
        is_foreground = regions == FOREGROUND
        action = class_accuracies(labels[is_foreground], ranks[is_foreground])
        region = float(is_told.mean())
        per_region = [float(is_told[regions == each].mean()) for each in (BACKGROUND, FOREGROUND)]
        return Measured(
            score=(action["top1"] + region) / 2,
            details={
                "action_accuracy": action["top1"],
                "region_accuracy": region,
                "balanced_region_accuracy": sum(per_region) / 2,
            },
        )


def region_labels(batch: WindowBatch) -> Tensor:
    """(B,) int64 on the CPU: FOREGROUND with a label, BACKGROUND without, NO_LABEL where nothing could be decoded."""
    is_foreground = torch.tensor([len(target.labels) > 0 for target in batch.targets])
    regions = torch.where(is_foreground, FOREGROUND, BACKGROUND)
    is_there = torch.tensor([bool(mask.any()) for mask in batch.mask])
    return torch.where(is_there, regions, NO_LABEL)


def build_tsp(
    config: TspConfig, *, encoder: nn.Module, encode: GradientPath, feature_width: int, num_classes: int
) -> TemporallySensitive:
    global_features = None
    if config.global_features is not None:
        global_features = GlobalFeatures(config.global_features, assumed_width=feature_width)
    width = feature_width + (0 if global_features is None else global_features.width)
    return TemporallySensitive(
        encoder=encoder,
        encode=encode,
        action_head=nn.Linear(feature_width, num_classes),
        region_head=nn.Linear(width, 2),
        global_features=global_features,
        action_weight=config.action_weight,
        region_weight=config.region_weight,
    )
