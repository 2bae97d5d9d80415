"""PAL: pseudo action localization, an unsupervised pretext. A RECONSTRUCTION from its published idea.

Source: Zhang et al., "Unsupervised Pre-training for Temporal Action Localization Tasks", CVPR 2022, arXiv:2203.13609, of which
the abstract and the authors' overview were at hand: two pseudo-action regions of one video are pasted on two other videos at
random places and scales; the features of the two regions are aligned in time, and their agreement is maximised. Loss, sizes,
distributions and schedule were not found. What stands here in their place:

- a region is a core of the source played at two speeds, so that each time of one region has its counterpart in the other;
- the regions' features are cut out by RoIAlign in one dimension, R bins each, by the known map of the paste;
- features are brought to zero mean and unit variance by running moments of the samples that count (`running_scale`: without
  them a random encoder's stay near the collapsed solution), each bin is projected by two layers, and a temporally dense InfoNCE
  tells the bin of the key video from a queue of earlier keys of other videos, with MoCo-v2's momentum encoder, queue and
  temperature (arXiv:2003.04297);
- crop and flip (and whatever else `data` draws) are drawn per synthetic video, the same for region and background.

The encoder here sees one snippet at a time: a background changes a region's features at its borders alone, where a snippet
shows both. `background_negatives` makes it count: features of the background beside a region are further negatives.
`bin_negatives` makes time count: a static scene tells one video from others at every bin alike, the bins of a region only by what
changes.
"""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lofi.batches import Views, WindowBatch
from lofi.detector import draw_snippet_seeds
from lofi.gradients.detached import encode_detached
from lofi.objectives.accuracies import (
    VALIDATION_CHUNK_SNIPPETS,
    Measured,
    check_validation,
    rows_of,
    valid_rows,
)
from lofi.objectives.composed_frames import ComposedEncoder, views_of
from lofi.objectives.contrastive_queue import KeyQueue, contrast
from lofi.objectives.momentum_encoder import MomentumCopy
from lofi.objectives.pasting import PastedPairs, Pastes, draw_pairs
from lofi.objectives.ranks import mean_over_ranks, rows_of_all_ranks
from lofi.objectives.region_alignment import align_regions
from lofi.objectives.running_scale import RunningScale
from lofi.protocols import GradientPath, StepLosses


@dataclass(frozen=True, kw_only=True)
class PalConfig:
    """Agreement of pasted regions (a reconstruction). The contrastive defaults are MoCo-v2's, the others ours."""

    min_region: float = 0.25
    """Least length of a region's core, as a share of the stretch of video."""
    max_region: float = 0.5
    """Greatest length of it."""
    max_scale: float = 2.0
    """A core is played at 1 / max_scale to max_scale times its length; at least 1."""
    bins: int = 4
    """R, parts of a region that are compared one by one."""
    projection_width: int = 128
    """d, of the vectors that are compared."""
    temperature: float = 0.2
    """Similarities are divided by it."""
    momentum: float = 0.999
    """Of the key encoder, in [0, 1)."""
    queue: int = 65536
    """Keys that are remembered; a step of B windows adds B x bins, over all ranks. Those of a query's own video are no negatives
    for it."""
    background_negatives: bool = False
    """Take the snippets beside a region in its key video for negatives too."""
    bin_negatives: bool = False
    """Take the other bins of the key's region for negatives too, so that the times of a region must be told apart."""
    windows_per_video: int = 1
    """Stretches of each video and epoch."""
    validate_every_epochs: int | None = None
    """Epochs between two measures of the agreement on data.validation_subset; null for none."""
    weights: Literal["newest", "best"] = "newest"
    """Which checkpoint the run hands on; best is the one of the highest agreement."""

    def __post_init__(self) -> None:
        if not 0 < self.min_region <= self.max_region <= 1:
            raise ValueError(
                f"objective.min_region and max_region are {self.min_region} and {self.max_region}; they must be shares of "
                "the stretch, the first not the larger."
            )
        if self.max_scale < 1:
            raise ValueError(f"objective.max_scale is {self.max_scale}; it must be at least 1.")
        for name in ("bins", "projection_width", "queue", "windows_per_video"):
            if getattr(self, name) < 1:
                raise ValueError(f"objective.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.temperature <= 0:
            raise ValueError(f"objective.temperature is {self.temperature}; it must be positive.")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"objective.momentum is {self.momentum}; it must lie in [0, 1).")
        check_validation(self.validate_every_epochs, self.weights)


