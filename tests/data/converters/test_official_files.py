"""Datasets' own files: the real ones with their exact counts, and small ones in the official form of those that are not here."""

import csv
import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from lofi.data.annotations import read_annotations, write_annotations
from lofi.data.converters.activitynet import (
    read_activitynet12,
    read_activitynet13,
    read_fineaction,
    read_hacs,
)
from lofi.data.converters.charades import read_charades
from lofi.data.converters.conversion import convert
from lofi.data.converters.durations import read_durations, with_lengths
from lofi.data.converters.ego4d_mq import read_ego4d_mq
from lofi.data.converters.epic_kitchens100 import read_epic_kitchens100
from lofi.data.converters.multithumos import read_multithumos
from lofi.data.converters.official import Official
from lofi.data.converters.thumos14 import read_thumos14

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the public annotation files are not here")
ANNOTATIONS = DATA / "annotations"
THUMOS = ANNOTATIONS / "thumos14"
EPIC = ANNOTATIONS / "epic-kitchens-100"


@cache
def activitynet13() -> Official:
    return read_activitynet13(ANNOTATIONS / "activitynet13")


@cache
def multithumos() -> Official:
    return read_multithumos(ANNOTATIONS / "multithumos")


def thumos_texts(**options: int) -> Official:
    official = read_thumos14(THUMOS / "TH14_txt", **options)
    return with_lengths(official, read_durations([THUMOS / "TH14_video_info.json"]))


def sizes(official: Official) -> dict[str, tuple[int, int, int]]:
    """Subset -> videos, instances, classes."""
    counts = convert(official).counts
    return {row.subset: (row.num_videos, row.num_instances, row.num_classes) for row in counts}


def changes(official: Official) -> dict[tuple[str, str], int]:
    return Counter((change.subset, change.why) for change in convert(official).changes)


def instances(official: Official) -> Counter:
    return Counter(
        (name, row.label, row.start_sec, row.end_sec)
        for name, video in official.videos.items()
        for row in video.segments
    )


@needs_data
def test_thumos14_texts_have_the_published_counts_and_the_test_set_that_is_asked_for():
    official = thumos_texts()
    assert sizes(official) == {"training": (200, 3007, 20), "test": (212, 3358, 20)}
    ambiguous = Counter()
    for video in official.videos.values():
        ambiguous[video.subset] += len(video.ambiguous)
    assert ambiguous == {"training": 89, "test": 96}
    assert "video_test_0001292" not in official.videos
    assert changes(official) == {("training", "outside the video"): 4, ("test", "outside the video"): 26}
    assert sizes(thumos_texts(test_set=211))["test"] == (211, 3329, 20)
    assert sizes(thumos_texts(test_set=210))["test"] == (210, 3311, 20)
    whole = read_thumos14(THUMOS / "TH14_txt", test_set=213)
    assert sum(video.subset == "test" for video in whole.videos.values()) == 213
    assert len(whole.videos["video_test_0001292"].ambiguous) == 3


@needs_data
def test_thumos14_json_files_and_texts_are_one_dataset():
    texts = instances(thumos_texts())
    assert instances(read_thumos14(THUMOS / "thumos14_actionformer_style.json")) == texts
    # G-TAD's file lacks two test videos, writes its times as text and knows no durations
    gtad = read_thumos14(THUMOS / "thumos_gt_gtad.json")
    assert instances(gtad) == instances(thumos_texts(test_set=210))
    with pytest.raises(
        ValueError, match=r"the duration of 410 of 410 videos is not known: .*Give --videos DIR"
    ):
        convert(gtad)


