"""TAC: temporal-agnostic classification, the pretext of nearly every public snippet encoder.

One label per trimmed clip, cross entropy on a linear layer over the snippet's feature (TSP, Alwassel et al. 2021,
section 3, calls the baseline so; LoFi calls it action-classification pre-training). Such an encoder is blind to when.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from lofi.batches import WindowBatch
from lofi.detector import draw_snippet_seeds
from lofi.protocols import GradientPath, StepLosses


@dataclass(frozen=True, kw_only=True)
class TacConfig:
    """Action classification of trimmed clips."""

    label_smoothing: float = 0.0
    """Share of the target spread over all classes, in [0, 1)."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"objective.label_smoothing is {self.label_smoothing}; it must lie in [0, 1).")


class Classification(nn.Module):
    """A snippet encoder under a linear classifier. It is the `tac` objective."""

    def __init__(
        self, *, encoder: nn.Module, classifier: nn.Module, encode: GradientPath, label_smoothing: float
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier
        self.encode = encode
        self.label_smoothing = label_smoothing

    def forward(self, batch: WindowBatch) -> StepLosses:
        """frames (B, L, C, T, H, W), one label per window -> cross entropy and accuracy over valid windows."""
        assert batch.frames is not None
        seeds = draw_snippet_seeds(batch.mask) if self.training else None
        features_BLD = self.encode(self.encoder, batch.frames, snippet_seeds=seeds, views=batch.views)
        logits_BK = self.classifier(features_BLD.mean(dim=1)).float()
        is_valid_B = torch.tensor([len(target.labels) > 0 for target in batch.targets])
        labels_B = torch.stack(
            [target.labels[0] if len(target.labels) else torch.tensor(-100) for target in batch.targets]
        ).to(logits_BK.device)
        summed = F.cross_entropy(
            logits_BK, labels_B, label_smoothing=self.label_smoothing, ignore_index=-100, reduction="sum"
        )
        num_valid = mean_over_ranks(is_valid_B.sum().to(logits_BK)).clamp(min=1)
        is_correct_B = logits_BK.argmax(dim=1) == labels_B
        return StepLosses(
            total=summed / num_valid,
            parts={
                "classification": summed.detach() / num_valid,
                "accuracy": is_correct_B.sum() / num_valid,
            },
        )


def mean_over_ranks(count: Tensor) -> Tensor:
    """The mean of a scalar over the ranks, so that a loss divided by it, averaged over ranks, is that of one rank."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(count)
        count = count / distributed.get_world_size()
    return count


def build_tac(
    config: TacConfig, *, encoder: nn.Module, encode: GradientPath, feature_width: int, num_classes: int
) -> Classification:
    classifier = nn.Linear(feature_width, num_classes)
    return Classification(
        encoder=encoder, classifier=classifier, encode=encode, label_smoothing=config.label_smoothing
    )
