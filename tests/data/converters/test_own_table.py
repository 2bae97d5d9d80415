"""A CSV of one's own, in the forms that spreadsheets and people give it."""

import pytest

from lofi.data.annotated_video import AnnotatedVideo
from lofi.data.annotations import find_video
from lofi.data.converters.clock import seconds_of_clock
from lofi.data.converters.conversion import convert
from lofi.data.converters.own_table import read_own_table
from lofi.data.converters.video_files import with_found_files

HEADER = "video,start,end,label\n"


@pytest.fixture
def table(tmp_path):
    """A function: text (or bytes) and options -> the table as it is read."""

    def read(content, **options):
        path = tmp_path / "mine.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_own_table(path, **options)

    return read


def instances(official):
    return [
        (name, row.start_sec, row.end_sec, row.label)
        for name, video in official.videos.items()
        for row in video.segments
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", 12.5),
        ("1:02.5", 62.5),
        ("01:02:03.45", 3723.45),
        ("26:00:00", 93600.0),
        ("90:00", 5400.0),
        ("0", 0.0),
    ],
)
def test_times_as_people_write_them(text, seconds):
    assert seconds_of_clock(text) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize("text", ["", "1:60", "1:60:00", "1:05:10 PM", "nan", "1,5", "-1:00", "1:2:3:4", "x"])
def test_other_times_are_refused(text):
    with pytest.raises(ValueError, match="neither seconds nor hh:mm:ss|60 or more"):
        seconds_of_clock(text)


ROWS = [("a.mp4", "1.5", "3", "Grüßen"), ("b", "0", "00:01:02.5", "hoch, weit")]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_separators_marks_and_line_ends_of_spreadsheets_are_all_the_same(
    separator, encoding, line_end, table
):
    lines = [separator.join(("Video", "start", "END", "label"))]
    lines += [
        separator.join(f'"{cell}"' if separator in cell or "," in cell else cell for cell in row)
        for row in ROWS
    ]
    official = table((line_end.join(lines) + line_end + line_end).encode(encoding))
    assert instances(official) == [("a", 1.5, 3.0, "Grüßen"), ("b", 0.0, 62.5, "hoch, weit")]
    assert (official.videos["a"].file, official.videos["b"].file) == ("a.mp4", None)
    assert official.videos["a"].subset == "training"
    assert official.classes == ("Grüßen", "hoch, weit")


def test_decimal_commas_are_read_where_the_comma_separates_nothing(table):
    official = table("video;start;end;label\n1,1;1,5;00:01:02,25;2,3\n")
    assert instances(official) == [("1,1", 1.5, 62.25, "2,3")]


def test_letters_of_two_parts_are_the_same_letter(table):
    official = table(HEADER + "a,1,2,Gr\u00fc\u00dfe\na,3,4,Gru\u0308\u00dfe\n")
    assert official.classes == ("Gr\u00fc\u00dfe",)


@pytest.mark.parametrize("written", ["T\u00fcr", "Tu\u0308r"])
@pytest.mark.parametrize("on_disk", ["T\u00fcr", "Tu\u0308r"])
def test_files_are_found_whichever_way_their_letters_are_made(written, on_disk, table, tmp_path):
    videos = tmp_path / "videos"
    (videos / on_disk).mkdir(parents=True)
    for file in (
        f"{on_disk}1.mp4",
        f"{on_disk}2.mp4",
        f"{on_disk}/{on_disk}3.mp4",
        f"{on_disk}/{on_disk}4.mp4",
    ):
        (videos / file).touch()
    cells = (f"{written}1", f"{written}2.mp4", f"{written}3", f"/home/ann/{written}/{written}4.mp4")
    text = HEADER + "".join(f"{cell},1,2,open\n" for cell in cells)
    official, absent = with_found_files(table(text, videos=videos), videos)
    assert absent == []
    found = [
        find_video(
            AnnotatedVideo(name=name, subset="", duration_sec=1.0, segments=(), file=video.file), videos
        )
        for name, video in official.videos.items()
    ]
    assert [path.stem for path in found] == [f"{on_disk}{number}" for number in (1, 2, 3, 4)]


