"""From what a dataset says to the database of an annotation file, and the durations that others know."""

import json

import pytest

from lofi.data.annotations import read_annotations, write_annotations
from lofi.data.converters.conversion import change_lines, convert
from lofi.data.converters.durations import Length, read_durations, with_lengths, without_duration
from lofi.data.converters.official import Official, OfficialVideo
from lofi.data.converters.video_files import with_file_names, with_found_files
from lofi.segments import LabelledSegment


def segment(start_sec: float, end_sec: float, label: str = "run") -> LabelledSegment:
    return LabelledSegment(start_sec=start_sec, end_sec=end_sec, label=label)


def of_one(*segments: LabelledSegment, **keys) -> Official:
    video = OfficialVideo(subset="training", segments=segments, **({"duration_sec": 10.0} | keys))
    return Official(videos={"v": video}, classes=("run", "jump"))


def test_every_instance_that_training_cannot_use_is_named_and_kept_for_evaluation(tmp_path):
    segments = (
        segment(0.0, 10.4),  # the reader clips it
        segment(1.0, 2.0),
        segment(1.0, 2.0),
        segment(1.0, 2.0, "jump"),
        segment(4.0, 3.0),
        segment(5.0, 5.0),
        segment(9.0, 12.0),
        segment(10.1, 10.3),
        segment(-3.0, 1.0),
    )
    conversion = convert(of_one(*segments))
    assert [change.why for change in conversion.changes] == [
        "given twice",
        "reversed",
        "without length",
        "clipped to the video",
        "outside the video",
        "clipped to the video",
    ]
    assert change_lines(conversion.changes)[0] == (
        "training: 2 instances clipped to the video (kept), in 1 video: v [9, 12] run, v [-3, 1] run"
    )
    path = tmp_path / "annotations.json"
    write_annotations(path, conversion.database, classes=conversion.classes)
    taken = read_annotations(path).videos["v"].segments
    assert taken == (
        segment(0.0, 10.0),
        segment(1.0, 2.0),
        segment(1.0, 2.0, "jump"),
        segment(9.0, 10.0),
        segment(0.0, 1.0),
    )
    assert read_annotations(path, as_published=True).videos["v"].segments == segments


def test_a_video_that_is_right_is_written_once():
    assert convert(with_file_names(of_one(segment(1.0, 2.0)), "v_{video}.mp4")).database == {
        "v": {
            "subset": "training",
            "duration": 10.0,
            "file": "v_v.mp4",
            "annotations": [{"segment": [1.0, 2.0], "label": "run"}],
        }
    }
    with pytest.raises(ValueError, match=r'--file-name is v\.mp4; it must hold "\{video\}"'):
        with_file_names(of_one(segment(1.0, 2.0)), "v.mp4")


def test_videos_in_folders_below_are_found_and_one_of_two_is_not_guessed(tmp_path):
    official = of_one(segment(1.0, 2.0))
    assert with_found_files(official, tmp_path) == (official, ["v"])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "v.MP4").touch()
    (tmp_path / "a" / "v.json").touch()
    found, missing = with_found_files(official, tmp_path)
    assert (found.videos["v"].file, missing) == ("a/v.MP4", [])
    (tmp_path / "b" / "v.mp4").touch()
    with pytest.raises(ValueError, match=r'video "v" could be a/v\.MP4 or b/v\.mp4; say which'):
        with_found_files(official, tmp_path)
    (tmp_path / "v.mp4").touch()
    assert with_found_files(official, tmp_path) == (official, [])


def test_ambiguous_stretches_are_no_instances_and_are_read_again(tmp_path):
    conversion = convert(of_one(segment(1.0, 2.0), ambiguous=((3.0, 4.0),)))
    path = tmp_path / "annotations.json"
    write_annotations(path, conversion.database, classes=conversion.classes)
    for as_published in (False, True):
        video = read_annotations(path, as_published=as_published).videos["v"]
        assert (video.ambiguous, len(video.segments)) == (((3.0, 4.0),), 1)
    database = json.loads(path.read_text())["database"]
    database["v"]["ambiguous"] = [[4.0, 3.0]]
    write_annotations(path, database)
    with pytest.raises(ValueError, match=r'video "v": "ambiguous" must be a list of \[start, end\]'):
        read_annotations(path)


def test_dataset_without_an_instance_is_refused():
    with pytest.raises(ValueError, match="none of the 1 videos has an instance"):
        convert(of_one())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "filename,video-duration,fps\nv.mp4,12.5,25\n"),
        ("a.csv", "video,seconds,fps\nv,12.5,25\n"),
        ("a.json", '{"v": {"duration": 12.5, "fps": 25.0, "num_frame": 1}}'),
        ("a.json", '{"database": {"v.MP4": {"duration": "12.5", "fps": 25}}}'),
    ],
)
def test_durations_are_read_from_the_files_that_others_share(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    lengths = read_durations([tmp_path / name])
    assert lengths == {"v": Length(duration_sec=12.5, fps=25.0)}
    unknown = of_one(segment(1.0, 2.0), duration_sec=None)
    assert without_duration(unknown) == ["v"]
    assert with_lengths(unknown, lengths).videos["v"].duration_sec == 12.5
    assert with_lengths(of_one(segment(1.0, 2.0)), lengths).videos["v"].duration_sec == 10.0  # its own wins


def test_durations_that_contradict_each_other_are_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"v": 12.5}')
    (tmp_path / "b.csv").write_text("video,duration\nv,14\n")
    with pytest.raises(ValueError, match=r'b\.csv: video "v" lasts 14 s, in another file 12\.5 s'):
        read_durations([tmp_path / "a.json", tmp_path / "b.csv"])
    (tmp_path / "b.csv").write_text("video,length in frames\nv,14\n")
    with pytest.raises(
        ValueError, match="needs a column of names .* the first line has video, length in frames"
    ):
        read_durations([tmp_path / "b.csv"])
