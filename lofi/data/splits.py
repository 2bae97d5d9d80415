"""Share videos out between training and validation: every class in its share, groups kept whole, the same for a seed.

Greedy, after iterative stratification of multi-label data (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011, algorithm 1),
with groups of videos in place of single examples: the class with the fewest videos left is shared out first, largest groups
first, each to the side that lacks most of that class.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

SIDES = ("training", "validation")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Who is where, and how well the shares were met."""

    subset_of: dict[str, str]
    """Video -> training or validation."""
    videos_of_class: dict[str, tuple[int, int]]
    """Class -> videos with it in training, in validation."""
    num_groups: int

    def absent(self, side: str) -> list[str]:
        """Classes that occur, but in no video of this side."""
        index = SIDES.index(side)
        return [label for label, counts in self.videos_of_class.items() if not counts[index]]


def split_videos(
    labels: Mapping[str, Collection[str]],
    *,
    validation_share: float,
    seed: int = 0,
    groups: Mapping[str, Hashable] | None = None,
) -> Split:
    """Share videos out.

    Args:
        labels: video -> the classes that occur in it, perhaps none. The order of videos does not matter.
        validation_share: part of the videos, of each class as well as of all, that validation should have.
        seed: decides between sides and groups that are equally good.
        groups: video -> its group; videos of one group stay together. A video that is not here is its own group.

    Raises:
        ValueError: the share is not between 0 and 1, or there are fewer than two groups.
    """
    if not 0 < validation_share < 1:
        raise ValueError(f"the validation share is {validation_share:g}; it must lie between 0 and 1.")
    members: dict[Hashable, list[str]] = defaultdict(list)
    for video in sorted(labels):
        group = (groups or {}).get(video)
        members[("video", video) if group is None else ("group", group)].append(video)
    if len(members) < 2:
        what = "all videos are in one group" if len(labels) > 1 else "there is only one video"
        what = what if labels else "there is no video"
        raise ValueError(f"{what}; a split needs at least two groups of videos.")
    generator = random.Random(seed)
    side_of = _assign(members, labels, validation_share, generator)
    subset_of = {video: SIDES[side_of[group]] for group, videos in members.items() for video in videos}
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for video, subset in subset_of.items():
        for label in set(labels[video]):
            counts[label][SIDES.index(subset)] += 1
    return Split(
        subset_of={video: subset_of[video] for video in labels},
        videos_of_class={label: (counts[label][0], counts[label][1]) for label in sorted(counts)},
        num_groups=len(members),
    )


def _assign(
    members: Mapping[Hashable, list[str]],
    labels: Mapping[str, Collection[str]],
    validation_share: float,
    generator: random.Random,
) -> dict[Hashable, int]:
    """Group -> 0 (training) or 1 (validation)."""
    holds = {
        group: Counter(label for video in videos for label in set(labels[video]))
        for group, videos in members.items()
    }
    shares = (1 - validation_share, validation_share)
    totals = Counter({label: 0 for held in holds.values() for label in held})
    for held in holds.values():
        totals.update(held)
    wanted = {label: [count * share for share in shares] for label, count in totals.items()}
    wanted_videos = [len(labels) * share for share in shares]
    left = sorted(members, key=repr)
    generator.shuffle(left)  # equally large groups come in this order
    side_of: dict[Hashable, int] = {}

    def place(group: Hashable, label: str | None) -> None:
        needs = [(wanted[label][side] if label else 0.0, wanted_videos[side]) for side in (0, 1)]
        if math.isclose(needs[0][0], needs[1][0], abs_tol=1e-9):
            needs = [(0.0, need[1]) for need in needs]
        side = int(needs[1] > needs[0])
        side_of[group] = side
        for held, count in holds[group].items():
            wanted[held][side] -= count
        wanted_videos[side] -= len(members[group])

    remaining = {label: {group for group in left if holds[group][label]} for label in wanted}
    while remaining:
        label = min(remaining, key=lambda name: (sum(holds[group][name] for group in remaining[name]), name))
        chosen = [group for group in left if group in remaining[label]]
        for group in sorted(chosen, key=lambda group: -holds[group][label]):
            place(group, label)
            for groups in remaining.values():
                groups.discard(group)
        remaining = {name: groups for name, groups in remaining.items() if groups}
    unlabelled = [group for group in left if group not in side_of]
    for group in sorted(unlabelled, key=lambda group: -len(members[group])):
        place(group, None)
    labelled = [group for group in left if holds[group]]
    if len(labelled) > 1 and len({side_of[group] for group in labelled}) == 1:  # classes of one video each
        in_groups = Counter(label for held in holds.values() for label in held)
        lost = {group: sum(in_groups[label] == 1 for label in holds[group]) for group in labelled}
        moved = min(labelled, key=lambda group: (lost[group], len(members[group])))
        side_of[moved] = 1 - side_of[moved]
    return side_of