def test_one_name_in_two_forms_of_its_letters_is_not_taken_for_two_videos(table):
    with pytest.raises(ValueError, match="is also written .*; write it in one way"):
        table(HEADER + "T\u00fcr,1,2,open\nTu\u0308r,3,4,open\n")


def test_windows_paths_and_folders_become_files_below_the_folder_of_videos(table):
    text = (
        HEADER
        + "clips\\a.mp4,1,2,run\nclips/a.mp4,3,4,run\nday1\\x.MP4,1,2,run\nday2\\x.MP4,1,2,run\nb.c,1,2,run\n"
    )
    official = table(text)
    assert {name: video.file for name, video in official.videos.items()} == {
        "a": "clips/a.mp4",
        "day1_x": "day1/x.MP4",
        "day2_x": "day2/x.MP4",
        "b.c": None,
    }
    assert len(official.videos["a"].segments) == 2


def test_paths_of_another_computer_are_looked_for_in_the_folder_of_videos(table, tmp_path):
    (tmp_path / "videos" / "clips").mkdir(parents=True)
    (tmp_path / "videos" / "clips" / "a.mp4").touch()
    text = HEADER + "C:\\data\\clips\\a.mp4,1,2,run\n"
    assert table(text, videos=tmp_path / "videos").videos["a"].file == "clips/a.mp4"
    assert table(HEADER + "clips/a,1,2,run\n", videos=tmp_path / "videos").videos["a"].file == "clips/a.mp4"
    with pytest.raises(ValueError, match=r"line 2: video is 'C:.*from the root of a computer; give --videos"):
        table(text)
    with pytest.raises(ValueError, match=r"line 2: video is '/x/b\.mp4', which is not in "):
        table(HEADER + "/x/b.mp4,1,2,run\n", videos=tmp_path / "videos")


def test_frames_are_counted_at_the_rate_of_the_option_or_of_the_row(table):
    assert instances(table(HEADER + "a,30,75,run\n", fps=30)) == [("a", 1.0, 2.5, "run")]
    official = table("video,start,end,label,fps\na,30,75,run,30\nb,50,00:04,run,25\n")
    assert instances(official) == [("a", 1.0, 2.5, "run"), ("b", 2.0, 4.0, "run")]
    assert official.videos["b"].fps == 25.0
    with pytest.raises(
        ValueError, match=r"line 2: end is 2\.5; where a rate is given \(fps\), numbers are frames"
    ):
        table(HEADER + "a,1,2.5,run\n", fps=30)
    with pytest.raises(ValueError, match="has the column fps, and --fps is given too"):
        table("video,start,end,label,fps\na,30,75,run,30\n", fps=30)
    with pytest.raises(ValueError, match="--fps is 0"):
        table(HEADER + "a,30,75,run\n", fps=0)


def test_times_of_day_are_counted_from_the_start_of_the_recording(table):
    header = "video,start,end,label,video_start\n"
    official = table(header + "a,13:05:10,13:05:20.5,run,13:00:00\nb,23:59:58,00:00:03,run,23:59:00\n")
    assert instances(official) == [("a", 310.0, 320.5, "run"), ("b", 58.0, 63.0, "run")]
    with pytest.raises(ValueError, match="line 2: start is 12; with video_start, it must be a time of day"):
        table(header + "a,12,13:05:20,run,13:00:00\n")
    with pytest.raises(
        ValueError, match=r"line 2: start is 23:59:58 and end is 00:00:03; .*column video_start"
    ):
        table(HEADER + "a,23:59:58,00:00:03,run\n")


def test_whole_frames_may_be_written_with_a_point(table):
    assert instances(table(HEADER + "a,30.0,75,run\n", fps=30)) == [("a", 1.0, 2.5, "run")]


