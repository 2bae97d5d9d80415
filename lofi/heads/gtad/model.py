"""The G-TAD head: graph blocks over snippets, SGAlign over every proposal, two maps of scores.

Source: Xu et al., "G-TAD: Sub-Graph Localization for Temporal Action Detection", CVPR 2020, with the numbers of its code (the
anet branch): sub-graphs of 16 bins on the features and 16 on the mean of their neighbours, half a proposal of context on
either side, score = classification x regression. As published it says where, not what (`labels: external`).
No weight depends on L or on the longest duration.

Shapes: features (B, D, L), mask (B, L) True where the snippet is valid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lofi.heads.feature_width import check_feature_width
from lofi.heads.gtad.graph import GraphBlock, neighbour_mean
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
class GtadConfig(ProposalHeadConfig):
    """The recipe's `head:` block for `name: gtad`."""

    neighbours: int = 3
    """Most similar snippets that a snippet is joined to, itself included."""
    groups: int = 32
    """Paths of a graph block."""
    path_width: int = 4
    """Channels of a path."""
    bins: int = 16
    """Points of a proposal on the features, and as many on the mean of their neighbours."""
    context: float = 0.5
    """How far the bins reach beyond either end, as a share of the proposal's length."""
    map_kernel: int = 1
    """Kernel over the map of proposals, odd: 1 for ActivityNet and HACS, 3 for THUMOS14."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, ("neighbours", "groups", "path_width", "bins", "map_kernel"))
        if self.map_kernel % 2 == 0:
            raise ValueError(f"head.map_kernel is {self.map_kernel}; it must be odd.")
        if self.context < 0.0:
            raise ValueError(f"head.context is {self.context}; it must not be negative.")


def build_gtad(config: GtadConfig, *, feature_width: int, num_classes: int) -> "GtadHead":
    """The head for features of width D = `feature_width` and K = `num_classes`."""
    check_embed_groups(feature_width, embed_groups=config.embed_groups)
    return GtadHead(config, feature_width=feature_width, num_classes=num_classes)


class BoundaryBranch(nn.Module):
    """A graph block and one score per snippet."""

    def __init__(self, config: GtadConfig) -> None:
        super().__init__()
        self.block = graph_block(config)
        self.score = nn.Conv1d(config.width, 1, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, L) -> logits (B, L)."""
        return self.score(self.block(x, mask))[:, 0]


def graph_block(config: GtadConfig) -> GraphBlock:
    """A block of the config's sizes."""
    return GraphBlock(config.width, groups=config.groups, path_width=config.path_width, k=config.neighbours)


class GtadHead(nn.Module):
    """`lofi.protocols.TalHead`: `losses` to train, `detect` to predict; calling the module gives the raw outputs."""

    def __init__(self, config: GtadConfig, *, feature_width: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.feature_width = feature_width
        self.embedding = nn.Conv1d(feature_width, config.width, 3, padding=1, groups=config.embed_groups)
        self.first_block = graph_block(config)
        self.start = BoundaryBranch(config)
        self.end = BoundaryBranch(config)
        self.second_block = graph_block(config)
        self.align = AlignedLinear(
            2 * config.width,
            config.aligned_width,
            bins=config.bins,
            samples_per_bin=None,
            context=config.context,
        )
        self.map = MapHead(
            config.aligned_width,
            config.map_width,
            kernels=(1, config.map_kernel, config.map_kernel),
            num_labels=num_classes if config.labels == "own" else 0,
        )

    def forward(self, features: Tensor, *, mask: Tensor) -> ProposalOutputs:
        """features (B, D, L), mask (B, L) -> logits of every snippet and every proposal."""
        check_feature_width(features, expected=self.feature_width)
        max_duration = longest_duration(features.shape[2], share=self.config.max_duration)
        base = self.first_block(F.relu(self.embedding(masked(features, mask))), mask)
        x = self.second_block(base, mask)
        subgraphs = torch.cat([x, neighbour_mean(x, mask, k=self.config.neighbours)], dim=1)
        cells = valid_cells(mask, max_duration=max_duration)
        maps = self.map(self.align(subgraphs, max_duration), cells)
        return outputs_of(start=self.start(base, mask), end=self.end(base, mask), maps=maps)

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


def proposal_scores(out: ProposalOutputs) -> Tensor:
    """(B, D, L): classification x regression."""
    return torch.sigmoid(out.regression) * torch.sigmoid(out.classification)
