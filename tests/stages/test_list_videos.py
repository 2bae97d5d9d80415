"""A folder of videos becomes annotations without segments, which PAL takes."""

import shutil
from pathlib import Path

import pytest

from lofi.data.annotations import find_video, read_annotations
from lofi.data.pretext_windows import bare_videos
from lofi.stages.list_videos import list_videos

CORRUPTED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "videos" / "decord_corrupted.mp4"


def test_a_folder_of_videos_is_listed_with_durations_and_what_cannot_be_opened(benchmark, tmp_path, capsys):
    files = sorted(benchmark.videos.glob("*.mp4"))[:4]
    (tmp_path / "videos" / "more").mkdir(parents=True)
    for index, file in enumerate(files):
        shutil.copy(file, tmp_path / "videos" / ("more" if index == 3 else "") / file.name)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    output = tmp_path / "unlabelled.json"
    failures = list_videos(tmp_path / "videos", output=output, validation_share=0.25, workers=1)
    assert list(failures) == ["broken.mp4"]
    annotations = read_annotations(output)
    assert annotations.classes == ()
    assert sorted(annotations.videos) == sorted(
        [*(file.stem for file in files[:3]), f"more__{files[3].stem}"]
    )
    assert len(annotations.subset("validation")) == 1
    training = annotations.subset("training")
    assert [find_video(video, tmp_path / "videos").is_file() for video in training] == [True] * 3
    assert len(bare_videos(training, stretch_sec=4.0)) == 3
    assert "4 videos, 0.00 h, 1 of them for validation" in capsys.readouterr().out


@pytest.mark.skipif(not CORRUPTED.exists(), reason="the real videos are not here")
def test_videos_that_open_but_cannot_be_decoded_are_left_out_and_all_named(benchmark, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    shutil.copy(sorted(benchmark.videos.glob("*.mp4"))[0], tmp_path / "videos" / "good.mp4")
    shutil.copy(CORRUPTED, tmp_path / "videos" / "corrupted.mp4")
    broken = [f"broken{number}.mp4" for number in range(6)]
    for name in broken:
        (tmp_path / "videos" / name).write_bytes(b"no video")
    failures = list_videos(tmp_path / "videos", output=tmp_path / "a.json", workers=1)
    assert sorted(failures) == [*broken, "corrupted.mp4"]
    printed = capsys.readouterr().out
    assert all(f"left out: {name}: " in printed for name in failures)
    assert "1 video, " in printed


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no video file"):
        list_videos(tmp_path, output=tmp_path / "a.json")
    with pytest.raises(ValueError, match="does not exist"):
        list_videos(tmp_path / "none", output=tmp_path / "a.json")
