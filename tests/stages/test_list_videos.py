"""A folder of videos becomes annotations without segments, which PAL takes."""

import shutil

import pytest

from lofi.data.annotations import find_video, read_annotations
from lofi.data.pretext_windows import bare_videos
from lofi.stages.list_videos import list_videos


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


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no video file"):
        list_videos(tmp_path, output=tmp_path / "a.json")
    with pytest.raises(ValueError, match="does not exist"):
        list_videos(tmp_path / "none", output=tmp_path / "a.json")
