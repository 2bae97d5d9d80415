"""Linear evaluation: how well a linear layer tells action from background, snippet by snippet. A cheap look at features.

Source: SoLa's published code, utils.py: features divided by their norm; one linear layer to two classes, cross entropy, SGD
at 0.01 with momentum 0.9, batches of 256, 16 epochs; snippets lie in groups of 100 of one class, and an epoch draws one
snippet of every group; the score is the mean validation accuracy of epochs 6 to 16. What differs: a set smaller than the
published one (over a million snippets) is cut into smaller groups and drawn several times in an epoch, so that an epoch has
MIN_STEPS batches and the layer gets anywhere; the validation snippets count all, each once; and the mean of both classes'
accuracies stands beside the plain accuracy, since background is usually more than half.

It needs annotations, so it judges and chooses; similarity matching itself has no labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lofi.data.annotations import AnnotatedVideo
from lofi.data.feature_store import FeatureDirectory, read_feature

GROUP_SNIPPETS = 100
BATCH_SNIPPETS = 256
MIN_STEPS = 200
"""Batches of an epoch, at the least."""
NUM_EPOCHS = 16
FIRST_COUNTED_EPOCH = 5
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


def is_action_snippet(video: AnnotatedVideo, times_sec: np.ndarray) -> np.ndarray:
    """(L,) bool: the time that a snippet stands for lies inside an annotated segment. Args: times_sec: (L,)."""
    inside = [(segment.start_sec <= times_sec) & (times_sec < segment.end_sec) for segment in video.segments]
    result: np.ndarray = np.any(inside, axis=0) if inside else np.zeros(len(times_sec), dtype=bool)
    return result


@torch.no_grad()
def label_snippets(
    videos: Sequence[AnnotatedVideo], directory: FeatureDirectory, *, adapt: Callable[[Tensor], Tensor]
) -> LabelledSnippets:
    """All snippets of the videos.

    Args:
        videos: annotated, with features.
        directory: of their features.
        adapt: (1, L, D) -> (1, L, D), such as an adapter on whole sequences.
    """
    features, labels = [], []
    for video in videos:
        rows = torch.from_numpy(read_feature(directory, video.name))
        features.append(F.normalize(adapt(rows[None])[0].float().cpu(), dim=-1))
        times_sec = directory.manifest.row_times_sec(len(rows), duration_sec=video.duration_sec)
        labels.append(torch.from_numpy(is_action_snippet(video, times_sec)))
    return LabelledSnippets(features=torch.cat(features), is_action=torch.cat(labels))


def evaluate_linearly(
    training: LabelledSnippets, validation: LabelledSnippets, *, seed: int = 0
) -> LinearEvaluation:
    """Train the linear layer and measure it. Raises ValueError where the training snippets are all of one class."""
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
    for epoch in range(NUM_EPOCHS):
        drawn = torch.cat([_draw(groups, generator) for _ in range(num_draws)])
        for batch in drawn.split(BATCH_SNIPPETS):
            optimizer.zero_grad()
            F.cross_entropy(layer(training.features[batch]), labels[batch]).backward()
            optimizer.step()
        if epoch >= FIRST_COUNTED_EPOCH:
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
        if not len(members):
            raise ValueError(
                f"linear evaluation: none of the {len(is_action)} training snippets lies "
                f"{'inside' if value else 'outside'} an annotated segment."
            )
        shuffled = members[torch.randperm(len(members), generator=generator)]
        groups += shuffled.split(group_size)
    return groups


@torch.no_grad()
def _accuracies(layer: nn.Module, snippets: LabelledSnippets) -> tuple[float, float]:
    is_right = (layer(snippets.features).argmax(dim=1) == 1) == snippets.is_action
    per_class = [is_right[snippets.is_action == value].float().mean() for value in (False, True)]
    known = [float(share) for share in per_class if not torch.isnan(share)]
    return float(is_right.float().mean()), sum(known) / len(known)