@needs_data
def test_bmns_activitynet13_has_the_published_counts():
    official = activitynet13()
    assert sizes(official) == {
        "training": (9649, 14859, 200),
        "validation": (4728, 7293, 200),
        "test": (4851, 0, 0),
    }
    assert changes(official) == {
        ("training", "given twice"): 28,
        ("training", "without length"): 9,
        ("validation", "given twice"): 17,
        ("validation", "without length"): 3,
        ("validation", "clipped to the video"): 1,
    }
    names = (ANNOTATIONS / "activitynet13" / "action_name.csv").read_text().splitlines()[1:]
    assert official.classes == tuple(sorted(names))
    oracle = json.loads((DATA / "oracles" / "gt" / "activitynet13_val.json").read_text())["database"]
    validation = {name for name, video in official.videos.items() if video.subset == "validation"}
    assert validation == oracle.keys()  # without BMN's "v_"


@needs_data
def test_multithumos_has_the_published_counts():
    official = multithumos()
    assert sizes(official) == {"training": (200, 18482, 65), "test": (213, 20208, 65)}
    assert changes(official) == {
        ("training", "without length"): 3,
        ("training", "outside the video"): 8,
        ("training", "clipped to the video"): 2,
        ("test", "without length"): 4,
        ("test", "outside the video"): 52,
        ("test", "clipped to the video"): 3,
    }
    assert official.notes == (
        "there is no class_list.txt beside multithumos.json, so labels are the numbers of the classes",
    )


@needs_data
def test_charades_has_the_published_counts():
    official = read_charades(ANNOTATIONS / "charades" / "charades.json")
    assert sizes(official) == {"training": (7985, 49809, 157), "test": (1863, 16691, 157)}
    assert official.classes[0] == "c000"
    assert official.classes[-1] == "c156"
    assert changes(official)["training", "reversed"] == 7


@needs_data
@pytest.mark.parametrize(("label", "num_there", "num_all"), [("verb", 78, 97), ("noun", 211, 300)])
def test_epic_kitchens100_has_the_published_counts(label, num_there, num_all):
    official = read_epic_kitchens100(EPIC, label=label)
    assert sizes(official) == {"validation": (138, 9668, num_there)}
    assert len(official.classes) == num_all
    first = official.videos["P01_11"].segments[0]
    assert (first.start_sec, first.end_sec) == (0.0, 1.89)
    assert first.label == {"verb": "take", "noun": "plate"}[label]
    assert official.videos["P01_11"].group == "P01"
    assert official.notes == ("there is no EPIC_100_train.csv in the source",)


@needs_data
def test_epic_kitchens100_pairs_are_what_the_official_evaluation_reads():
    official = read_epic_kitchens100(EPIC / "EPIC_100_validation.csv", label="action")
    with (EPIC / "EPIC_100_validation.csv").open(newline="") as stream:
        pairs = Counter(f"{row['verb_class']},{row['noun_class']}" for row in csv.DictReader(stream))
    assert Counter(row.label for video in official.videos.values() for row in video.segments) == pairs


@needs_data
@pytest.mark.parametrize("read", [multithumos, activitynet13])
def test_training_takes_what_it_can_and_evaluation_everything(read, tmp_path):
    official = read()
    conversion = convert(official)
    path = tmp_path / "annotations.json"
    write_annotations(path, conversion.database, classes=conversion.classes)
    num_usable = sum(counts.num_for_training for counts in conversion.counts)
    assert sum(len(video.segments) for video in read_annotations(path).videos.values()) == num_usable
    published = read_annotations(path, as_published=True)
    assert {name: video.segments for name, video in published.videos.items()} == {
        name: video.segments for name, video in official.videos.items()
    }


ENTRY = {
    "annotations": [{"segment": [1.5, 2], "label": "Dive"}],
    "subset": "training",
    "url": "",
    "resolution": "",
}


