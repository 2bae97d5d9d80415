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
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from lofi.heads.actionformer.blocks import ConvNormRelu, MaskedConv
from lofi.heads.actionformer.losses import distance_iou_loss, sigmoid_focal_loss
from lofi.heads.actionformer.pyramid import Locations, Pyramid, pyramid_locations
from lofi.heads.actionformer.targets import assign_targets
from lofi.protocols import StepLosses
from lofi.segments import Detections, Targets


@dataclass(frozen=True, kw_only=True)
class ActionFormerConfig:
    """The recipe's `head:` block for `name: actionformer`."""

    embed_width: int = 512
    """Channels of the pyramid and of both heads."""
    embed_layers: int = 2
    """Convolutions of the input projection."""
    embed_kernel: int = 3
    """Their kernel, snippets (odd)."""
    stem_layers: int = 2
    """Transformer blocks at full rate."""
    levels: int = 6
    """Pyramid levels, the first (full rate) included; each next one has half the rate."""
    num_heads: int = 4
    """Attention heads; divides embed_width."""
    window: int | None = 19
    """Positions that a position attends to on its level, itself included (odd); null for all of them."""
    head_layers: int = 3
    """Convolutions of the classification and of the regression head, the last one included."""
    head_kernel: int = 3
    """Their kernel, positions (odd)."""
    dropout: float = 0.0
    """Dropout share in the transformer blocks."""
    drop_path: float = 0.1
    """Share of samples for which a residual branch is dropped in training."""
    first_range: float = 4.0
    """The first level regresses distances up to this many snippets, the next from there to twice as many, and so on."""
    centre_radius: float = 1.5
    """Only locations this near to a segment's centre learn it, strides of their level."""
    class_prior: float = 0.01
    """Score of every class at the start of training, between 0 and 1."""
    loss_normalizer: float = 100.0
    """First value of the running mean of positive locations per batch (of all ranks together)."""
    loss_normalizer_momentum: float = 0.9
    """How much of the running mean stays at each training step."""
    regression_weight: float = 1.0
    """Weight of the regression loss beside the classification loss."""
    min_score: float = 0.001
    """Detections need a score above this, before any suppression."""
    pre_nms_top_k: int = 2000
    """Detections kept per window, before any suppression."""
    min_length: float = 0.05
    """Detections need to be longer than this, snippets."""

    def __post_init__(self) -> None:
        for name in (
            "embed_width",
            "embed_layers",
            "stem_layers",
            "levels",
            "num_heads",
            "head_layers",
            "pre_nms_top_k",
        ):
            lowest = 0 if name == "stem_layers" else 1
            if getattr(self, name) < lowest:
                raise ValueError(f"head.{name} is {getattr(self, name)}; it must be at least {lowest}.")
        for name in ("embed_kernel", "head_kernel", "window"):
            value = getattr(self, name)
            if value is not None and (value < 1 or value % 2 == 0):
                null = ", or null for full attention" if name == "window" else ""
                raise ValueError(f"head.{name} is {value}; it must be odd and at least 1{null}.")
        if self.embed_width % self.num_heads:
            raise ValueError(
                f"head.embed_width is {self.embed_width}; it must be divisible by head.num_heads ({self.num_heads})."
            )
        for name in ("dropout", "drop_path", "loss_normalizer_momentum", "min_score"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"head.{name} is {getattr(self, name)}; it must be at least 0 and below 1.")
        if not 0.0 < self.class_prior < 1.0:
            raise ValueError(f"head.class_prior is {self.class_prior}; it must lie between 0 and 1.")
        for name in ("first_range", "centre_radius", "loss_normalizer"):
            if getattr(self, name) <= 0.0:
                raise ValueError(f"head.{name} is {getattr(self, name)}; it must be greater than 0.")
        for name in ("regression_weight", "min_length"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"head.{name} is {getattr(self, name)}; it must not be negative.")


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
    """A few convolutions over the pyramid: (B, C, M) -> (B, outputs, M)."""

    def __init__(self, width: int, outputs: int, *, layers: int, kernel: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNormRelu(width, width, kernel=kernel) for _ in range(layers - 1))
        self.output = MaskedConv(width, outputs, kernel=kernel)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        return self.output(x, mask)


@dataclass(frozen=True, kw_only=True)
class LocationOutputs:
    """logits (B, M, K); distances (B, M, 2) >= 0, strides; mask (B, M) bool; locations (M,). float32 or wider."""

    logits: Tensor
    distances: Tensor
    mask: Tensor
    locations: Locations


