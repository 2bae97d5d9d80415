"""The losses of BMN and G-TAD on start and end scores and on the two maps.

Sources: BMN (ICCV 2019, equations 5 to 8) and G-TAD's code (which takes them over): balanced cross entropy of starts and ends
(positive above 0.5) and of the classification map (tIoU above 0.9), and half the squared error of the regression map, on all
proposals of tIoU above 0.7 and, drawn at random, as many of (0.3, 0.7] and as many of (0, 0.3].
What differs: a batch without positives, where the published code divides by 0, has the negatives' half of the cross entropy
alone, and no regression loss. Counts are those of the batch of all ranks together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lofi.heads.proposals.targets import proposal_targets, valid_cells
from lofi.heads.rank_counts import divisor, rank_share
from lofi.protocols import StepLosses
from lofi.segments import Targets

POSITIVE_BOUNDARY = 0.5
POSITIVE_TIOU = 0.9
HIGH_TIOU, LOW_TIOU = 0.7, 0.3
LABELLED_TIOU = 0.5
"""Proposals above it learn the class of their instance, where the head has classes of its own."""


@dataclass(frozen=True, kw_only=True)
class ProposalOutputs:
    """What a proposal head says. Logits, float32 or wider.

    start, end: (B, L). regression, classification: (B, D, L). labels: (B, K, D, L), or None without classes of its own.
    """

    start: Tensor
    end: Tensor
    regression: Tensor
    classification: Tensor
    labels: Tensor | None = None


def balanced_cross_entropy(
    logits: Tensor, is_positive: Tensor, is_valid: Tensor, *, num_positive: Tensor, num_negative: Tensor
) -> Tensor:
    """Half the mean over positives plus half the mean over negatives, given their counts. Any shape, the same for all."""
    each = F.binary_cross_entropy_with_logits(logits, is_positive.to(logits.dtype), reduction="none")
    positive = torch.where(is_valid & is_positive, each, 0.0).sum() / num_positive
    negative = torch.where(is_valid & ~is_positive, each, 0.0).sum() / num_negative
    return 0.5 * (positive + negative)


def regression_weights(tiou: Tensor, is_valid: Tensor, *, counts: Sequence[Tensor], draw: Tensor) -> Tensor:
    """1 for proposals that the regression loss takes, else 0.

    Args:
        tiou: (B, D, L).
        is_valid: (B, D, L) bool.
        counts: how many valid proposals are high, middle and low.
        draw: (B, D, L) even random numbers in [0, 1).
    """
    high, middle, low = tiou_bands(tiou, is_valid)
    num_high, num_middle, num_low = counts
    chosen = high | (middle & (draw * num_middle < num_high)) | (low & (draw * num_low < num_high))
    return chosen.to(tiou.dtype)


def tiou_bands(tiou: Tensor, is_valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which proposals are high (above 0.7), middle (0.3 to 0.7) and low (above 0, to 0.3)."""
    high = is_valid & (tiou > HIGH_TIOU)
    middle = is_valid & (tiou > LOW_TIOU) & (tiou <= HIGH_TIOU)
    low = is_valid & (tiou > 0.0) & (tiou <= LOW_TIOU)
    return high, middle, low


def proposal_losses(
    out: ProposalOutputs, *, mask: Tensor, targets: Sequence[Targets], regression_weight: float
) -> StepLosses:
    """boundaries + regression_weight x regression + classification (+ labels). 0 where nothing is valid.

    Args:
        out: of B windows of L snippets.
        mask: (B, L) bool.
        targets: B of them, in snippet index.
        regression_weight: 10 in both papers' code.
    """
    max_duration, length = out.regression.shape[1:]
    wanted = proposal_targets(
        targets,
        num_snippets=length,
        max_duration=max_duration,
        dtype=out.start.dtype,
        device=out.start.device,
    )
    cells = valid_cells(mask, max_duration=max_duration)
    is_start, is_end = wanted.start > POSITIVE_BOUNDARY, wanted.end > POSITIVE_BOUNDARY
    is_matched = wanted.tiou > POSITIVE_TIOU
    is_labelled = cells & (wanted.tiou > LABELLED_TIOU)
    bands = tiou_bands(wanted.tiou, cells)
    sets = [is_start & mask, ~is_start & mask, is_end & mask, ~is_end & mask]
    sets += [is_matched & cells, ~is_matched & cells, *bands, is_labelled]
    counts = rank_share(torch.stack([each.sum() for each in sets]).to(out.start.dtype))
    per = divisor(counts)

    def cross_entropy(logits: Tensor, is_positive: Tensor, is_valid: Tensor, first: int) -> Tensor:
        return balanced_cross_entropy(
            logits, is_positive, is_valid, num_positive=per[first], num_negative=per[first + 1]
        )

    start = cross_entropy(out.start, is_start, mask, 0)
    end = cross_entropy(out.end, is_end, mask, 2)
    classification = cross_entropy(out.classification, is_matched, cells, 4)
    weights = regression_weights(
        wanted.tiou, cells, counts=counts[6:9].unbind(), draw=torch.rand_like(wanted.tiou)
    )
    error = (torch.sigmoid(out.regression) - wanted.tiou) ** 2
    regression = 0.5 * (weights * error).sum() / divisor(rank_share(weights.sum()))
    total = start + end + regression_weight * regression + classification
    parts = {"boundaries": start + end, "regression": regression, "classification": classification}
    if out.labels is not None:
        each = F.cross_entropy(out.labels, wanted.label, reduction="none")
        parts["labels"] = torch.where(is_labelled, each, 0.0).sum() / per[9]
        total = total + parts["labels"]
    return StepLosses(total=total, parts={name: part.detach() for name, part in parts.items()})
