"""TAC: temporal-agnostic classification, the pretext of nearly every public snippet encoder.

One label per trimmed clip, cross entropy on a linear layer over the snippet's feature (TSP, Alwassel et al. 2021,
section 3, calls the baseline so; LoFi calls it action-classification pre-training). Such an encoder is blind to when.
The clips are trimmed videos, or the annotated segments of untrimmed ones.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lofi.batches import WindowBatch
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
from lofi.protocols import GradientPath, StepLosses

NO_LABEL = -100


@dataclass(frozen=True, kw_only=True)
class TacConfig:
    """Action classification of trimmed clips."""

    label_smoothing: float = 0.0
    """Share of the target spread over all classes, in [0, 1)."""
    class_balance: Literal["none", "equal"] = "none"
    """equal: an epoch has as many clips of every class as of the most frequent one; segments of the others are drawn several
    times, each time at another place."""
    validate_every_epochs: int | None = None
    """Epochs between two validations on data.validation_subset (top-1, top-5 and mean class accuracy); null for none."""
    weights: Literal["newest", "best"] = "newest"
    """Which checkpoint the run hands on; best is the one of the highest mean class accuracy in validation."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"objective.label_smoothing is {self.label_smoothing}; it must lie in [0, 1).")
        if self.class_balance not in ("none", "equal"):
            raise ValueError(f"objective.class_balance is {self.class_balance!r}; it must be none or equal.")
        check_validation(self.validate_every_epochs, self.weights)


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
        labels_B = clip_labels(batch).to(logits_BK.device)
        summed = F.cross_entropy(
            logits_BK, labels_B, label_smoothing=self.label_smoothing, ignore_index=NO_LABEL, reduction="sum"
        )
        num_valid = mean_over_ranks((labels_B != NO_LABEL).sum().to(logits_BK)).clamp(min=1)
        is_correct_B = logits_BK.argmax(dim=1) == labels_B
        return StepLosses(
            total=summed / num_valid,
            parts={
                "classification": summed.detach() / num_valid,
                "accuracy": is_correct_B.sum() / num_valid,
            },
        )

    @torch.no_grad()
    def measure(self, batch: WindowBatch) -> Tensor:
        """(B, 2): the label of each clip, and how many other classes score at least as high (`accuracies.Measurable`)."""
        assert batch.frames is not None
        features_BLD = encode_detached(
            self.encoder,
            batch.frames,
            snippet_seeds=None,
            chunk_size=VALIDATION_CHUNK_SNIPPETS,
            views=batch.views,
        )
        logits_BK = self.classifier(features_BLD.mean(dim=1)).float().cpu()
        labels_B = clip_labels(batch)
        places_B = place_of_label(logits_BK, labels_B.clamp(min=0))
        return rows_of((labels_B, places_B), is_valid=labels_B != NO_LABEL)

    def summarise(self, rows: Tensor) -> Measured:
        """The score is the mean class accuracy."""
        labels, places = valid_rows(rows).unbind(dim=1)
        found = class_accuracies(labels, places)
        return Measured(score=found["mean_class"], details={"top1": found["top1"], "top5": found["top5"]})


def clip_labels(batch: WindowBatch) -> Tensor:
    """(B,) int64 on the CPU: the class of each window's first segment; NO_LABEL where it has none."""
    labels = [target.labels[0] if len(target.labels) else torch.tensor(NO_LABEL) for target in batch.targets]
    return torch.stack(labels)


def build_tac(
    config: TacConfig, *, encoder: nn.Module, encode: GradientPath, feature_width: int, num_classes: int
) -> Classification:
    classifier = nn.Linear(feature_width, num_classes)
    return Classification(
        encoder=encoder, classifier=classifier, encode=encode, label_smoothing=config.label_smoothing
    )
