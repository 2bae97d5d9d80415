"""Options of ActionFormer, and those that every head on its pyramid has."""

import math
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, kw_only=True)
class PyramidHeadConfig:
    """What ActionFormer and TriDet have in common."""

    embed_width: int = 512
    """Channels of the pyramid."""
    embed_layers: int = 2
    """Convolutions of the input projection."""
    embed_kernel: int = 3
    """Their kernel, snippets (odd)."""
    streams: list[list[int]] | None = field(default=None, metadata={"each": "[width, channels]"})
    """[width, channels] of each of several features that lie side by side (`data.joined_features`): each is first projected to its
    channels by itself, which are embed_width together (as published for Ego4D). null: the features are one."""
    position_embedding: bool = False
    """Add a sine position table, by snippet index, to the projected features."""
    stem_layers: int = 2
    """Blocks at full rate."""
    levels: int = 6
    """Pyramid levels, the first (full rate) included; each next one has half the rate."""
    head_width: int | None = None
    """Channels of the heads on the pyramid; null is embed_width."""
    head_layers: int = 3
    """Convolutions of the classification and of the regression head, the last one included."""
    head_kernel: int = 3
    """Their kernel, positions (odd)."""
    drop_path: float = 0.1
    """Share of samples for which a residual branch is dropped in training."""
    first_range: float = 4.0
    """The first level regresses distances up to this many snippets, the next from there to twice as many, and so on."""
    ranges: list[list[float]] | None = field(default=None, metadata={"each": "[lowest, highest]"})
    """[lowest, highest] distance that each level regresses, snippets, in place of first_range; they may overlap: [[0, 4], [2, 8],
    [4, 16], [8, 32], [16, 64], [32, 10000]] is published for EPIC-Kitchens. Distances beyond the last are learned by nobody."""
    centre_radius: float = 1.5
    """Only locations this near to a segment's centre learn it, strides of their level; .inf: all inside it do."""
    class_agnostic: bool = False
    """Learn actions as one class, without their names; postprocess.video_scores then says the class of each (as published for
    ActivityNet)."""
    class_prior: float = 0.01
    """Score of every class at the start of training, between 0 and 1."""
    label_smoothing: float = 0.0
    """Share of a location's target that is spread over all classes and background, in [0, 1)."""
    loss_normalizer: float = 100.0
    """First value of the running mean of positive locations per batch (of all ranks together)."""
    loss_normalizer_momentum: float = 0.9
    """How much of the running mean stays at each training step."""
    regression_weight: float = 1.0
    """Weight of the regression loss beside the classification loss."""
    min_score: float = 0.001
    """Detections need a score above this, before any suppression."""
    pre_nms_top_k: int = 2000
    """Detections kept of each pyramid level of a window, before any suppression."""
    min_length: float = 0.05
    """Detections need to be longer than this, snippets."""

    def __post_init__(self) -> None:
        at_least_one = (
            "embed_width",
            "embed_layers",
            "stem_layers",
            "levels",
            "head_layers",
            "pre_nms_top_k",
        )
        for name in at_least_one:
            lowest = 0 if name == "stem_layers" else 1
            if getattr(self, name) < lowest:
                raise ValueError(f"head.{name} is {getattr(self, name)}; it must be at least {lowest}.")
        if self.head_width is not None and self.head_width < 1:
            raise ValueError(f"head.head_width is {self.head_width}; it must be at least 1, or null.")
        check_odd(self, ("embed_kernel", "head_kernel"))
        shares = ("drop_path", "label_smoothing", "loss_normalizer_momentum", "min_score")
        check_shares(self, shares)
        if not 0.0 < self.class_prior < 1.0:
            raise ValueError(f"head.class_prior is {self.class_prior}; it must lie between 0 and 1.")
        for name in ("first_range", "centre_radius", "loss_normalizer"):
            if getattr(self, name) <= 0.0:
                raise ValueError(f"head.{name} is {getattr(self, name)}; it must be greater than 0.")
        for name in ("regression_weight", "min_length"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"head.{name} is {getattr(self, name)}; it must not be negative.")
        if self.ranges is not None:
            _check_ranges(self.ranges, levels=self.levels)
            if self.first_range != 4.0:
                raise ValueError(
                    f"head.first_range is {self.first_range} but has no effect with head.ranges; remove one of the two."
                )
        if self.streams is not None:
            _check_streams(self.streams, embed_width=self.embed_width)

    @property
    def level_ranges(self) -> list[tuple[float, float]]:
        """[lower, upper) distance that each level regresses, snippets."""
        if self.ranges is not None:
            return [(lower, upper) for lower, upper in self.ranges]
        bounds = [0.0, *(self.first_range * 2**level for level in range(self.levels - 1)), math.inf]
        return list(pairwise(bounds))

    @property
    def needs_video_scores(self) -> bool:
        """Whether its detections have no class of their own."""
        return self.class_agnostic