def test_a_rate_or_a_start_that_not_every_line_of_a_video_gives_is_named(table):
    """Else one column would hold frames and seconds, or times of day and times of the video."""
    rates = "video,start,end,label,fps\n"
    with pytest.raises(
        ValueError, match="1 line is wrong:\n  line 3: fps is empty, on line 2 of the same video it is 30"
    ):
        table(rates + "a.mp4,30,60,x,30\na.mp4,5,7,x,\n")
    assert instances(table(rates + "a,30,60,x,30\na,0:05,0:07,x,\nb,5,7,x,\n")) == [
        ("a", 1.0, 2.0, "x"),
        ("a", 5.0, 7.0, "x"),
        ("b", 5.0, 7.0, "x"),
    ]
    starts = "video,start,end,label,video_start\n"
    with pytest.raises(ValueError, match="line 3: video_start of a is 13:06:00, on line 2 it is 13:05:00$"):
        table(starts + "a,13:05:10,13:05:12,x,13:05:00\na,13:06:10,13:06:12,x,13:06:00\n")
    with pytest.raises(ValueError, match="line 2: video_start is empty, on line 3 of the same video it is"):
        table(starts + "a,13:05:10,13:05:12,x,\na,13:06:10,13:06:12,x,13:05:00\n")


def test_subsets_get_the_names_that_training_asks_for(table):
    official = table("video,start,end,label,subset\na,1,2,x,Train\nb,1,2,x,val\nc,1,2,x,fold1\n")
    assert [video.subset for video in official.videos.values()] == ["training", "validation", "fold1"]


def test_a_separator_may_be_said_above_the_header_as_in_excel(table):
    text = "sep=;\r\nvideo;start;end;label\r\na;1,5;2;run, fast\r\n"
    assert instances(table(text)) == [("a", 1.5, 2.0, "run, fast")]
    with pytest.raises(ValueError, match="line 3: end is empty"):
        table("sep=;\nvideo;start;end;label\na;1;;run\n")
    with pytest.raises(ValueError, match="line 2: is 'video, start, end' and lacks the column label"):
        table("sep=;\nvideo;start;end\na;1;2\n")


def test_a_line_given_again_is_left_out_and_said(table):
    official = table(HEADER + "a,1,2,run\na,1.0,00:02,run\na,1,2,jump\n")
    assert instances(official) == [("a", 1.0, 2.0, "run"), ("a", 1.0, 2.0, "jump")]
    assert official.notes == ("1 line says what an earlier one says (left out): 3",)


def test_a_video_without_times_and_label_has_no_instances(table):
    official = table("video,start,end,label,subset,group,duration\na,1,2,run,test,x,00:01:00\nb,,,,,x,30\n")
    assert official.videos["b"].segments == ()
    assert (official.videos["b"].duration_sec, official.videos["b"].group) == (30.0, "x")
    assert official.videos["a"].subset == "test"


def test_empty_cells_at_the_end_of_a_line_may_be_there_or_not(table):
    official = table("video,start,end,label,subset\na,1,2,run\na,3,4,run,,,\n")
    assert instances(official) == [("a", 1.0, 2.0, "run"), ("a", 3.0, 4.0, "run")]
    with pytest.raises(ValueError, match="line 2: has times but no label"):
        table(HEADER + "a,1\n")


def test_any_column_can_be_what_stays_together(table):
    text = "video,start,end,label,person\na,1,2,run,Ann\n"
    assert table(text, group="Person").videos["a"].group == "Ann"
    official = table(text)
    assert (official.videos["a"].group, official.notes) == (
        None,
        ("columns without a meaning here, not read: person",),
    )
    with pytest.raises(ValueError, match=r"has no column kitchen \(--group\); it has video, start"):
        table(text, group="kitchen")


