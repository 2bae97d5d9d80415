"""launch/prepare.py: a dataset's files or a CSV -> annotations, a split, a check, as one types them."""

import json

import pytest
from tiny_runs import ROOT

from lofi.data.annotations import read_annotations

THUMOS = ROOT / ".." / "shared" / "data" / "annotations" / "thumos14"


@pytest.fixture
def table(benchmark, tmp_path):
    """A CSV of the tiny benchmark's own instances, three videos to a group, and one line twice."""
    database = json.loads(benchmark.annotations.read_text())["database"]
    rows = [
        f"{entry['file']};{row['segment'][0]};{row['segment'][1]};{row['label']};{index // 3}"
        for index, entry in enumerate(database.values())
        for row in entry["annotations"]
    ]
    path = tmp_path / "mine.csv"
    path.write_text("\ufeffvideo;start;end;label;group\n" + "\n".join([*rows, rows[0]]), encoding="utf-8")
    return path


@pytest.mark.timeout(180)
def test_a_table_becomes_annotations_a_split_and_a_check(call, table, benchmark, tmp_path):
    videos = benchmark.annotations.parent / "videos"
    annotations, split, check = (tmp_path / name for name in ("annotations.json", "split.json", "check.json"))
    code, printed, error = call(
        "prepare", "csv", "--source", table, "--videos", videos, "--output", annotations, "--workers", 1
    )
    assert error == ""
    truth = read_annotations(benchmark.annotations)
    num_instances = sum(len(video.segments) for video in truth.videos.values())
    assert f"training           11{num_instances:>11}{num_instances:>14}" in printed
    assert "1 line says what an earlier one says (left out)" in printed
    read = read_annotations(annotations)
    for name, video in read.videos.items():
        assert video.segments == truth.videos[name].segments
        assert video.duration_sec == pytest.approx(truth.videos[name].duration_sec, abs=0.1)

    options = ("--annotations", annotations, "--validation-share", 0.3)
    code, printed, error = call("prepare", "split", *options, "--output", split)
    assert (code, error) == (0, "")
    assert "11 videos in 4 groups: " in printed
    again = tmp_path / "again.json"
    call("prepare", "split", *options, "--output", again)
    assert again.read_bytes() == split.read_bytes()
    assert read_annotations(split).subsets == ("training", "validation")
    code, _, error = call(
        "prepare", "split", "--annotations", split, "--validation-share", 0.3, "--output", again
    )
    assert code == 2
    assert "has the subsets training, validation; say which to split (--subset)" in error
    code, _, error = call("prepare", "split", *options, "--output", again, "--group", "kitchen")
    assert code == 2
    assert 'no video has "kitchen" (--group)' in error

    command = ("--annotations", split, "--videos", videos, "--output", check, "--workers", 1)
    code, printed, error = call("prepare", "check", *command)
    assert (code, error) == (0, "")
    assert "11 of 11 videos are right" in printed
    assert "(11); width x height: " in printed
    document = json.loads(split.read_text())
    first = next(iter(document["database"].values()))
    first["duration"] *= 3
    split.write_text(json.dumps(document))
    code, printed, error = call("prepare", "check", *command)
    assert code == 1
    assert "10 of 11 videos are right, 1 with a fault: 1 shorter" in printed


@pytest.mark.skipif(not THUMOS.exists(), reason="the public annotation files are not here")
def test_thumos14_is_converted_and_its_ambiguous_stretches_count_for_its_own_protocol(call, tmp_path):
    output = tmp_path / "annotations.json"
    options = ("--source", THUMOS / "TH14_txt", "--output", output, "--file-name", "{video}.mp4")
    code, printed, error = call("prepare", "thumos14", *options)
    assert code == 2
    assert "the duration of 412 of 412 videos is not known: video_test_0000004" in error
    code, printed, error = call(
        "prepare", "thumos14", *options, "--durations", THUMOS / "TH14_video_info.json"
    )
    assert (code, error) == (0, "")
    assert "training          200      3,007         3,003       20" in printed
    assert "test              212      3,358         3,332       20" in printed
    assert (
        "test: 26 instances outside the video (not for training), in 3 videos: video_test_0000270" in printed
    )
    assert "training: 89 Ambiguous stretches are no instances" in printed

    published = read_annotations(output, as_published=True)
    found = {
        video.name: [
            {"segment": [row.start_sec, row.end_sec], "label": row.label, "score": 0.9}
            for row in video.segments
        ]
        + [{"segment": list(stretch), "label": "Diving", "score": 0.95} for stretch in video.ambiguous]
        for video in published.subset("test")
    }
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps({"results": found}))
    scores = {}
    for name, more in {
        "own": (),
        "file": ("--ambiguous", THUMOS / "TH14_txt" / "annotations_test" / "Ambiguous_test.txt"),
    }.items():
        results = tmp_path / f"{name}.json"
        files = ("--annotations", output, "--predictions", predictions, "--output", results)
        code, _, error = call("evaluate", *files, "--dataset", "thumos14", "--protocol", "thumos14", *more)
        assert (code, error) == (0, "")
        scores[name] = json.loads(results.read_text())
    assert scores["own"]["mAP"] == scores["file"]["mAP"]
    assert scores["own"]["average_mAP"] > 0.99


def test_a_source_that_is_wrong_is_one_line(call, tmp_path):
    code, _, error = call("prepare", "hacs", "--source", tmp_path / "none", "--output", tmp_path / "a.json")
    assert code == 2
    assert error == f"error: {tmp_path / 'none'}: there is no such file or folder.\n"
    table = tmp_path / "mine.csv"
    table.write_text("video,start,end,label\na.mp4,1,2,run\n")
    code, _, error = call("prepare", "csv", "--source", table, "--output", table)
    assert code == 2
    assert "would replace the source" in error
    code, _, error = call(
        "prepare", "csv", "--source", table, "--output", tmp_path / "a.json", "--videos", tmp_path
    )
    assert code == 2
    assert 'video "a" is not in ' in error
    assert not (tmp_path / "a.json").exists()