@dataclass(frozen=True, kw_only=True)
class ActionFormerConfig(PyramidHeadConfig):
    """The recipe's `head:` block for `name: actionformer`."""

    num_heads: int = 4
    """Attention heads; divides embed_width."""
    window: int | None = 19
    """Positions that a position attends to on its level, itself included (odd); null for all of them."""
    full_top_level: bool = False
    """Attend to all positions of the last level, whatever the window (as published for ActivityNet)."""
    relative_positions: bool = False
    """Learn a bias of the attention for each head and each relative position inside the window (the published code's use_rel_pe,
    off in its configurations); a level that attends to all positions has none, as there."""
    dropout: float = 0.0
    """Dropout share in the transformer blocks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_heads < 1:
            raise ValueError(f"head.num_heads is {self.num_heads}; it must be at least 1.")
        check_odd(self, ("window",), null=", or null for full attention")
        if self.embed_width % self.num_heads:
            raise ValueError(
                f"head.embed_width is {self.embed_width}; it must be divisible by head.num_heads ({self.num_heads})."
            )
        check_shares(self, ("dropout",))
        if self.full_top_level and self.window is None:
            raise ValueError("head.full_top_level has no effect with window: null; remove it.")
        if self.full_top_level and self.levels == 1:
            raise ValueError(
                "head.full_top_level: true is refused with levels: 1, where it leaves no level for the window; set window: null in "
                "its place, or more levels."
            )
        if self.relative_positions and self.window in (None, 1):
            raise ValueError(
                f"head.relative_positions has no effect with window: {self.window or 'null'}; it needs a window of 3 or more."
            )


def _check_ranges(ranges: list[list[float]], *, levels: int) -> None:
    if len(ranges) != levels:
        raise ValueError(
            f"head.ranges has {len(ranges)} ranges; it needs one of each level: {levels} (head.levels)."
        )
    for place, each in enumerate(ranges):
        if len(each) != 2 or not 0.0 <= each[0] < each[1]:
            raise ValueError(
                f"head.ranges[{place}] is {each}; it must be [lowest, highest] with 0 <= lowest < highest."
            )
    if ranges[0][0] > 0.0:
        raise ValueError(
            f"head.ranges begins at {ranges[0][0]}; it must begin at 0, or short actions are learned by nobody."
        )
    for place, (before, after) in enumerate(pairwise(ranges), start=1):
        if after[0] < before[0] or after[1] < before[1]:
            raise ValueError(
                f"head.ranges[{place}] is {after}, after {before}; neither end may fall from level to level."
            )
        if after[0] > before[1]:
            raise ValueError(
                f"head.ranges[{place}] is {after}, after {before}: distances from {before[1]} to {after[0]} are learned by nobody."
            )


def _check_streams(streams: list[list[int]], *, embed_width: int) -> None:
    for place, each in enumerate(streams):
        if len(each) != 2 or min(each) < 1:
            raise ValueError(
                f"head.streams[{place}] is {each}; it must be [width, channels], each at least 1."
            )
    channels = sum(each[1] for each in streams)
    if channels != embed_width:
        raise ValueError(
            f"head.streams have {channels} channels together; they must have head.embed_width ({embed_width})."
        )


def check_odd(config: object, names: tuple[str, ...], *, null: str = "") -> None:
    """Raise ValueError for a kernel or window that has no middle."""
    for name in names:
        value = getattr(config, name)
        if value is not None and (value < 1 or value % 2 == 0):
            raise ValueError(f"head.{name} is {value}; it must be odd and at least 1{null}.")


def check_shares(config: object, names: tuple[str, ...]) -> None:
    """Raise ValueError for one of these options that is not in [0, 1)."""
    for name in names:
        if not 0.0 <= getattr(config, name) < 1.0:
            raise ValueError(f"head.{name} is {getattr(config, name)}; it must be at least 0 and below 1.")