@pytest.mark.parametrize(
    ("read", "file"),
    [
        (read_activitynet12, "activity_net.v1-2.min.json"),
        (read_activitynet13, "activity_net.v1-3.min.json"),
        (read_hacs, "HACS_segments_v1.1.1.json"),
        (read_fineaction, "annotations_gt.json"),
    ],
)
def test_activitynets_own_form_is_read_from_its_folder(read, file, tmp_path):
    database = {
        "b": {**ENTRY, "duration": "92.166667"},  # text, as in HACS
        "a": {**ENTRY, "duration": 3.0, "subset": "validation"},
        "c": {"annotations": [], "subset": "testing", "duration": 5},
    }
    (tmp_path / file).write_text(json.dumps({"version": "1", "taxonomy": [], "database": database}))
    official = read(tmp_path)
    assert sizes(official) == {"training": (1, 1, 1), "validation": (1, 1, 1), "test": (1, 0, 0)}
    assert official.videos["b"].duration_sec == 92.166667


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({**ENTRY, "subset": "dev"}, "a.json: video \"v\": the subset is 'dev'; it must be one of train"),
        ({**ENTRY, "annotations": [{"segment": [1, "x"], "label": "d"}]}, r"annotations\[0\].segment is 'x'"),
        (
            {**ENTRY, "annotations": [{"segment": [1], "label": "d"}]},
            r"annotations\[0\] is \{'segment': \[1\]",
        ),
    ],
)
def test_wrong_entry_is_named(entry, match, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"database": {"v": entry}}))
    with pytest.raises(ValueError, match=match):
        read_activitynet13(path)


def test_thumos14_texts_are_found_however_deep_and_wrong_lines_are_named(tmp_path):
    folder = tmp_path / "TH14_Temporal_annotations_test" / "annotations"
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"there is no file CLASS_val\.txt below it"):
        read_thumos14(tmp_path)
    (tmp_path / "Diving_val.txt").write_text("video_validation_0000001  1.0 2.0\n")
    (folder / "Diving_test.txt").write_text("video_test_0000001  1.0 2.0\n\nvideo_test_0000001 3.0\n")
    with pytest.raises(
        ValueError, match=r"Diving_test\.txt, line 3 is 'video_test_0000001 3\.0'; it must be VIDEO"
    ):
        read_thumos14(tmp_path)
    (folder / "Diving_test.txt").write_text("video_test_0000001  1.0 2.0\n")
    with pytest.raises(ValueError, match=r"has 1 classes \(Diving\); THUMOS14 has 20"):
        read_thumos14(tmp_path)


