"""What the configs of BMN and G-TAD have in common."""

from dataclasses import dataclass
from typing import Any, Literal

from lofi.heads.proposals.detections import known_labels


@dataclass(frozen=True, kw_only=True)
class ProposalHeadConfig:
    """Options of every head that scores a map of proposals."""

    width: int = 256
    """Channels of the sequence."""
    aligned_width: int = 512
    """Outputs of the layer over a proposal's bins."""
    map_width: int = 128
    """Channels of the map."""
    embed_groups: int = 4
    """Groups of the first convolution; divides the features' width and `width`."""
    max_duration: float = 1.0
    """Longest proposal, as a share of the window's snippets, in (0, 1]."""
    labels: Literal["external", "own"] = "external"
    """external, as published: proposals without a class, which postprocess.video_scores then says; own: a class branch over the
    map, trained on proposals of tIoU above 0.5 (not in the papers)."""
    labels_per_proposal: int = 2
    """Only with labels: own. How many classes a proposal becomes a detection of."""
    regression_weight: float = 10.0
    """Weight of the regression map's loss."""
    pre_nms_top_k: int = 2000
    """Proposals kept per window, before any suppression."""
    min_score: float = 0.0001
    """Detections need a score above this, before any suppression."""

    def __post_init__(self) -> None:
        known_labels(self.labels)
        names = (
            "width",
            "aligned_width",
            "map_width",
            "embed_groups",
            "labels_per_proposal",
            "pre_nms_top_k",
        )
        check_counts(self, names)
        if self.width % self.embed_groups:
            raise ValueError(
                f"head.width is {self.width}; it must be divisible by head.embed_groups ({self.embed_groups})."
            )
        if not 0.0 < self.max_duration <= 1.0:
            raise ValueError(f"head.max_duration is {self.max_duration}; it must be above 0 and at most 1.")
        if self.labels == "external" and self.labels_per_proposal != 2:
            raise ValueError(
                "head.labels_per_proposal has no effect with labels: external; remove it (postprocess.video_scores_top_k "
                "says how many classes count)."
            )
        for name in ("regression_weight", "min_score"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"head.{name} is {getattr(self, name)}; it must not be negative.")

    takes_videos = False
    """Whole videos, of any length, as one window: no, since `max_duration` is a share of the window."""

    @property
    def needs_video_scores(self) -> bool:
        """Whether its detections have no class of their own."""
        return self.labels == "external"


def check_counts(config: Any, names: tuple[str, ...]) -> None:
    """Raise ValueError for one of these options that is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"head.{name} is {getattr(config, name)}; it must be at least 1.")


def check_embed_groups(feature_width: int, *, embed_groups: int) -> None:
    """Raise ValueError where the first convolution cannot share the features among its groups."""
    if feature_width % embed_groups:
        raise ValueError(
            f"head.embed_groups is {embed_groups}, which does not divide the features' width {feature_width}; use a divisor "
            "of it, such as 1."
        )