def test_labels_that_look_like_one_class_are_pointed_out(table):
    assert table(HEADER + "a,1,2,Run\na,3,4,run\n").notes == (
        "labels that differ by case or blanks alone are different classes: Run, run",
    )


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (
            HEADER + "a,5,3,run\n",
            "1 line is wrong:\n  line 2: start is 5 and end is 3; the end must come after",
        ),
        (HEADER + "a,1,2,run\n\na,3,3,run\n", "line 4: start is 3 and end is 3"),
        (HEADER + "a,1,2,run,fast\n", "line 2: has 5 cells where the first line has 4; put a cell"),
        (HEADER + '"a\nb.mp4",1,2,run\na,1,,run\n', "line 4: end is empty"),
        (HEADER + "a,-1,2,run\n", "line 2: start is -1; it must not be negative"),
        (HEADER + "a,1,2,\n", "line 2: has times but no label"),
        (HEADER + ",1,2,run\n", "line 2: video is ''; it must be a name"),
        (
            HEADER + "../a.mp4,1,2,run\n",
            r"line 2: video is '\.\./a\.mp4'; it must be a name, or a path below",
        ),
        (
            HEADER + "a,1,2,run\na.mp4,3,4,run\n",
            r"line 2: the video a is also written a\.mp4; write it in one way",
        ),
        (HEADER + "a.mp4,1,2,run\na.avi,3,4,run\n", r"line 3: a\.avi and a\.mp4 would both be the video a"),
        (HEADER + 'a,1,2,"run\n', r"line 2: .*is a double quote not closed"),
        (HEADER, "has no line below the first"),
        ("", "line 1: is '' and lacks the column video"),
        (
            "a.mp4,1,2,run\n",
            r"line 1: is 'a\.mp4, 1, 2, run' and lacks the column video; the first line must name",
        ),
        ("video,start,end,label,start\na,1,2,run,3\n", "line 1: names the column start twice"),
        (
            (HEADER + "a,1,2,Gr\u00fc\u00dfe\n").encode("latin-1"),
            "line 2: is not UTF-8; save the table as UTF-8",
        ),
        (
            "video,start,end,label,subset\na,1,2,run,test\na,3,4,run,training\n",
            "line 3: subset of a is training, on line 2",
        ),
        ("video,start,end,label,duration\na,1,2,run,0\n", "line 2: duration is 0; it must be positive"),
        ("video,start,end,label,fps\na,1,2,run,x\n", "line 2: fps is x; it must be a positive number"),
    ],
)
def test_wrong_line_is_named(content, match, table):
    with pytest.raises(ValueError, match=match):
        table(content)


def test_all_wrong_lines_are_named_at_once(table):
    text = HEADER + "".join(f"a,{start},1,run\n" for start in range(2, 15))
    with pytest.raises(
        ValueError, match=r"mine\.csv: 13 lines are wrong:\n  line 2: .*\n  line 3: [^$]*and 3 more"
    ):
        table(text)


def test_segment_outside_its_video_is_a_mistake_of_its_line(table):
    official = table("video,start,end,label,duration\na,1,60.4,run,60\nb,1,2,run,60\nb,50,75,run,60\n")
    with pytest.raises(
        ValueError,
        match=r"1 segment is outside its video:\n  line 4: \[50, 75\] s reaches out of b, which lasts 60 s",
    ):
        convert(official)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.csv: cannot be read \(No such file"):
        read_own_table(tmp_path / "none.csv")


def test_a_converted_row_says_all_that_the_table_said(table):
    text = "video,start,end,label,subset,group,duration,fps\nday1\\a.mp4,30,60,run,validation,Ann,20,30\n"
    assert convert(table(text)).database == {
        "a": {
            "subset": "validation",
            "duration": 20.0,
            "file": "day1/a.mp4",
            "fps": 30.0,
            "group": "Ann",
            "annotations": [{"segment": [1.0, 2.0], "label": "run"}],
        }
    }


def test_a_table_of_all_usual_forms_is_read(table):
    official = table(
        """video,start,end,label,group
day1/morning.mp4,12.5,15.25,open door,Ann
day1/morning.mp4,00:01:02.5,00:01:10,"wash, then dry",Ann
day2\\evening.mp4,3:05,3:07,open door,Ben
night,,,,Ben
"""
    )
    assert instances(official) == [
        ("morning", 12.5, 15.25, "open door"),
        ("morning", 62.5, 70.0, "wash, then dry"),
        ("evening", 185.0, 187.0, "open door"),
    ]
    assert official.videos["evening"].file == "day2/evening.mp4"
    assert official.videos["night"].group == "Ben"
