"""The check of a folder of videos, on generated ones and on the odd real ones."""

import json
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lofi.data.annotations import write_annotations
from lofi.stages.check_videos import CheckOptions, check_videos, judge, num_faulty

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "videos"
needs_videos = pytest.mark.skipif(not SHARED.exists(), reason="the real videos are not here")
ONE = CheckOptions(workers=1)


def write_video(path: Path, *, num_frames: int, fps: int = 10, slow_after: int | None = None) -> None:
    """A grey video; frames after `slow_after` last four times as long."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        time = 0
        for number in range(num_frames):
            image = np.full((48, 64, 3), 40 + 2 * number, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, fps)
            time += 4 if slow_after is not None and number >= slow_after else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def entry(duration: float, *segments: tuple[float, float], **keys) -> dict:
    rows = [{"segment": list(segment), "label": "run"} for segment in segments]
    return {"subset": "training", "duration": duration, "annotations": rows, **keys}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Annotations and videos: one that is right, one cut short, one broken, one missing, one of uneven rate."""
    root = tmp_path_factory.mktemp("checked")
    (root / "videos" / "day1").mkdir(parents=True)
    write_video(root / "videos" / "right.mp4", num_frames=40)
    write_video(root / "videos" / "day1" / "short.mp4", num_frames=20)
    write_video(root / "videos" / "uneven.mp4", num_frames=40, slow_after=20)
    (root / "videos" / "broken.mp4").write_bytes(b"no video at all")
    database = {
        "right": entry(4.0, (1.0, 2.0), fps=10.0),
        "short": entry(9.0, (1.0, 1.5), (6.0, 8.0), file="day1/short.mp4"),
        "uneven": entry(10.0, (1.0, 2.0), fps=10),
        "broken": entry(4.0),
        "missing": entry(4.0),
    }
    write_annotations(root / "annotations.json", database)
    return root


def kinds(document: dict) -> dict[str, list[str]]:
    return {
        name: [row["kind"] for row in found["faults"] + found["remarks"]]
        for name, found in document["database"].items()
    }


@pytest.mark.timeout(120)
def test_what_is_missing_broken_short_or_uneven_is_found_and_opened_once(folder, tmp_path, capsys):
    output = tmp_path / "check.json"
    run = {"videos": folder / "videos", "output": output, "options": ONE}
    document = check_videos(folder / "annotations.json", **run)
    assert kinds(document) == {
        "right": [],
        "short": ["shorter"],
        "uneven": ["variable frame rate", "other frame rate"],
        "broken": ["broken"],
        "missing": ["missing"],
    }
    assert num_faulty(document) == 3
    assert json.loads(output.read_text()) == document
    right = document["database"]["right"]
    assert (right["duration"], right["fps"], right["frames"], right["height"], right["width"]) == (
        4.0,
        10.0,
        40,
        48,
        64,
    )
    fault = document["database"]["short"]["faults"][0]["text"]
    assert fault == "ends at 2.00 s, before the end of 1 of its instances (the last at 8.00 s)"
    assert "videos opened: 5/5" in capsys.readouterr().out

    assert check_videos(folder / "annotations.json", **run) == document  # nothing is opened
    printed = capsys.readouterr().out
    assert "4 of 5 files have not changed" in printed
    assert "videos opened" not in printed

    os.utime(folder / "videos" / "right.mp4")
    check_videos(folder / "annotations.json", **run)
    assert "3 of 5 files have not changed" in capsys.readouterr().out
    check_videos(folder / "annotations.json", **run, restart=True)
    assert "have not changed" not in capsys.readouterr().out


@pytest.mark.timeout(120)
def test_a_video_that_took_too_long_is_opened_again_by_the_next_run(tmp_path, capsys):
    write_video(tmp_path / "slow.mp4", num_frames=10)
    write_annotations(tmp_path / "annotations.json", {"slow": entry(1.0)})
    run = {"videos": tmp_path, "output": tmp_path / "check.json"}
    impatient = check_videos(
        tmp_path / "annotations.json", **run, options=CheckOptions(workers=1, timeout_sec=1e-4)
    )
    assert impatient["database"]["slow"]["faults"] == [
        {"kind": "broken", "text": "no answer within 0.0001 s."}
    ]
    assert kinds(check_videos(tmp_path / "annotations.json", **run, options=ONE)) == {"slow": []}
    assert "have not changed" not in capsys.readouterr().out


def test_an_output_that_is_something_else_is_not_replaced(folder, tmp_path):
    output = tmp_path / "annotations.json"
    output.write_text((folder / "annotations.json").read_text())
    with pytest.raises(ValueError, match=r"annotations\.json is no check\.json of an earlier run"):
        check_videos(folder / "annotations.json", videos=folder / "videos", output=output, options=ONE)
    with pytest.raises(FileNotFoundError, match="the folder of videos .* does not exist"):
        check_videos(folder / "annotations.json", videos=folder / "none", options=ONE)
    with pytest.raises(ValueError, match="workers is 0, frames 5"):
        CheckOptions(workers=0)


def test_a_video_that_is_longer_than_annotated_is_a_remark_and_one_without_times_is_not_judged(folder):
    from lofi.data.annotations import read_annotations

    video = read_annotations(folder / "annotations.json").videos["right"]
    facts = {"file": "right.mp4", "duration": 6.0, "fps": 10.0, "drift": 0.0}
    assert [kind for kind, _ in judge(video, facts, annotated_fps=10.0)[1]] == ["longer"]
    assert [kind for kind, _ in judge(video, {**facts, "drift": None}, annotated_fps=None)[1]] == ["no times"]


@needs_videos
@pytest.mark.timeout(180)
def test_odd_real_videos_are_right_or_named(tmp_path):
    """Files that open and then fail, end early, or change their rate; one codec that decord lacks."""
    expected = {
        "mmaction2_demo.mp4": [],
        "decord_corrupted.mp4": ["broken"],
        "derived/truncated_half_faststart.mp4": ["broken"],
        "derived/zero_bytes.mp4": ["broken"],
        "derived/audio_only.mp4": ["broken"],
        "mp4parse_encrypted_cenc.mp4": ["broken"],
        "derived/vfr_demo.mp4": ["variable frame rate"],
    }
    database = {Path(file).stem: entry(10.0, file=file) for file in expected}
    database["decord_corrupted"]["duration"] = 5.0
    write_annotations(tmp_path / "annotations.json", database)
    document = check_videos(tmp_path / "annotations.json", videos=SHARED, options=ONE)
    assert kinds(document) == {Path(file).stem: found for file, found in expected.items()}