class ActionFormerHead(nn.Module):
    """`lofi.protocols.TalHead`: `losses` to train, `detect` to predict; calling the module gives the raw outputs."""

    loss_normalizer: Tensor

    def __init__(self, config: ActionFormerConfig, *, feature_width: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.feature_width = feature_width
        width = config.embed_width
        self.pyramid = Pyramid(
            feature_width=feature_width,
            width=width,
            embed_layers=config.embed_layers,
            embed_kernel=config.embed_kernel,
            stem_layers=config.stem_layers,
            levels=config.levels,
            gap=config.head_kernel // 2,
            num_heads=config.num_heads,
            window=config.window,
            dropout=config.dropout,
            drop_path=config.drop_path,
        )
        self.classification = ConvHead(
            width, num_classes, layers=config.head_layers, kernel=config.head_kernel
        )
        self.regression = ConvHead(width, 2, layers=config.head_layers, kernel=config.head_kernel)
        self.level_scale = LevelScale(config.levels)
        prior_logit = -math.log((1.0 - config.class_prior) / config.class_prior)
        assert self.classification.output.conv.bias is not None
        nn.init.constant_(self.classification.output.conv.bias, prior_logit)
        self.register_buffer("loss_normalizer", torch.tensor(config.loss_normalizer))

    def forward(self, features: Tensor, *, mask: Tensor) -> LocationOutputs:
        """features (B, D, L), mask (B, L) -> what the head says at each of the M locations."""
        if features.shape[1] != self.feature_width:
            raise ValueError(
                f"features have width {features.shape[1]}, but the head was built for {self.feature_width}; "
                "use the encoder (or the feature directory) that the head was built for."
            )
        mask = mask.to(features.device)
        x, location_mask = self.pyramid(features, mask)
        logits = _at_least_float32(self.classification(x, location_mask)).transpose(1, 2)
        raw_distances = _at_least_float32(self.regression(x, location_mask))
        locations = pyramid_locations(
            features.shape[2],
            levels=self.config.levels,
            gap=self.pyramid.gap,
            first_range=self.config.first_range,
            device=logits.device,
            dtype=logits.dtype,
        )
        distances = F.relu(self.level_scale(raw_distances, locations.level)).transpose(1, 2)
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
        with torch.autocast(out.logits.device.type, enabled=False):
            wanted = assign_targets(
                targets,
                locations=out.locations,
                num_classes=self.num_classes,
                centre_radius=self.config.centre_radius,
            )
            is_positive = wanted.is_positive & out.mask
            normalizer = self._normalizer(is_positive.sum()).to(out.logits.dtype)
            focal = sigmoid_focal_loss(out.logits, wanted.classes).sum(dim=2)
            classification = torch.where(out.mask, focal, 0.0).sum() / normalizer
            distance = distance_iou_loss(out.distances, wanted.distances)
            regression = torch.where(is_positive, distance, 0.0).sum() / normalizer
            total = classification + self.config.regression_weight * regression
        return StepLosses(
            total=total,
            parts={"classification": classification.detach(), "regression": regression.detach()},
        )

    @torch.no_grad()
    def detect(self, features: Tensor, *, mask: Tensor) -> list[Detections]:
        """The same inputs -> B detections in snippet index, best first, before any suppression.

        Segments are clipped to [0, end of the last valid snippet].
        """
        out = self.forward(features, mask=mask)
        positions = torch.arange(1, features.shape[2] + 1, device=out.logits.device)
        valid_length = (mask.to(positions.device) * positions).amax(dim=1).to(out.logits.dtype)
        steps = out.distances * out.locations.stride[:, None]
        centre = out.locations.centre
        segments = torch.stack([centre - steps[..., 0], centre + steps[..., 1]], dim=2)
        segments = torch.minimum(segments.clamp(min=0.0), valid_length[:, None, None])
        is_long_enough = segments[..., 1] - segments[..., 0] > self.config.min_length
        scores = torch.where((out.mask & is_long_enough)[..., None], torch.sigmoid(out.logits), 0.0)
        return [self._best(segments[row], scores[row]) for row in range(len(scores))]

    def _best(self, segments: Tensor, scores: Tensor) -> Detections:
        """Segments (M, 2) and scores (M, K) of one window -> its best detections."""
        flat = scores.flatten()
        top = flat.topk(min(self.config.pre_nms_top_k, len(flat)))
        chosen = top.indices[top.values > self.config.min_score]
        return Detections(
            segments=segments[chosen // self.num_classes],
            scores=flat[chosen],
            labels=chosen % self.num_classes,
        )

    @torch.no_grad()
    def _normalizer(self, num_positive: Tensor) -> Tensor:
        """One rank's share of the running mean of positive locations per batch; a training step moves the mean first.

        The mean is over the batch of all ranks together, so that their mean loss is the loss of one rank on that batch.
        """
        is_shared = distributed.is_available() and distributed.is_initialized()
        world_size = distributed.get_world_size() if is_shared else 1
        if self.training:
            count = num_positive.to(self.loss_normalizer.dtype)
            if world_size > 1:
                distributed.all_reduce(count)
            self.loss_normalizer.lerp_(count.clamp(min=1.0), 1.0 - self.config.loss_normalizer_momentum)
        return self.loss_normalizer / world_size


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
