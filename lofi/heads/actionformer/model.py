"""The ActionFormer head: pyramid, shared classification and regression heads, losses, detections.

Source: Zhang, Wu and Li, "ActionFormer: Localizing Moments of Actions with Transformers", ECCV 2022. K sigmoid classes;
at each location the distances to start and end, not below 0, in strides of the location's level. Losses: focal (summed
over valid locations) and distance-IoU (summed over positive ones), both divided by a running mean of the number of
positive locations, which is the same on all ranks.
No weight depends on L: one head serves every number of snippets, also in turn.

Shapes: features (B, D, L), mask (B, L) True where the snippet is valid, M locations of all levels.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lofi.heads.actionformer.blocks import ConvNormRelu, MaskedConv, TransformerBlock
from lofi.heads.actionformer.config import ActionFormerConfig
from lofi.heads.actionformer.detections import location_detections
from lofi.heads.actionformer.location_losses import LocationOutputs, location_losses
from lofi.heads.actionformer.pyramid import Pyramid, pyramid_locations
from lofi.heads.feature_width import check_feature_width
from lofi.heads.float_range import at_least_float32
from lofi.protocols import StepLosses
from lofi.segments import Detections, Targets


def build_actionformer(
    config: ActionFormerConfig, *, feature_width: int, num_classes: int
) -> "ActionFormerHead":
    """The head for features of width D = `feature_width` and K = `num_classes`."""
    return ActionFormerHead(config, feature_width=feature_width, num_classes=num_classes)


class LevelScale(nn.Module):
    """One learned factor per pyramid level."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(levels))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """x (B, C, M), level (M,) int64 -> (B, C, M)."""
        # A sum in place of an index, whose backward adds in no fixed order.
        is_level = level[:, None] == torch.arange(len(self.factor), device=level.device)
        return x * (is_level * self.factor).sum(dim=1)


class ConvHead(nn.Module):
    """A few convolutions over the pyramid, the inner ones of `width` channels (None: as many as come in):
    (B, C, M) -> (B, outputs, M)."""

    def __init__(
        self, in_channels: int, outputs: int, *, width: int | None, layers: int, kernel: int
    ) -> None:
        super().__init__()
        channels = [in_channels, *[width or in_channels] * (layers - 1)]
        self.layers = nn.ModuleList(
            ConvNormRelu(before, after, kernel=kernel) for before, after in pairwise(channels)
        )
        self.output = MaskedConv(channels[-1], outputs, kernel=kernel)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        return self.output(x, mask)


def start_from_prior(head: ConvHead, prior: float) -> None:
    """Let every class start at this score."""
    assert head.output.conv.bias is not None
    nn.init.constant_(head.output.conv.bias, -math.log((1.0 - prior) / prior))


class ActionFormerHead(nn.Module):
    """`lofi.protocols.TalHead`: `losses` to train, `detect` to predict; calling the module gives the raw outputs."""

    loss_normalizer: Tensor

    def __init__(self, config: ActionFormerConfig, *, feature_width: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = 1 if config.class_agnostic else num_classes
        self.feature_width = feature_width
        width = config.embed_width

        def block(level: int, stride: int) -> TransformerBlock:
            sees_all = config.full_top_level and level == config.levels - 1
            return TransformerBlock(
                width,
                num_heads=config.num_heads,
                window=None if sees_all else config.window,
                stride=stride,
                dropout=config.dropout,
                drop_path=config.drop_path,
                relative_positions=config.relative_positions,
            )

        self.pyramid = Pyramid(
            feature_width=feature_width,
            width=width,
            embed_layers=config.embed_layers,
            embed_kernel=config.embed_kernel,
            streams=config.streams,
            position_embedding=config.position_embedding,
            stem_layers=config.stem_layers,
            levels=config.levels,
            gap=config.head_kernel // 2,
            make_block=block,
        )

        def conv_head(outputs: int) -> ConvHead:
            return ConvHead(
                width,
                outputs,
                width=config.head_width,
                layers=config.head_layers,
                kernel=config.head_kernel,
            )

        self.classification, self.regression = conv_head(self.num_classes), conv_head(2)
        self.level_scale = LevelScale(config.levels)
        start_from_prior(self.classification, config.class_prior)
        self.register_buffer("loss_normalizer", torch.tensor(config.loss_normalizer))

    def forward(self, features: Tensor, *, mask: Tensor) -> LocationOutputs:
        """features (B, D, L), mask (B, L) -> what the head says at each of the M locations."""
        check_feature_width(features, expected=self.feature_width)
        mask = mask.to(features.device)
        x, location_mask = self.pyramid(features, mask)
        logits = at_least_float32(self.classification(x, location_mask)).transpose(1, 2)
        raw_distances = at_least_float32(self.regression(x, location_mask))
        locations = pyramid_locations(
            features.shape[2],
            ranges=self.config.level_ranges,
            gap=self.pyramid.gap,
            device=logits.device,
            dtype=logits.dtype,
        )
        distances = F.relu(self.level_scale(raw_distances, locations.level)).transpose(1, 2)[:, :, None]
        return LocationOutputs(logits=logits, distances=distances, mask=location_mask, locations=locations)

    def losses(self, features: Tensor, *, mask: Tensor, targets: Sequence[Targets]) -> StepLosses:
        """The step's losses. Without any valid location they are 0, with a zero gradient for every parameter.

        Args:
            features: (B, D, L) float.
            mask: (B, L) bool.
            targets: B of them, in snippet index.
        """
        # Not self(...): the hooks that ZeRO 3 puts on a module's call cannot look into a dataclass.
        out = self.forward(features, mask=mask)
        return location_losses(
            out, targets=targets, config=self.config, normalizer=self.loss_normalizer, moves=self.training
        )

    @torch.no_grad()
    def detect(self, features: Tensor, *, mask: Tensor) -> list[Detections]:
        """The same inputs -> B detections in snippet index, best first, before any suppression.

        Segments are clipped to [0, end of the last valid snippet].
        """
        out = self.forward(features, mask=mask)
        return location_detections(out, mask=mask.to(features.device), config=self.config)
