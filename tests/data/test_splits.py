"""Training and validation: every class in its share, groups whole, the same for a seed."""

import random

import pytest

from lofi.data.splits import split_videos


def labelled(num_videos: int, *, classes: int, seed: int = 0) -> dict[str, set[str]]:
    """Videos with one to three classes each, of very different frequency."""
    generator = random.Random(seed)
    weights = [1 / (index + 1) for index in range(classes)]
    names = [f"class{index}" for index in range(classes)]
    return {
        f"video{index:03}": set(generator.choices(names, weights, k=generator.randint(1, 3)))
        for index in range(num_videos)
    }


def test_every_class_gets_its_share_to_a_video_or_so():
    labels = labelled(200, classes=12)
    split = split_videos(labels, validation_share=0.25)
    assert sum(side == "validation" for side in split.subset_of.values()) == pytest.approx(50, abs=3)
    for label, (training, validation) in split.videos_of_class.items():
        count = sum(label in held for held in labels.values())
        assert training + validation == count
        assert abs(validation - 0.25 * count) <= 2, label
    assert split.absent("training") == split.absent("validation") == []


def test_shares_are_better_than_those_of_chance():
    labels = labelled(60, classes=10, seed=1)

    def error(subset_of):
        total = 0.0
        for label in {label for held in labels.values() for label in held}:
            sides = [subset_of[video] for video, held in labels.items() if label in held]
            total += abs(sides.count("validation") / len(sides) - 0.2)
        return total

    generator = random.Random(0)
    by_chance = []
    for _ in range(20):
        chosen = set(generator.sample(sorted(labels), 12))
        by_chance.append(error({video: "validation" if video in chosen else "training" for video in labels}))
    assert error(split_videos(labels, validation_share=0.2).subset_of) < min(by_chance)


def test_same_seed_gives_the_same_split_whatever_the_order_and_another_seed_another():
    labels = labelled(40, classes=5)
    split = split_videos(labels, validation_share=0.3, seed=3)
    turned = split_videos(dict(reversed(labels.items())), validation_share=0.3, seed=3)
    assert turned.subset_of == split.subset_of
    assert split_videos(labels, validation_share=0.3, seed=4).subset_of != split.subset_of


def test_groups_stay_together_and_keep_the_share():
    labels = labelled(120, classes=4)
    groups = {video: index % 17 for index, video in enumerate(labels)}
    split = split_videos(labels, validation_share=0.3, groups=groups)
    sides = {
        group: {split.subset_of[video] for video in labels if groups[video] == group} for group in range(17)
    }
    assert all(len(side) == 1 for side in sides.values())
    assert split.num_groups == 17
    assert sum(side == "validation" for side in split.subset_of.values()) == pytest.approx(36, abs=8)


def test_a_class_of_one_video_trains_and_is_named():
    labels = {f"v{index}": {"run"} for index in range(9)} | {"rare": {"jump"}}
    split = split_videos(labels, validation_share=0.2)
    assert split.subset_of["rare"] == "training"
    assert split.videos_of_class == {"jump": (1, 0), "run": (7, 2)}
    assert split.absent("validation") == ["jump"]


def test_validation_always_has_something_to_find():
    split = split_videos({"a": {"x"}, "b": {"y"}, "c": {"z"}, "d": set()}, validation_share=0.2)
    found = [video for video, side in split.subset_of.items() if side == "validation"]
    assert any(video in "abc" for video in found)
    assert "training" in split.subset_of.values()


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"validation_share": 1.0}, "the validation share is 1; it must lie between 0 and 1"),
        (
            {"validation_share": 0.5, "groups": {"a": 1, "b": 1}},
            "all videos are in one group; a split needs at least two",
        ),
    ],
)
def test_impossible_split_is_refused(keys, match):
    with pytest.raises(ValueError, match=match):
        split_videos({"a": {"x"}, "b": {"x"}}, **keys)
