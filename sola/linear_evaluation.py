"""Linear evaluation: how well a linear layer tells action from background, snippet by snippet. A cheap look at features.

Source: SoLa's published code, utils.py: features divided by their norm; one linear layer to two classes, cross entropy, SGD
at 0.01 with momentum 0.9, batches of 256; snippets lie in groups of 100 of one class, and an epoch draws one snippet of
every group; of 16 epochs the score is the mean validation accuracy of COUNTED_EPOCHS (the 16th is trained and not counted,
so it is left out here). What differs: a set too small for MIN_STEPS batches an epoch is drawn several times in an epoch, and
cut into groups of fewer than 100 where it has not enough of them, so that the layer gets anywhere; the validation snippets
count all, each once; and the mean of both classes' accuracies stands beside the plain accuracy, since background is usually
more than half.

It needs annotations, so it judges and chooses; similarity matching itself has no labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lofi.data.annotations import AnnotatedVideo
from lofi.data.feature_store import FeatureDirectory, num_feature_rows, read_feature

GROUP_SNIPPETS = 100
BATCH_SNIPPETS = 256
MIN_STEPS = 45
"""Batches of an epoch, at the least: about those of the published set (estimated from its 3,770 videos)."""
COUNTED_EPOCHS = range(5, 15)
"""The ten whose mean is the score, counted from 0 (the published code's slice 5:15)."""
LEARNING_RATE = 0.01
MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class LinearEvaluation:
    """Fractions between 0 and 1, means of the counted epochs."""

    accuracy: float
    """Of all validation snippets."""
    balanced_accuracy: float
    """Mean of the accuracies on action and on background; 0.5 is chance."""
    action_share: float
    """Of the validation snippets; max(share, 1 - share) is the accuracy of a constant answer."""


@dataclass(frozen=True, kw_only=True)
class LabelledSnippets:
    """N snippets."""

    features: Tensor
    """(N, D) float32 of norm 1."""
    is_action: Tensor
    """(N,) bool."""


@dataclass(frozen=True, kw_only=True)
class SnippetLabels:
    """Which of the N snippets of some videos are action."""

    videos: tuple[str, ...]
    num_rows: tuple[int, ...]
    """Of each video; N together."""
    is_action: Tensor
    """(N,) bool, the videos' one after the other. Both values occur."""


def is_action_snippet(video: AnnotatedVideo, times_sec: np.ndarray) -> np.ndarray:
    """(L,) bool: the time that a snippet stands for lies inside an annotated segment. Args: times_sec: (L,)."""
    inside = [(segment.start_sec <= times_sec) & (times_sec < segment.end_sec) for segment in video.segments]
    result: np.ndarray = np.any(inside, axis=0) if inside else np.zeros(len(times_sec), dtype=bool)
    return result


def label_snippets(
    videos: Sequence[AnnotatedVideo], directory: FeatureDirectory, *, max_videos: int, seed: int = 0
) -> SnippetLabels:
    """Label the snippets of the videos, or of `max_videos` of them drawn by `seed`; no feature is read.

    Raises:
        ValueError: all snippets are action, or all background.
    """
    if len(videos) > max_videos:
        drawn = np.random.default_rng(seed).choice(len(videos), size=max_videos, replace=False)
        videos = [videos[index] for index in np.sort(drawn)]
    labels = []
    for video in videos:
        num_rows = num_feature_rows(directory, video.name)
        times_sec = directory.manifest.row_times_sec(num_rows, duration_sec=video.duration_sec)
        labels.append(torch.from_numpy(is_action_snippet(video, times_sec)))
    is_action = torch.cat(labels) if labels else torch.zeros(0, dtype=torch.bool)
    for value, where in ((True, "inside"), (False, "outside")):
        if not (is_action == value).any():
            raise ValueError(
                f"linear evaluation: none of the {len(is_action)} snippets of {len(videos)} videos "
                f"({', '.join(sorted({video.subset for video in videos}))}) lies {where} an annotated segment, so there is "
                "nothing to tell apart; check the annotations, or remove objective.linear_evaluation_every_epochs."
            )
    return SnippetLabels(
        videos=tuple(video.name for video in videos), num_rows=tuple(map(len, labels)), is_action=is_action
    )


@torch.no_grad()
def read_snippets(
    labels: SnippetLabels, directory: FeatureDirectory, *, adapt: Callable[[Tensor], Tensor]
) -> LabelledSnippets:
    """The features of labelled snippets, one video at a time into one tensor.

    Args:
        labels: whose videos' features are in the directory.
        directory: of their features.
        adapt: (1, L, D) -> (1, L, D), such as an adapter on whole sequences.
    """
    features = torch.empty(len(labels.is_action), directory.manifest.feature_width)
    places = features.split(labels.num_rows)
    for video, place in zip(labels.videos, places, strict=True):
        rows = torch.from_numpy(read_feature(directory, video))
        place.copy_(F.normalize(adapt(rows[None])[0].float(), dim=-1))
    return LabelledSnippets(features=features, is_action=labels.is_action)


def evaluate_linearly(
    training: LabelledSnippets, validation: LabelledSnippets, *, seed: int = 0
) -> LinearEvaluation:
    """Train the linear layer and measure it. Args: both with snippets of both classes."""
    groups = _groups(training.is_action, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(training.features.shape[1], 2)
    bound = training.features.shape[1] ** -0.5
    for parameter in layer.parameters():
        parameter.data.uniform_(-bound, bound, generator=generator)
    optimizer = torch.optim.SGD(layer.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    labels = training.is_action.long()
    num_draws = -(-MIN_STEPS * BATCH_SNIPPETS // len(groups))
    scores = []
    for epoch in range(COUNTED_EPOCHS.stop):
        drawn = torch.cat([_draw(groups, generator) for _ in range(num_draws)])
        for batch in drawn.split(BATCH_SNIPPETS):
            optimizer.zero_grad()
            F.cross_entropy(layer(training.features[batch]), labels[batch]).backward()
            optimizer.step()
        if epoch in COUNTED_EPOCHS:
            scores.append(_accuracies(layer, validation))
    accuracy, balanced = np.mean(scores, axis=0)
    return LinearEvaluation(
        accuracy=float(accuracy),
        balanced_accuracy=float(balanced),
        action_share=float(validation.is_action.float().mean()),
    )


def _draw(groups: list[Tensor], generator: torch.Generator) -> Tensor:
    """One snippet of every group, in random order: (number of groups,) int64."""
    lengths = torch.tensor([len(group) for group in groups])
    places = (torch.rand(len(groups), generator=generator) * lengths).long()
    drawn = torch.cat(groups)[lengths.cumsum(0) - lengths + places]
    return drawn[torch.randperm(len(drawn), generator=generator)]


def _groups(is_action: Tensor, *, seed: int) -> list[Tensor]:
    """Snippets of each class in shuffled groups."""
    generator = torch.Generator().manual_seed(seed)
    group_size = min(GROUP_SNIPPETS, max(1, len(is_action) // (BATCH_SNIPPETS * MIN_STEPS)))
    groups: list[Tensor] = []
    for value in (False, True):
        members = torch.nonzero(is_action == value).flatten()
        shuffled = members[torch.randperm(len(members), generator=generator)]
        groups += shuffled.split(group_size)
    return groups


@torch.no_grad()
def _accuracies(layer: nn.Module, snippets: LabelledSnippets) -> tuple[float, float]:
    is_right = (layer(snippets.features).argmax(dim=1) == 1) == snippets.is_action
    per_class = [float(is_right[snippets.is_action == value].float().mean()) for value in (False, True)]
    return float(is_right.float().mean()), sum(per_class) / 2
