"""BSP: boundary-sensitive pretraining (Xu et al., ICCV 2021, arXiv:2011.10830): which type of boundary does a clip show?

Synthetic clips of four types (`boundaries`) are made on the device out of labelled trimmed clips; a linear layer over the
snippet's feature tells the types apart, by cross entropy. Its code was never released: lengths of transitions and places of
boundaries are ours. The published use is in two streams: features of this encoder beside those of an action-classification
encoder (`data.joined_features`).
"""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
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
    place_of_label,
    rows_of,
    valid_rows,
)
from lofi.objectives.boundaries import BOUNDARIES, SNIPPETS, boundary_clips, other_class
from lofi.objectives.composed_frames import ComposedEncoder, views_of
from lofi.objectives.ranks import mean_over_ranks
from lofi.objectives.tac import NO_LABEL, clip_labels
from lofi.protocols import GradientPath, StepLosses


@dataclass(frozen=True, kw_only=True)
class BspConfig:
    """Types of synthetic boundaries."""

    speed: float = 2.0
    """How many times as fast the faster part of a clip with two speeds is; more than 1, at most 2."""
    blend_share: float = 0.25
    """Part of a clip over which one class becomes the other; 0 is a hard cut."""
    validate_every_epochs: int | None = None
    """Epochs between two validations on data.validation_subset (accuracy over the types); null for none."""
    weights: Literal["newest", "best"] = "newest"
    """Which checkpoint the run hands on; best is the one of the highest accuracy in validation."""

    def __post_init__(self) -> None:
        if not 1 < self.speed <= 2:
            raise ValueError(f"objective.speed is {self.speed}; it must be more than 1 and at most 2.")
        if not 0 <= self.blend_share <= 1:
            raise ValueError(f"objective.blend_share is {self.blend_share}; it must lie in 0 to 1.")
        check_validation(self.validate_every_epochs, self.weights)


class BoundarySensitive(nn.Module):
    """A snippet encoder under a linear layer for the four types. It is the `bsp` objective."""

    def __init__(
        self, *, encoder: nn.Module, encode: GradientPath, type_head: nn.Module, config: BspConfig
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.encode = encode
        self.type_head = type_head
        self.config = config

    def forward(self, batch: WindowBatch) -> StepLosses:
        """frames (B, 4, C, T, H, W), as `data.stretches.PairedStretches` gives them -> cross entropy over 4 B synthetic clips."""
        generator = np.random.default_rng(int(torch.randint(2**62, ())))
        composed, places, types = self._clips(batch, generator=generator)
        seeds = draw_snippet_seeds(places[:, :, 0]) if self.training else None
        features_SLD = self.encode(composed, places, snippet_seeds=seeds)
        logits_S4 = self.type_head(features_SLD[:, 0]).float()
        types_S = types.to(logits_S4.device)
        summed = F.cross_entropy(logits_S4, types_S, ignore_index=NO_LABEL, reduction="sum")
        num_valid = mean_over_ranks((types_S != NO_LABEL).sum().to(logits_S4)).clamp(min=1)
        return StepLosses(
            total=summed / num_valid,
            parts={
                "boundary": summed.detach() / num_valid,
                "accuracy": (logits_S4.argmax(dim=1) == types_S).sum() / num_valid,
            },
        )

    def _clips(
        self, batch: WindowBatch, *, generator: np.random.Generator
    ) -> tuple[ComposedEncoder, Tensor, Tensor]:
        """The encoder of the synthetic clips, their places (4 B, 1, 1 + 3 T), and their types (4 B,), NO_LABEL for what could not
        be decoded or has no window of another class."""
        assert batch.frames is not None
        num_snippets, frames = batch.frames.shape[1], batch.frames.shape[3]
        assert num_snippets == SNIPPETS
        labels = clip_labels(batch).tolist()
        is_there = [bool(mask.any()) for mask in batch.mask]
        others = other_class(labels, is_there=is_there, generator=generator)
        clips = boundary_clips(
            others,
            frames=frames,
            blend_frames=round(self.config.blend_share * frames),
            speed=self.config.speed,
            generator=generator,
        )
        device = next(self.encoder.parameters()).device
        views = None
        if batch.views is not None:
            windows = torch.arange(len(labels)).repeat_interleave(len(BOUNDARIES))
            views = views_of(batch.views, windows).to(device)
        composed = ComposedEncoder(self.encoder, batch.frames.to(device, non_blocking=True), views=views)
        types = np.tile(np.arange(len(BOUNDARIES)), (len(labels), 1))
        types[others == np.arange(len(labels)), BOUNDARIES.index("different_class")] = NO_LABEL
        types[~np.array(is_there)] = NO_LABEL
        return composed, clips.snippets(frames=frames), torch.from_numpy(types.ravel())

    @torch.no_grad()
    def measure(self, batch: WindowBatch) -> Tensor:
        """(4 B, 2): the type of each synthetic clip, and whether it was told; the draws follow from the windows' names."""
        names = "\0".join(f"{window.video} {window.start_sec}" for window in batch.windows)
        generator = np.random.default_rng(zlib.crc32(names.encode()))
        composed, places, types = self._clips(batch, generator=generator)
        features_SLD = encode_detached(
            composed, places, snippet_seeds=None, chunk_size=VALIDATION_CHUNK_SNIPPETS
        )
        logits_S4 = self.type_head(features_SLD[:, 0]).float().cpu()
        is_told = place_of_label(logits_S4, types.clamp(min=0)) == 0
        return rows_of((types, is_told), is_valid=types != NO_LABEL)

    def summarise(self, rows: Tensor) -> Measured:
        """The score is the mean of the types' accuracies; a guess has 0.25."""
        types, is_told = valid_rows(rows).unbind(dim=1)
        details = {
            name: float(is_told[types == place].mean())
            for place, name in enumerate(BOUNDARIES)
            if (types == place).any()
        }
        return Measured(score=sum(details.values()) / len(details), details=details)


def build_bsp(
    config: BspConfig, *, encoder: nn.Module, encode: GradientPath, feature_width: int
) -> BoundarySensitive:
    type_head = nn.Linear(feature_width, len(BOUNDARIES))
    return BoundarySensitive(encoder=encoder, encode=encode, type_head=type_head, config=config)
