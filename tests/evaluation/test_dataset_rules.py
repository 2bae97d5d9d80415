"""Dataset rules on the public annotation files, and on built ones."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lofi.data.annotations import read_annotations
from lofi.evaluation.dataset_rules import (
    CUSTOM_RULES,
    DATASET_RULES,
    DatasetRules,
    default_subset,
    doubtful_videos,
    ground_truth_of,
    predictions_of,
)
from lofi.evaluation.mean_average_precision import mean_average_precision
from lofi.evaluation.tables import GroundTruth, Predictions
from lofi.evaluation.video_lists import read_ambiguous
from lofi.segments import Detection, LabelledSegment

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the public annotation files are not here")
THUMOS = DATA / "annotations" / "thumos14"
EPIC = DATA / "annotations" / "epic-kitchens-100"
AMBIGUOUS = THUMOS / "TH14_txt" / "annotations_test" / "Ambiguous_test.txt"


def read(path: Path, rules: DatasetRules, *, exclude: Sequence[str] = (), **extra: object) -> GroundTruth:
    annotations = read_annotations(path, as_published=True)
    videos = annotations.subset(default_subset(rules, annotations.subsets))
    return ground_truth_of(
        {video.name: video.segments for video in videos},
        rules=rules,
        classes=annotations.classes,
        durations_sec={video.name: video.duration_sec for video in videos},
        exclude=exclude,
        **extra,
    )


def instances(truth: GroundTruth) -> Counter:
    return Counter(
        (truth.videos[video], truth.classes[label], start, end)
        for video, label, start, end in zip(truth.video, truth.label, truth.start, truth.end, strict=True)
    )


def segment(start_sec: float, end_sec: float, label: str) -> LabelledSegment:
    return LabelledSegment(start_sec=start_sec, end_sec=end_sec, label=label)


def test_thresholds_are_the_decimals_that_papers_write() -> None:
    thumos = DATASET_RULES["thumos14"]
    assert thumos.tious == (0.3, 0.4, 0.5, 0.6, 0.7)
    assert (len(thumos.recall_tious), thumos.recall_tious[-1], thumos.max_proposals) == (11, 1.0, 1000)
    for name in ("activitynet13", "activitynet12", "hacs", "fineaction"):
        assert DATASET_RULES[name].tious == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    for name in ("multithumos", "charades"):
        assert DATASET_RULES[name].tious == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    for name in ("epic_kitchens100", "epic_kitchens100_verb", "epic_kitchens100_noun", "ego4d_mq"):
        assert DATASET_RULES[name].tious == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert all(name == rules.name for name, rules in DATASET_RULES.items())


@pytest.mark.parametrize(
    ("available", "chosen"),
    [
        (["Validation", "Test"], "Test"),  # ActionFormer's file
        (["train", "test"], "test"),  # G-TAD's
        (["training", "validation"], "validation"),  # OpenTAD's
    ],
)
def test_the_test_set_of_thumos14_is_found_under_its_several_names(available: list[str], chosen: str) -> None:
    assert default_subset(DATASET_RULES["thumos14"], available) == chosen


def test_file_without_a_usual_subset_lists_those_that_it_has() -> None:
    with pytest.raises(ValueError, match=r"called validation or val, as hacs has it; they have dev, train\."):
        default_subset(DATASET_RULES["hacs"], ["train", "dev"])


@needs_data
def test_public_thumos14_files_differ_by_the_excluded_videos_alone() -> None:
    rules = DATASET_RULES["thumos14"]
    actionformer = read(THUMOS / "thumos14_actionformer_style.json", rules)
    assert (len(actionformer.videos), len(actionformer), len(actionformer.classes)) == (212, 3358, 20)
    assert actionformer.num_outside_video == 26
    assert list(doubtful_videos(actionformer, rules=rules)) == ["video_test_0000270", "video_test_0001496"]

    gtad = read(THUMOS / "thumos_gt_gtad.json", rules)
    assert (len(gtad.videos), len(gtad), doubtful_videos(gtad, rules=rules)) == (210, 3311, {})
    same = read(THUMOS / "thumos14_actionformer_style.json", rules, exclude=list(rules.doubtful))
    assert same.videos == gtad.videos
    assert instances(same) == instances(gtad)

    opentad = ["video_test_0000270", "video_test_0001292"]
    assert len(read(THUMOS / "thumos14_actionformer_style.json", rules, exclude=opentad).videos) == 211


@needs_data
def test_ambiguous_of_thumos14_is_no_class_from_its_own_file_or_as_a_label(tmp_path: Path) -> None:
    rules = DATASET_RULES["thumos14"]
    stretches = read_ambiguous(AMBIGUOUS)
    assert (len(stretches), sum(len(rows) for rows in stretches.values())) == (37, 99)

    database: dict[str, dict] = {}
    for path in sorted(AMBIGUOUS.parent.glob("*_test.txt")):
        for line in path.read_text().splitlines():
            video, start, end = line.split()
            entry = database.setdefault(video, {"subset": "test", "annotations": []})
            entry["annotations"].append(
                {"segment": [float(start), float(end)], "label": path.stem.removesuffix("_test")}
            )
    official = tmp_path / "official.json"
    official.write_text(json.dumps({"database": database}))
    truth = read(official, rules)
    assert (len(truth.videos), len(truth), len(truth.classes)) == (213, 3358, 20)
    assert truth.ambiguous == stretches
    assert "video_test_0001292" in truth.ambiguous

    with_list = read(THUMOS / "thumos14_actionformer_style.json", rules, ambiguous=stretches)
    assert sum(len(rows) for rows in with_list.ambiguous.values()) == 99 - len(
        stretches["video_test_0001292"]
    )
    assert instances(with_list) == instances(truth)
    assert "Ambiguous" in read(official, CUSTOM_RULES).classes


@needs_data
def test_activitynet_is_scored_with_the_odd_instances_of_its_file() -> None:
    truth = read(DATA / "oracles" / "gt" / "activitynet13_val.json", DATASET_RULES["activitynet13"])
    assert (len(truth.videos), len(truth), len(truth.classes)) == (4728, 7293, 200)
    assert int((truth.end == truth.start).sum()) == 3
    assert (truth.num_reversed, truth.num_outside_video) == (0, 1)


@needs_data
def test_multithumos_has_65_classes_on_the_213_test_videos_of_thumos14(tmp_path: Path) -> None:
    published = json.loads((DATA / "annotations" / "multithumos" / "multithumos.json").read_text())
    database = {
        video: {
            "subset": entry["subset"],
            "duration": entry["duration"],
            "annotations": [
                {"segment": [start, end], "label": str(label)} for label, start, end in entry["actions"]
            ],
        }
        for video, entry in published.items()
    }
    path = tmp_path / "multithumos.json"
    path.write_text(json.dumps({"database": database}))
    truth = read(path, DATASET_RULES["multithumos"])
    assert (len(truth.videos), len(truth), len(truth.classes)) == (213, 20208, 65)
    assert (int((truth.end == truth.start).sum()), truth.num_outside_video) == (4, 55)
    of_doubtful = truth.videos.index("video_test_0000270")
    assert int((truth.video == of_doubtful).sum()) == 43


def epic_seconds(text: str) -> float:
    hours, minutes, seconds = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def epic_validation() -> dict[str, list[LabelledSegment]]:
    videos: dict[str, list[LabelledSegment]] = {}
    with (EPIC / "EPIC_100_validation.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            videos.setdefault(row["video_id"], []).append(
                segment(
                    epic_seconds(row["start_timestamp"]),
                    epic_seconds(row["stop_timestamp"]),
                    f"{row['verb_class']},{row['noun_class']}",
                )
            )
    return videos


@needs_data
@pytest.mark.parametrize(
    ("name", "num_present"),
    [("epic_kitchens100", 1352), ("epic_kitchens100_verb", 78), ("epic_kitchens100_noun", 211)],
)
def test_epic_verbs_and_nouns_are_scored_from_the_same_action_pairs(name: str, num_present: int) -> None:
    videos, rules = epic_validation(), DATASET_RULES[name]
    classes = sorted({row.label for rows in videos.values() for row in rows})
    truth = ground_truth_of(videos, rules=rules, classes=classes)
    assert (len(truth.videos), len(truth), len(truth.classes)) == (138, 9668, num_present)
    assert (truth.num_reversed, int((truth.end == truth.start).sum())) == (0, 0)
    found = Predictions.of(
        {
            video: [
                Detection(start_sec=row.start_sec, end_sec=row.end_sec, label=row.label, score=1.0)
                for row in rows
            ]
            for video, rows in videos.items()
        }
    )
    result = mean_average_precision(truth, predictions_of(found, rules=rules), tious=rules.tious)
    assert result.map_T.tolist() == [1.0] * 5


def pairs(**labels: Sequence[str]) -> Mapping[str, list[LabelledSegment]]:
    return {
        video: [segment(10 * n, 10 * n + 5, label) for n, label in enumerate(rows)]
        for video, rows in labels.items()
    }


def test_epic_verb_with_the_wrong_noun_is_a_wrong_action_and_a_right_verb() -> None:
    videos = pairs(v=["3,24", "3,7"], w=["10,24"])
    found = Predictions.of({"v": [Detection(start_sec=0, end_sec=5, label="3,99", score=0.5)]})
    share = {}
    for name in ("epic_kitchens100", "epic_kitchens100_verb", "epic_kitchens100_noun"):
        rules = DATASET_RULES[name]
        truth = ground_truth_of(videos, rules=rules, classes=["10,24", "3,24", "3,7", "5,5"])
        share[name] = mean_average_precision(truth, predictions_of(found, rules=rules), tious=[0.5]).average
    assert truth.classes == ("24", "7", "5")  # a class without an instance stays one, and out of the mean
    assert share == {
        "epic_kitchens100": 0.0,
        "epic_kitchens100_verb": 0.25,  # half of verb 3, none of verb 10
        "epic_kitchens100_noun": 0.0,
    }


@pytest.mark.parametrize("label", ["take", "3,", "1,2,3"])
def test_label_that_is_no_pair_has_no_verb(label: str) -> None:
    rules = DATASET_RULES["epic_kitchens100_verb"]
    with pytest.raises(ValueError, match=f"the label '{label}' is no pair of verb and noun"):
        ground_truth_of(pairs(v=[label]), rules=rules, classes=[label])
    found = Predictions.of({"v": [Detection(start_sec=0, end_sec=5, label=label, score=0.5)]})
    with pytest.raises(ValueError, match=f"the label '{label}' is no pair of verb and noun"):
        predictions_of(found, rules=rules)


def test_excluded_videos_count_on_neither_side() -> None:
    rules = DATASET_RULES["activitynet13"]
    videos = pairs(kept=["a"], lost=["a", "b"])
    found = Predictions.of(
        {
            "lost": [Detection(start_sec=0, end_sec=5, label="a", score=0.9)],
            "kept": [Detection(start_sec=0, end_sec=5, label="a", score=0.5)],
        }
    )
    exclude = ["lost", "of another subset"]
    truth = ground_truth_of(videos, rules=rules, classes=["a", "b"], exclude=exclude)
    left = predictions_of(found, rules=rules, exclude=exclude)
    assert (truth.videos, len(truth), len(left)) == (("kept",), 1, 1)
    result = mean_average_precision(truth, left, tious=[0.5])
    assert (result.average, result.num_outside) == (1.0, 0)
    with pytest.raises(ValueError, match=r"none of the 1 videos to exclude \(v_lost\).*\(kept, lost\)"):
        ground_truth_of(videos, rules=rules, classes=["a", "b"], exclude=["v_lost"])
