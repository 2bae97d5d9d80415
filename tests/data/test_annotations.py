"""Annotation files: what is read, and the message for each thing that can be wrong."""

import json
import math
from pathlib import Path

import pytest

from lofi.data.annotations import (
    AnnotatedVideo,
    Annotations,
    check_videos_exist,
    find_video,
    missing_videos,
    read_annotations,
    write_annotations,
)
from lofi.segments import LabelledSegment


def entry(*segments, subset="training", duration=10.0, **extra):
    rows = [{"segment": list(segment), "label": label} for *segment, label in segments]
    return {"subset": subset, "duration": duration, "annotations": rows, **extra}


def read(tmp_path: Path, database, **extra) -> Annotations:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"database": database, **extra}), encoding="utf-8")
    return read_annotations(path)


def video(name: str, *, file: str | None = None) -> AnnotatedVideo:
    return AnnotatedVideo(name=name, subset="training", duration_sec=3.0, segments=(), file=file)


def test_reads_videos_segments_and_sorted_classes(tmp_path):
    annotations = read(tmp_path, {"b": entry((1, 2.5, "run"), (4, 5, "jump"), url="ignored"), "a": entry()})
    assert annotations.classes == ("jump", "run")
    assert list(annotations.videos) == ["b", "a"]
    assert annotations.videos["b"].segments == (
        LabelledSegment(start_sec=1.0, end_sec=2.5, label="run"),
        LabelledSegment(start_sec=4.0, end_sec=5.0, label="jump"),
    )


def test_listed_classes_keep_their_order(tmp_path):
    annotations = read(tmp_path, {"a": entry((1, 2, "jump"))}, classes=["run", "jump", "fall"])
    assert annotations.classes == ("run", "jump", "fall")


def test_segment_just_outside_its_video_is_clipped(tmp_path):
    segments = read(tmp_path, {"a": entry((-0.4, 2, "run"), (8, 10.5, "run"))}).videos["a"].segments
    assert [(segment.start_sec, segment.end_sec) for segment in segments] == [(0.0, 2.0), (8.0, 10.0)]


def test_file_read_as_published_keeps_what_training_refuses_or_clips(tmp_path):
    published = {
        "a/1": entry(
            (-0.25, 2, "run"), (4, 4, "run"), (6, 5, "run"), (3, 11, "Ambiguous"), ("1.5", "2", "run")
        ),
        "b": {"subset": "testing", "annotations": []},
    }
    path = tmp_path / "annotations.json"
    path.write_text("\ufeff" + json.dumps({"database": published, "classes": ["run"]}), encoding="utf-8")
    annotations = read_annotations(path, as_published=True)
    assert [(each.start_sec, each.end_sec) for each in annotations.videos["a/1"].segments] == [
        (-0.25, 2.0),
        (4.0, 4.0),
        (6.0, 5.0),
        (3.0, 11.0),
        (1.5, 2.0),
    ]
    assert annotations.classes == ("run",)
    assert annotations.subsets == ("testing", "training")
    assert math.isnan(annotations.videos["b"].duration_sec)
    with pytest.raises(ValueError, match=r'video "a/1": .*5 further problems'):
        read_annotations(path)


@pytest.mark.parametrize("segment", [[1, 2, 3], [1, "two"], [1, None], [1, math.inf], [1, 10**400], "1, 2"])
def test_published_segments_must_still_be_two_finite_numbers(tmp_path, segment):
    path = tmp_path / "annotations.json"
    broken = {"subset": "training", "duration": 4, "annotations": [{"segment": segment, "label": "run"}]}
    path.write_text(json.dumps({"database": {"a": broken}}))
    with pytest.raises(ValueError, match=r'video "a": annotations\[0\]: "segment" is .*must be two numbers'):
        read_annotations(path, as_published=True)


