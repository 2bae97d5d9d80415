"""The TriDet head: a pyramid of SGP blocks, a classification head, and the Trident-head for boundaries.

Source: Shi et al., "TriDet: Temporal Action Detection with Relative Boundary Modeling", CVPR 2023. Locations, ranges, centre
sampling and the losses' divisor are ActionFormer's. The boundary heads do not train the pyramid (their input is detached), and
the classification loss of what a location learns is multiplied by its tIoU to a power (section 3.4).
What differs from the published code: no gradient flows through that factor, which would lower the loss by a worse boundary.
No weight depends on L.

Shapes: features (B, D, L), mask (B, L) True where the snippet is valid, M locations of all levels, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lofi.heads.actionformer.config import PyramidHeadConfig, check_odd
from lofi.heads.actionformer.detections import location_detections
from lofi.heads.actionformer.location_losses import LocationOutputs, location_losses
from lofi.heads.actionformer.model import ConvHead, LevelScale, start_from_prior
from lofi.heads.actionformer.pyramid import Pyramid, pyramid_locations
from lofi.heads.feature_width import check_feature_width
from lofi.heads.float_range import at_least_float32
from lofi.heads.masking import masked
from lofi.heads.tridet.sgp import SgpBlock
from lofi.heads.tridet.trident import expected_distances
from lofi.protocols import StepLosses
from lofi.segments import Detections, Targets


@dataclass(frozen=True, kw_only=True)
class TridetConfig(PyramidHeadConfig):
    """The recipe's `head:` block for `name: tridet`."""

    window: int = 1
    """Kernel of a block's narrow window branch, positions (odd); of blocks at full rate (`stem_layers`) it is 1."""
    window_scale: float = 5.0
    """How many times wider the wide window branch is, at least 1 (the paper's k)."""
    perceptron_width: int = 768
    """Inner channels of a block's perceptron."""
    norm_groups: int = 16
    """Groups of the perceptron's norm; divides embed_width."""
    init_std: float = 1.0
    """Standard deviation of the depthwise kernels at first. At 0, as published for THUMOS14, no gradient ever reaches them: each
    branch is a product whose factors are all 0, and a block is its norm and its perceptron."""
    boundary_kernel: int = 3
    """Kernel of the start and end heads, positions (odd)."""
    bins: int = 16
    """Greatest distance to a boundary, strides of the level."""
    tiou_power: float = 0.2
    """Power of the tIoU that the classification loss is multiplied by; 0 for none."""
    input_noise: float = 0.0
    """Standard deviation of noise added to the features in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_odd(self, ("window", "boundary_kernel"))
        for name in ("perceptron_width", "norm_groups", "bins"):
            if getattr(self, name) < 1:
                raise ValueError(f"head.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.window_scale < 1.0:
            raise ValueError(f"head.window_scale is {self.window_scale}; it must be at least 1.")
        if self.embed_width % self.norm_groups:
            raise ValueError(
                f"head.embed_width is {self.embed_width}; it must be divisible by head.norm_groups ({self.norm_groups})."
            )
        for name in ("init_std", "tiou_power", "input_noise"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"head.{name} is {getattr(self, name)}; it must not be negative.")


def build_tridet(config: TridetConfig, *, feature_width: int, num_classes: int) -> "TridetHead":
    """The head for features of width D = `feature_width` and K = `num_classes`."""
    return TridetHead(config, feature_width=feature_width, num_classes=num_classes)


class TridetHead(nn.Module):
    """`lofi.protocols.TalHead`: `losses` to train, `detect` to predict; calling the module gives the raw outputs."""

    loss_normalizer: Tensor

    def __init__(self, config: TridetConfig, *, feature_width: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = 1 if config.class_agnostic else num_classes
        self.feature_width = feature_width
        width = config.embed_width

        def block(level: int, stride: int) -> SgpBlock:
            # As in the published code, blocks at full rate have a narrow window of 1 and drop no path.
            return SgpBlock(
                width,
                window=config.window if level > 0 else 1,
                window_scale=config.window_scale,
                perceptron_width=config.perceptron_width,
                norm_groups=config.norm_groups,
                stride=stride,
                drop_path=config.drop_path if level > 0 else 0.0,
                init_std=config.init_std,
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
            gap=max(config.bins, config.head_kernel // 2, config.boundary_kernel // 2),
            make_block=block,
        )

        def conv_head(outputs: int, kernel: int) -> ConvHead:
            return ConvHead(width, outputs, width=config.head_width, layers=config.head_layers, kernel=kernel)

        self.classification = conv_head(self.num_classes, config.head_kernel)
        self.start = conv_head(self.num_classes, config.boundary_kernel)
        self.end = conv_head(self.num_classes, config.boundary_kernel)
        self.offsets = conv_head(2 * (config.bins + 1), config.head_kernel)
        self.level_scale = LevelScale(config.levels)
        # Not of the boundaries, whose scores stand beside the zeros beyond a level's ends.
        start_from_prior(self.classification, config.class_prior)
        self.register_buffer("loss_normalizer", torch.tensor(config.loss_normalizer))

    def forward(self, features: Tensor, *, mask: Tensor) -> LocationOutputs:
        """features (B, D, L), mask (B, L) -> logits (B, M, K) and distances (B, M, K, 2) at each of the M locations."""
        check_feature_width(features, expected=self.feature_width)
        mask = mask.to(features.device)
        if self.training and self.config.input_noise > 0.0:
            features = features + self.config.input_noise * torch.randn_like(features)
        x, location_mask = self.pyramid(features, mask)
        logits = at_least_float32(self.classification(x, location_mask)).transpose(1, 2)
        locations = pyramid_locations(
            features.shape[2],
            ranges=self.config.level_ranges,
            gap=self.pyramid.gap,
            device=logits.device,
            dtype=logits.dtype,
        )
        offsets = at_least_float32(self.offsets(x, location_mask))
        start, end = (
            masked(at_least_float32(head(x.detach(), location_mask)), location_mask)
            for head in (self.start, self.end)
        )
        with torch.autocast(logits.device.type, enabled=False):
            distances = expected_distances(
                start, end, F.relu(self.level_scale(offsets, locations.level)), bins=self.config.bins
            )
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
            out,
            targets=targets,
            config=self.config,
            normalizer=self.loss_normalizer,
            moves=self.training,
            tiou_power=self.config.tiou_power,
        )

    @torch.no_grad()
    def detect(self, features: Tensor, *, mask: Tensor) -> list[Detections]:
        """The same inputs -> B detections in snippet index, best first, before any suppression."""
        out = self.forward(features, mask=mask)
        return location_detections(out, mask=mask.to(features.device), config=self.config)
