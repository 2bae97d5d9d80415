"""The BMN head: boundary scores of every snippet, and a confidence map of every proposal.

Source: Lin et al., "BMN: Boundary-Matching Network for Temporal Action Proposal Generation", ICCV 2019, sections 3.3 to 3.5:
32 points per proposal, each the mean of 3 samples; score = start x end x sqrt(classification x regression). The paper's points
reach a quarter of the proposal beyond either end, its released code's a half, which is the default here. As published it says
where, not what (`labels: external`). No weight depends on L or on the longest duration.

Shapes: features (B, D, L), mask (B, L) True where the snippet is valid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lofi.heads.feature_width import check_feature_width
from lofi.heads.masking import masked
from lofi.heads.proposals.alignment import AlignedLinear
from lofi.heads.proposals.config import ProposalHeadConfig, check_counts, check_embed_groups
from lofi.heads.proposals.head import detections_of, losses_of, outputs_of
from lofi.heads.proposals.losses import ProposalOutputs
from lofi.heads.proposals.map_layers import MapHead
from lofi.heads.proposals.targets import longest_duration, valid_cells
from lofi.protocols import StepLosses
from lofi.segments import Detections, Targets


@dataclass(frozen=True, kw_only=True)
class BmnConfig(ProposalHeadConfig):
    """The recipe's `head:` block for `name: bmn`."""

    bins: int = 32
    """Points of a proposal."""
    samples_per_bin: int = 3
    """Samples whose mean a point is."""
    context: float = 0.5
    """How far the points reach beyond either end, as a share of the proposal's length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, ("bins", "samples_per_bin"))
        if self.context < 0.0:
            raise ValueError(f"head.context is {self.context}; it must not be negative.")


def build_bmn(config: BmnConfig, *, feature_width: int, num_classes: int) -> "BmnHead":
    """The head for features of width D = `feature_width` and K = `num_classes`."""
    check_embed_groups(feature_width, embed_groups=config.embed_groups)
    return BmnHead(config, feature_width=feature_width, num_classes=num_classes)


class BmnHead(nn.Module):
    """`lofi.protocols.TalHead`: `losses` to train, `detect` to predict; calling the module gives the raw outputs."""

    def __init__(self, config: BmnConfig, *, feature_width: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.feature_width = feature_width
        width, groups = config.width, config.embed_groups
        self.base = nn.ModuleList(
            nn.Conv1d(inputs, width, 3, padding=1, groups=groups) for inputs in (feature_width, width)
        )
        self.start = BoundaryBranch(width, groups=groups)
        self.end = BoundaryBranch(width, groups=groups)
        self.narrow = nn.Conv1d(width, config.map_width, 3, padding=1)
        self.align = AlignedLinear(
            config.map_width,
            config.aligned_width,
            bins=config.bins,
            samples_per_bin=config.samples_per_bin,
            context=config.context,
        )
        self.map = MapHead(
            config.aligned_width,
            config.map_width,
            kernels=(1, 3, 3),
            num_labels=num_classes if config.labels == "own" else 0,
        )

    def forward(self, features: Tensor, *, mask: Tensor) -> ProposalOutputs:
        """features (B, D, L), mask (B, L) -> logits of every snippet and every proposal."""
        check_feature_width(features, expected=self.feature_width)
        max_duration = longest_duration(features.shape[2], share=self.config.max_duration)
        x = masked(features, mask)
        for layer in self.base:
            x = masked(F.relu(layer(x)), mask)
        cells = valid_cells(mask, max_duration=max_duration)
        aligned = self.align(masked(F.relu(self.narrow(x)), mask), max_duration)
        maps = self.map(aligned, cells)
        return outputs_of(start=self.start(x, mask), end=self.end(x, mask), maps=maps)

    def losses(self, features: Tensor, *, mask: Tensor, targets: Sequence[Targets]) -> StepLosses:
        """The step's losses. Without any valid snippet they are 0, with a zero gradient for every parameter.

        Args:
            features: (B, D, L) float.
            mask: (B, L) bool.
            targets: B of them, in snippet index.
        """
        return losses_of(self.forward, features, mask=mask, targets=targets, config=self.config)

    @torch.no_grad()
    def detect(self, features: Tensor, *, mask: Tensor) -> list[Detections]:
        """The same inputs -> B windows' proposals in snippet index, best first, before any suppression."""
        return detections_of(self.forward, features, mask=mask, scores=proposal_scores, config=self.config)


class BoundaryBranch(nn.Module):
    """A convolution and one score per snippet: the temporal evaluation module."""

    def __init__(self, width: int, *, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=1, groups=groups)
        self.score = nn.Conv1d(width, 1, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, L), masked -> logits (B, L)."""
        return self.score(F.relu(self.conv(masked(x, mask))))[:, 0]


def proposal_scores(out: ProposalOutputs) -> Tensor:
    """(B, D, L): start x end x sqrt(classification x regression)."""
    start, end = torch.sigmoid(out.start), torch.sigmoid(out.end)
    max_duration, length = out.regression.shape[1:]
    last = torch.arange(length, device=start.device)
    last = (last + torch.arange(max_duration, device=start.device)[:, None]).clamp(max=length - 1)
    confidence = (torch.sigmoid(out.regression) * torch.sigmoid(out.classification)).sqrt()
    return start[:, None, :] * end[:, last] * confidence