def test_multithumos_texts_are_one_file_per_class(tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    (folder / "Run.txt").write_text("video_validation_0000001 1.0 2.0\nvideo_test_0000002 0.5 0.9\n")
    (folder / "Jump.txt").write_text("video_validation_0000001 1.5 4.0\n")
    (tmp_path / "class_list.txt").write_text("1 Run\n2 Jump\n")
    official = read_multithumos(tmp_path)
    assert instances(official) == {
        ("video_validation_0000001", "Run", 1.0, 2.0): 1,
        ("video_validation_0000001", "Jump", 1.5, 4.0): 1,
        ("video_test_0000002", "Run", 0.5, 0.9): 1,
    }
    assert {name: video.subset for name, video in official.videos.items()} == {
        "video_validation_0000001": "training",
        "video_test_0000002": "test",
    }


def test_a_class_list_beside_the_numbers_names_them(tmp_path):
    entry = {"subset": "testing", "duration": 9.0, "actions": [[2, 1.0, 2.0]]}
    (tmp_path / "multithumos.json").write_text(json.dumps({"video_test_0000001": entry}))
    (tmp_path / "class_list.txt").write_text("1 Run\n2 Jump\n")
    official = read_multithumos(tmp_path)
    assert (official.classes, official.notes) == (("Run", "Jump"), ())
    assert official.videos["video_test_0000001"].segments[0].label == "Jump"
    (tmp_path / "class_list.txt").write_text("1 Run\n")
    with pytest.raises(ValueError, match=r"class_list\.txt: has no class 2, which .*video_test_0000001"):
        read_multithumos(tmp_path)


def test_charades_tables_are_read_with_the_names_of_their_classes(tmp_path):
    header = "id,subject,scene,script,actions,length\n"
    rows = 'AB,S,Kitchen,"A person,\nthen","c092 11.90 21.20;c147 0.00 12.60",24.83\nCD,S,Hall,x,,30.0\n'
    (tmp_path / "Charades_v1_train.csv").write_text(header + rows)
    (tmp_path / "Charades_v1_test.csv").write_text(header + "EF,S,Hall,x,c147 1 2,8.5\n")
    (tmp_path / "Charades_v1_classes.txt").write_text("c092 Watching a window\nc147 Drinking\n")
    official = read_charades(tmp_path)
    assert instances(official) == {
        ("AB", "Watching a window", 11.9, 21.2): 1,
        ("AB", "Drinking", 0.0, 12.6): 1,
        ("EF", "Drinking", 1.0, 2.0): 1,
    }
    assert sizes(official) == {"training": (2, 2, 2), "test": (1, 1, 1)}
    (tmp_path / "Charades_v1_test.csv").write_text(header + "EF,S,Hall,x,c148 1 2,8.5\n")
    with pytest.raises(
        ValueError, match=r"Charades_v1_test\.csv, line 2: the action 'c148 1 2' is not CODE START"
    ):
        read_charades(tmp_path)


def test_epic_kitchens100_wrong_time_is_named(tmp_path):
    header = "narration_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"
    path = tmp_path / "EPIC_100_train.csv"
    path.write_text(
        header + "P01_01_0,P01_01,00:00:01.50,00:01:02.25,0,2\nP01_01_1,P01_01,0:0,00:99:00,0,2\n"
    )
    with pytest.raises(ValueError, match=r'EPIC_100_train\.csv, line 3: the time "00:99:00" has 60 or more'):
        read_epic_kitchens100(tmp_path)
    path.write_text(header + "P01_01_0,P01_01,00:00:01.50,01:01:02.25,10,2\n")
    official = read_epic_kitchens100(path)
    assert instances(official) == {("P01_01", "10", 1.5, 3662.25): 1}
    assert official.videos["P01_01"].duration_sec is None


def test_ego4d_clips_have_the_primary_labels_of_all_annotators_from_the_start_of_the_clip(tmp_path):
    def label(name, start, end, *, primary=True):
        return {"label": name, "primary": primary, "video_start_time": start, "video_end_time": end}

    def clip(uid, *annotators):
        times = {"video_start_sec": 300.0, "video_end_sec": 780.0}
        frames = {"video_start_frame": 9000, "video_end_frame": 23400}
        return {
            "clip_uid": uid,
            **times,
            **frames,
            "annotations": [{"labels": list(rows)} for rows in annotators],
        }

    one = clip(
        "c1", [label("wash", 310.5, 320.0), label("dry", 1, 2, primary=False)], [label("wash", 310.0, 321.0)]
    )
    train = {"videos": [{"video_uid": "v", "split": "train", "clips": [one, clip("c2", [])]}]}
    held_out = {key: value for key, value in clip("c3").items() if key != "annotations"}
    test = {"videos": [{"video_uid": "w", "split": "test", "clips": [held_out]}]}
    (tmp_path / "moments_train.json").write_text(json.dumps(train))
    (tmp_path / "moments_test_unannotated.json").write_text(json.dumps(test))
    official = read_ego4d_mq(tmp_path)
    assert instances(official) == {("c1", "wash", 10.5, 20.0): 1, ("c1", "wash", 10.0, 21.0): 1}
    assert sizes(official) == {"training": (1, 2, 1), "test": (1, 0, 0)}
    assert (official.videos["c1"].duration_sec, official.videos["c1"].fps) == (480.0, 30.0)
    assert official.videos["c1"].group == "v"
    assert official.notes == ("1 clips without a primary label are left out",)
    del train["videos"][0]["clips"][0]["annotations"][0]["labels"][0]["primary"]
    (tmp_path / "moments_train.json").write_text(json.dumps(train))
    with pytest.raises(ValueError, match=r"moments_train\.json: videos\[0\]: the key 'primary' is missing"):
        read_ego4d_mq(tmp_path)