class PseudoActionLocalization(nn.Module):
    """A snippet encoder under a projection, with momentum copies of both and a queue. It is the `pal` objective."""

    def __init__(
        self,
        *,
        encoder: nn.Module,
        encode: GradientPath,
        projection: nn.Module,
        feature_width: int,
        config: PalConfig,
        key_chunk: int,
    ) -> None:
        """`feature_width`: D; `key_chunk`: snippets that the key encoder encodes together."""
        super().__init__()
        self.encoder = encoder
        self.encode = encode
        self.projection = projection
        self.key_encoder = MomentumCopy(encoder)
        self.key_projection = MomentumCopy(projection)
        self.scale = RunningScale(feature_width)
        self.queue = KeyQueue(size=config.queue, width=config.projection_width)
        self.config = config
        self.key_chunk = key_chunk

    def forward(self, batch: WindowBatch) -> StepLosses:
        """frames (B, L, C, T, H, W), stretches of evenly spaced frames -> InfoNCE over B x R bins, and their agreement: the
        share of bins whose counterpart is more similar than every negative. In training the momentum copies follow and the
        queue takes the step's keys."""
        config = self.config
        frames = self._moved(batch)
        pairs = self._draw(batch, generator=np.random.default_rng(int(torch.randint(2**62, ()))))
        seeds = draw_snippet_seeds(batch.mask) if self.training else None
        query_views, key_views = (
            _views(batch, side, device=frames.device) for side in (pairs.query, pairs.key)
        )
        features_BLD = self.encode(
            ComposedEncoder(self.encoder, frames, views=query_views),
            _places(pairs.query, batch),
            snippet_seeds=seeds,
        )
        is_valid_B = torch.from_numpy(pairs.is_valid).to(features_BLD.device)
        if self.training:
            self.scale.follow(features_BLD, is_valid=is_valid_B)
            self.key_encoder.follow(self.encoder, momentum=config.momentum)
            self.key_projection.follow(self.projection, momentum=config.momentum)
        with torch.no_grad():
            composed = ComposedEncoder(self.key_encoder, frames, views=key_views)
            places_N = _places(pairs.key, batch).flatten(0, 1)
            keys = torch.cat([composed(chunk) for chunk in places_N.split(self.key_chunk)])
            keys_BLD = keys.unflatten(0, features_BLD.shape[:2])
            positives_BRd = self._project(self.key_projection, keys_BLD, pairs.key, batch)
        queries_BRd = self._project(self.projection, features_BLD, pairs.query, batch)
        owners_B = torch.tensor([zlib.crc32(window.video.encode()) for window in batch.windows])
        owners_B = owners_B.to(features_BLD.device)
        own_BMd, own_mask = self._own_negatives(keys_BLD, positives_BRd, pairs.key, batch)
        logits_BRN = contrast(
            queries_BRd,
            positives_BRd,
            self.queue.keys.detach().clone(),
            temperature=config.temperature,
            is_negative=self.queue.owners != owners_B[:, None],
            own_negatives=own_BMd,
            own_mask=own_mask,
        )
        if self.training:
            # A sample without two others to be pasted on has a region of its own window; it is a key like any other.
            owners_BR = owners_B.repeat_interleave(config.bins)
            self.queue.push(rows_of_all_ranks(positives_BRd.flatten(0, 1)), rows_of_all_ranks(owners_BR))
        right_answers = torch.zeros(logits_BRN.shape[:2], dtype=torch.int64, device=logits_BRN.device)
        losses_BR = F.cross_entropy(logits_BRN.flatten(0, 1), right_answers.flatten(), reduction="none")
        losses_B = losses_BR.unflatten(0, right_answers.shape).mean(dim=1)
        num_valid = mean_over_ranks(is_valid_B.sum().to(losses_B)).clamp(min=1)
        total = (losses_B * is_valid_B).sum() / num_valid
        agrees_B = (logits_BRN.detach().argmax(dim=-1) == 0).to(losses_B).mean(dim=1)
        return StepLosses(
            total=total,
            parts={
                "contrast": total.detach(),
                "agreement": (agrees_B * is_valid_B).sum() / num_valid,
            },
        )

    def _moved(self, batch: WindowBatch) -> Tensor:
        assert batch.frames is not None
        if len(batch.frames) < 3:
            raise ValueError(
                f"a rank's batch has {len(batch.frames)} windows; a region of one is pasted on two others, so train.batch_size "
                "must be at least 3 for each rank."
            )
        return batch.frames.to(next(self.encoder.parameters()).device, non_blocking=True)

    def _draw(self, batch: WindowBatch, *, generator: np.random.Generator) -> PastedPairs:
        assert batch.frames is not None
        num_frames = batch.frames.shape[1] * batch.frames.shape[3]
        least, most = (
            max(1, round(share * num_frames)) for share in (self.config.min_region, self.config.max_region)
        )
        return draw_pairs(
            [window.video for window in batch.windows],
            is_there=is_decoded(batch),
            num_frames=num_frames,
            core_frames=(least, most),
            max_scale=self.config.max_scale,
            generator=generator,
        )

    def _project(
        self, projection: nn.Module, features_BLD: Tensor, pastes: Pastes, batch: WindowBatch
    ) -> Tensor:
        """(B, R, d) of norm 1: the pasted regions, cut out and projected."""
        assert batch.frames is not None
        regions = torch.from_numpy(pastes.region / batch.frames.shape[3]).to(features_BLD.device)
        return _normalized(
            projection(align_regions(self.scale(features_BLD), regions, bins=self.config.bins))
        )

    @torch.no_grad()
    def _own_negatives(
        self, keys_BLD: Tensor, positives_BRd: Tensor, pastes: Pastes, batch: WindowBatch
    ) -> tuple[Tensor | None, Tensor | None]:
        """Negatives out of a sample's own key video: (B, M, d) of norm 1, and (B, R, M) bool, for which bins each is one."""
        bins = self.config.bins
        vectors: list[Tensor] = []
        masks: list[Tensor] = []
        if self.config.background_negatives:
            vectors.append(_normalized(self.key_projection(self.scale(keys_BLD))))
            masks.append(outside_region(pastes, batch).to(keys_BLD.device)[:, None].expand(-1, bins, -1))
        if self.config.bin_negatives:
            vectors.append(positives_BRd)
            others_RR = ~torch.eye(bins, dtype=torch.bool, device=keys_BLD.device)
            masks.append(others_RR.expand(len(positives_BRd), -1, -1))
        return (torch.cat(vectors, dim=1), torch.cat(masks, dim=2)) if vectors else (None, None)

    @torch.no_grad()
    def measure(self, batch: WindowBatch) -> Tensor:
        """(B, 4): of a region's bins, the share that is nearest to its counterpart among all bins of the batch's key videos, and
        the share that is nearest to a bin of the right video; the chance of the first; the mean similarity of counterparts.
        Queries and keys by the trained encoder, with draws that follow from the videos' names."""
        if len(batch.windows) < 3:
            return torch.full((len(batch.windows), 4), torch.nan, dtype=torch.float64)
        frames = self._moved(batch)
        names = "\0".join(window.video for window in batch.windows)
        pairs = self._draw(batch, generator=np.random.default_rng(zlib.crc32(names.encode())))
        projected = []
        for pastes in (pairs.query, pairs.key):
            views = _views(batch, pastes, device=frames.device)
            features_BLD = encode_detached(
                ComposedEncoder(self.encoder, frames, views=views),
                _places(pastes, batch),
                snippet_seeds=None,
                chunk_size=VALIDATION_CHUNK_SNIPPETS,
            )
            projected.append(self._project(self.projection, features_BLD, pastes, batch).cpu())
        size, bins = projected[0].shape[:2]
        is_valid = torch.from_numpy(pairs.is_valid)
        similarity_BRBR = torch.einsum("bud,cvd->bucv", *projected)
        similarity_BRBR[:, :, ~is_valid] = -torch.inf
        nearest_BR = similarity_BRBR.flatten(2).argmax(dim=2)
        right_BR = torch.arange(size * bins).reshape(size, bins)
        columns = (
            (nearest_BR == right_BR).double().mean(dim=1),
            (nearest_BR // bins == right_BR // bins).double().mean(dim=1),
            torch.full((size,), 1 / max(1, int(is_valid.sum()) * bins)),
            (projected[0] * projected[1]).sum(dim=2).mean(dim=1),
        )
        return rows_of(columns, is_valid=is_valid)

    def summarise(self, rows: Tensor) -> Measured:
        """The score is the agreement: bins that are nearest to their counterpart."""
        agreement, video_agreement, chance, similarity = valid_rows(rows).mean(dim=0).tolist()
        return Measured(
            score=agreement,
            details={"chance": chance, "video_agreement": video_agreement, "similarity": similarity},
        )


def is_decoded(batch: WindowBatch) -> list[bool]:
    """Of each window; one that could not be is masked throughout."""
    return [bool(mask.any()) for mask in batch.mask]


def outside_region(pastes: Pastes, batch: WindowBatch) -> Tensor:
    """(B, L) bool: snippets that show nothing of the pasted region."""
    assert batch.frames is not None
    num_snippets, frames = batch.frames.shape[1], batch.frames.shape[3]
    first = np.arange(num_snippets) * frames
    is_outside = (first + frames <= pastes.region[:, :1]) | (first >= pastes.region[:, 1:])
    return torch.from_numpy(is_outside)


def _places(pastes: Pastes, batch: WindowBatch) -> Tensor:
    """(B, L, 1 + T): where the frames of the synthetic videos come from."""
    assert batch.frames is not None
    num_snippets, frames = batch.frames.shape[1], batch.frames.shape[3]
    return pastes.frame_map(num_frames=num_snippets * frames).snippets(frames=frames)


def _views(batch: WindowBatch, pastes: Pastes, *, device: torch.device) -> Views | None:
    """A synthetic video is shown as its background would be: drawn once for all of its frames, apart from its counterpart's."""
    if batch.views is None:
        return None
    return views_of(batch.views, torch.from_numpy(pastes.background)).to(device)


def _normalized(vectors: Tensor) -> Tensor:
    """Of norm 1, in fp32 at least."""
    return F.normalize(vectors if vectors.dtype == torch.float64 else vectors.float(), dim=-1)


def build_pal(
    config: PalConfig, *, encoder: nn.Module, encode: GradientPath, feature_width: int, key_chunk: int
) -> PseudoActionLocalization:
    projection = nn.Sequential(
        nn.Linear(feature_width, feature_width),
        nn.ReLU(),
        nn.Linear(feature_width, config.projection_width),
    )
    return PseudoActionLocalization(
        encoder=encoder,
        encode=encode,
        projection=projection,
        feature_width=feature_width,
        config=config,
        key_chunk=key_chunk,
    )