def test_subset_is_sorted_by_name(tmp_path):
    annotations = read(tmp_path, {"b": entry(), "c": entry(subset="testing"), "a": entry()})
    assert [video.name for video in annotations.subset("training")] == ["a", "b"]


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "deep" / "annotations.json"
    write_annotations(path, {"a": entry((1.25, 2.5, "run"), file="x/a.mkv")}, classes=("run", "jump"))
    annotations = read_annotations(path)
    assert annotations.classes == ("run", "jump")
    assert annotations.videos["a"].file == "x/a.mkv"
    assert [file.name for file in path.parent.iterdir()] == ["annotations.json"]


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "annotations.json"
    write_annotations(path, {"a": entry()})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_annotations(path, {"a": entry(duration=math.nan)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("Validation", 'did you mean "validation"'),
        ("val", 'did you mean "validation"'),
        ("trainnig", 'did you mean "training"'),
        ("zzz", r'no video has subset "zzz"; the file has: training \(2 videos\), validation \(1 videos\)'),
    ],
)
def test_unknown_subset_lists_those_that_exist(tmp_path, wanted, message):
    annotations = read(tmp_path, {"a": entry(), "b": entry(), "c": entry(subset="validation")})
    with pytest.raises(ValueError, match=message):
        annotations.subset(wanted)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            entry((3, 3, "run")),
            r'video "v": annotations\[0\]: "segment" is \[3, 3\]; its end must come after',
        ),
        (entry((1, 2, "run"), (5, 4, "run")), r"annotations\[1\]: .*\[5, 4\]; its end must come after"),
        (entry((9, 10.6, "run")), r"\[9, 10.6\], outside the video of 10 s"),
        (entry((-0.6, 2, "run")), r"\[-0.6, 2\], outside the video"),
        (entry((10, 10.4, "run")), r"\[10, 10.4\], outside the video"),
        (entry((1, 2, 3, "run")), r'"segment" is \[1, 2, 3\]; it must be two numbers'),
        (entry(("1", 2, "run")), r"it must be two numbers"),
        (entry((1, math.nan, "run")), r"it must be two numbers"),
        (entry((1, True, "run")), r"it must be two numbers"),
        (entry((1, 2, "rum")), r'the label "rum" is unknown \(did you mean "run"\?\); .* run, jump'),
        (entry((1, 2, 7)), r'"label" is 7; it must be the name of a class'),
        (entry(duration=-2), r'video "v": "duration" is -2; it must be a positive number of seconds'),
        (entry(duration=math.inf), r'"duration" is inf'),
        (entry(duration="12"), r"\"duration\" is '12'"),
        ({"subset": "training", "annotations": []}, r'"duration" is missing'),
        ({"duration": 3, "annotations": []}, r'"subset" is missing'),
        ({"duration": 3, "subset": "training"}, r'"annotations" is missing; .*\[\] where there are none'),
        (entry(file=3), r'"file" is 3; it must be a path'),
        ([], r'video "v": is \[\]; it must be an object'),
    ],
)
def test_wrong_entry_is_named(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, {"good": entry((1, 2, "run")), "v": bad}, classes=["run", "jump"])
    assert "annotations.json: video" in str(caught.value)


def test_further_problems_are_counted(tmp_path):
    bad = entry((2, 1, "run"), (4, 3, "run"), duration=-1)
    with pytest.raises(ValueError, match=r'video "a": "duration" is -1.*\(3 further problems in this file'):
        read(tmp_path, {"a": bad, "b": entry((2, 1, "run"))})


def test_name_with_a_slash_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'video "x/y": .*use "file" for a path'):
        read(tmp_path, {"x/y": entry()})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"database": {\n "a" 1}}', r"not JSON: .*line 2 column 6"),
        ('{"videos": {}}', r"no \"database\" object at the top level; the keys are \['videos'\]"),
        ('{"database": {}}', r'"database" is empty'),
        ("[1]", r"the top level is a list"),
        ('{"database": {"a": 1, "a": 2}}', r'the key "a" appears twice'),
        (
            '{"classes": [], "database": {"a": {}}}',
            r'"classes" is \[\]; it must be a list of at least one name',
        ),
        ('{"classes": ["x", "y", "x"], "database": {"a": {}}}', r'"classes" lists "x" twice'),
    ],
)
def test_wrong_file_is_named(tmp_path, text, message):
    path = tmp_path / "wrong.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"wrong\.json: {message}"):
        read_annotations(path)


def test_missing_file_folder_and_binary_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json: there is no such annotation file"):
        read_annotations(tmp_path / "none.json")
    with pytest.raises(ValueError, match="is a folder"):
        read_annotations(tmp_path)
    (tmp_path / "binary.json").write_bytes(b'{"\xff\xfe"')
    with pytest.raises(ValueError, match=r"binary\.json: not UTF-8 text \(byte 2\)"):
        read_annotations(tmp_path / "binary.json")


def test_video_is_found_by_file_key_or_by_extension(tmp_path):
    (tmp_path / "below").mkdir()
    for name in ("a.webm", "b.MOV", "below/other.mp4", "c.txt"):
        (tmp_path / name).touch()
    assert find_video(video("a"), tmp_path) == tmp_path / "a.webm"
    assert find_video(video("b"), tmp_path).stem == "b"
    assert find_video(video("a", file="below/other.mp4"), tmp_path) == tmp_path / "below/other.mp4"
    with pytest.raises(FileNotFoundError, match=r'video "c" is not in .*looked for c with \.mp4'):
        find_video(video("c"), tmp_path)
    with pytest.raises(FileNotFoundError, match=r'video "a" is not in .*its "file" is gone\.mp4'):
        find_video(video("a", file="gone.mp4"), tmp_path)


def test_missing_videos_are_all_told_at_once(tmp_path):
    (tmp_path / "v0.mp4").touch()
    videos = [video(f"v{index}") for index in range(9)]
    assert [missing.name for missing in missing_videos(videos, tmp_path)] == [f"v{i}" for i in range(1, 9)]
    with pytest.raises(FileNotFoundError, match=r"8 of 9 videos are not in .*: v1, v2, v3, v4, v5, \.\.\."):
        check_videos_exist(videos, tmp_path)
    check_videos_exist(videos[:1], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the folder of videos .* does not exist"):
        check_videos_exist(videos, tmp_path / "nowhere")


def test_known_errors_of_the_public_thumos_file_are_named():
    shared = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "annotations" / "thumos14"
    path = shared / "thumos14_actionformer_style.json"
    if not path.exists():
        pytest.skip("the shared annotation files are not beside this checkout")
    with pytest.raises(
        ValueError, match=r'"video_test_0000270": annotations\[7\].*of 176\.25 s.*29 further problems'
    ):
        read_annotations(path)
