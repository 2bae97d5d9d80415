import json
import multiprocessing
import pickle
from pathlib import Path

import av
import numpy as np
import pytest

from lofi.data import decode
from lofi.data.decode import DecodeError, VideoInfo, check_duration, open_video

REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "videos"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real videos are not beside this repository")


def _read_whole(path):
    reader = open_video(path)
    return reader.read(np.arange(reader.num_frames), height=24, width=32)


def test_video_says_how_long_and_how_large_it_is(numbered_videos):
    reader = open_video(numbered_videos["long"])
    assert (reader.num_frames, reader.fps, reader.info.height, reader.info.width) == (40, 10.0, 48, 80)
    assert reader.duration_sec == pytest.approx(4.0)
    np.testing.assert_allclose(reader.timestamps_sec, np.arange(40) / 10, atol=1e-5)


@pytest.mark.parametrize(
    "size", [(48, 80), (24, 40), (30, 50), (6, 10), (9, 15), (43, 72), (14, 24), (10, 16), (96, 160)]
)
def test_read_returns_exactly_the_frames_asked_for(numbered_videos, numbers_in, size):
    wanted = [39, 0, 17, 17, 3, 38, 0]
    frames = open_video(numbered_videos["long"]).read(np.array(wanted), height=size[0], width=size[1])
    assert frames.shape == (7, *size, 3)
    assert frames.dtype == np.uint8
    assert numbers_in(frames) == wanted


def test_every_frame_is_right_in_one_read_of_several_chunks(numbered_videos, numbers_in, monkeypatch):
    monkeypatch.setattr(decode, "CHUNK_FRAMES", 9)
    frames = open_video(numbered_videos["long"]).read(np.arange(40), height=24, width=40)
    assert numbers_in(frames) == list(range(40))


def test_readings_at_changing_sizes_stay_right(numbered_videos, numbers_in):
    reader = open_video(numbered_videos["long"])
    for size, index in [((24, 40), 30), ((48, 80), 5), ((24, 40), 21), ((12, 20), 8)]:
        assert numbers_in(reader.read(np.array([index]), height=size[0], width=size[1])) == [index]


def test_only_distinct_frames_are_decoded(numbered_videos):
    reader = open_video(numbered_videos["long"])
    reader.read(np.array([5, 5, 9, 5]), height=24, width=40)
    assert reader.num_frames_decoded == 2


def test_crop_keeps_the_middle_at_its_shape_and_stretch_keeps_all(numbered_videos):
    reader = open_video(numbered_videos["long"])
    whole = reader.read(np.array([21]), height=24, width=40).astype(int)
    crop = reader.read(np.array([21]), height=24, width=24, resize="crop").astype(int)
    np.testing.assert_array_equal(crop, whole[:, :, 8:32])
    stretch = reader.read(np.array([21]), height=24, width=20, resize="stretch").astype(int)
    assert np.abs(stretch - (whole[:, :, ::2] + whole[:, :, 1::2]) / 2).mean() < 3
    tall = reader.read(np.array([21]), height=48, width=16, resize="crop")
    assert tall.shape == (1, 48, 16, 3)


def test_uneven_video_has_its_own_timestamps(numbered_videos):
    reader = open_video(numbered_videos["uneven"])
    expected = np.concatenate([np.arange(15) / 10, 1.5 + np.arange(15) * 0.4])
    np.testing.assert_allclose(reader.timestamps_sec, expected, atol=1e-4)


def test_known_info_opens_without_looking_and_reads_the_same(numbered_videos, numbers_in):
    info = pickle.loads(pickle.dumps(open_video(numbered_videos["short"]).info))
    reader = open_video(numbered_videos["short"], info=info)
    assert numbers_in(reader.read(np.array([22, 4]), height=24, width=40)) == [22, 4]


def test_a_frame_outside_the_video_is_refused(numbered_videos):
    with pytest.raises(ValueError, match=r"frames 3 to 23 were asked for; it has 23"):
        open_video(numbered_videos["short"]).read(np.array([3, 23]), height=6, width=10)


def test_decode_error_survives_pickling():
    error = pickle.loads(pickle.dumps(DecodeError("v", "broken.")))
    assert (error.video, error.reason, str(error)) == ("v", "broken.", "v cannot be decoded: broken.")


@pytest.mark.parametrize(
    ("content", "match"), [(b"", "the file is empty"), (b"\x07 not a video" * 99, "not a video")]
)
def test_a_file_that_is_no_video_is_a_decode_error_of_one_line(tmp_path, content, match):
    path = tmp_path / "odd.mp4"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=match) as caught:
        open_video(path)
    assert "odd.mp4" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_decode_error(tmp_path):
    with pytest.raises(DecodeError, match=r"no\.mp4 cannot be decoded: there is no such file"):
        open_video(tmp_path / "no.mp4")


def test_a_truncated_video_is_a_decode_error(numbered_videos, tmp_path):
    path = tmp_path / "half.mp4"
    whole = numbered_videos["long"].read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DecodeError):
        _read_whole(path)


def test_another_process_may_not_use_an_open_video(numbered_videos):
    reader = open_video(numbered_videos["long"])
    reader._process += 1
    with pytest.raises(RuntimeError, match="opened in another process"):
        reader.read(np.array([0]), height=6, width=10)


OPEN_GROUPS = "keyint=25:min-keyint=25:open-gop=1:bframes=3"


def test_frames_of_open_groups_of_pictures_are_right(write_numbered, numbers_in, tmp_path):
    path = write_numbered(tmp_path / "open.mp4", num_frames=200, height=96, width=160, x264=OPEN_GROUPS)
    reader = open_video(path)
    assert not reader.info.seeks_exactly
    for wanted in (range(0, 200, 4), range(1, 200, 3), range(90, 140), [77], [190, 3, 72, 73]):
        assert numbers_in(reader.read(np.array(wanted), height=48, width=80)) == list(wanted)
    assert reader.num_frames_decoded == 50 + 67 + 50 + 1 + 4


def test_an_ordinary_video_is_not_read_from_its_start(numbered_videos):
    assert all(open_video(path).info.seeks_exactly for path in numbered_videos.values())


def test_frames_hidden_by_an_edit_list_are_not_counted(write_numbered, numbers_in, tmp_path):
    whole = write_numbered(tmp_path / "whole.mp4", num_frames=60, gop=30)
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        one_sec = int(1 / source.streams.video[0].time_base)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream, packet.pts, packet.dts = stream, packet.pts - one_sec, packet.dts - one_sec
                target.mux(packet)
    reader = open_video(cut)
    assert reader.num_frames == 50
    np.testing.assert_allclose(reader.timestamps_sec, np.arange(50) / 10, atol=1e-4)
    wanted = [44, 0, 7, 30]
    assert numbers_in(reader.read(np.array(wanted), height=48, width=80)) == [54, 10, 17, 40]


@needs_real
@pytest.mark.parametrize(
    "name", ["torchcodec_h265_video.mp4", "derived/nonzero_start_copy.mp4", "mmaction2_demo.mp4"]
)
def test_real_videos_give_the_frames_that_reading_them_through_gives(name):
    with av.open(str(REAL / name)) as container:
        frames = [
            frame.to_ndarray(format="rgb24", width=20, height=15) for frame in container.decode(video=0)
        ]
    reader = open_video(REAL / name)
    assert reader.num_frames == len(frames)
    wanted = np.arange(1, len(frames), 3)
    read = reader.read(wanted, height=15, width=20, resize="stretch").astype(np.float32)
    differences = np.abs(read[:, None] - np.stack(frames).astype(np.float32)[None]).mean(axis=(2, 3, 4))
    own = differences[np.arange(len(wanted)), wanted]
    assert (own <= differences.min(axis=1) + 0.3).all()
    assert own.max() < 6


@needs_real
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("derived/audio_only.mp4", "no video stream"),
        ("derived/zero_bytes.mp4", "the file is empty"),
        ("derived/random_bytes.mp4", "not a video file"),
        ("derived/truncated_half_faststart.mp4", "the decoder failed"),
        ("decord_corrupted.mp4", "the decoder failed"),
        ("mp4parse_encrypted_cenc.mp4", "the decoder failed"),
        ("torchcodec_av1_video.mkv", "no video stream"),
    ],
)
def test_real_broken_videos_are_decode_errors(name, match):
    with pytest.raises(DecodeError, match=match) as caught:
        _read_whole(REAL / name)
    assert "/github/" not in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_real
@pytest.mark.parametrize("name", ["decord_rot_90.mov", "decord_rot_180.mov", "derived/odd_101x77_yuv444.mp4"])
def test_real_odd_videos_have_the_size_and_count_on_record(name):
    expected = json.loads((REAL / "checks.json").read_text())[name]["decord"]
    reader = open_video(REAL / name)
    assert [reader.num_frames, reader.info.height, reader.info.width] == [
        expected["n"],
        *expected["shape"][:2],
    ]
    frames = reader.read(np.array([0]), height=reader.info.height // 2, width=reader.info.width // 2)
    assert frames.std() > 5


@needs_real
def test_senseless_timestamps_of_a_real_avi_are_not_used():
    reader = open_video(REAL / "mmaction2_test_ucf101_ApplyEyeMakeup.avi")
    assert reader.timestamps_sec is None
    assert reader.duration_sec == pytest.approx(164 / 25)


def _read_in_child(path, info, queue):
    queue.put(open_video(path, info=info).read(np.array([13]), height=48, width=80))


def test_a_video_known_to_the_parent_reads_right_in_a_spawned_child(numbered_videos, numbers_in):
    reader = open_video(numbered_videos["long"])
    reader.read(np.array([2]), height=48, width=80)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(reader.path, reader.info, queue))
    child.start()
    assert numbers_in(queue.get(timeout=60)) == [13]
    child.join(60)


def info_of(duration_sec, *, timestamps_sec):
    return VideoInfo(
        num_frames=len(timestamps_sec) if timestamps_sec is not None else 9,
        fps=10.0,
        duration_sec=duration_sec,
        height=48,
        width=80,
        timestamps_sec=timestamps_sec,
        seeks_exactly=True,
    )


@pytest.mark.parametrize(
    ("duration_sec", "annotated_sec", "is_refused"),
    [
        (4.0, 4.0, False),
        (400.0, 4.0, False),  # longer is fine
        (4.0, 4.9, False),
        (4.0, 5.2, True),
        (196.5, 200.0, False),  # 2 % of 200 s
        (195.5, 200.0, True),
    ],
)
def test_a_video_well_shorter_than_annotated_is_a_decode_error(duration_sec, annotated_sec, is_refused):
    info = info_of(duration_sec, timestamps_sec=np.arange(0, duration_sec, 0.1))
    if not is_refused:
        check_duration("v", info, annotated_sec=annotated_sec)
        return
    with pytest.raises(
        DecodeError, match=rf"^v .* ends after {duration_sec:.2f} s, .* duration is {annotated_sec:.2f} s"
    ):
        check_duration("v", info, annotated_sec=annotated_sec)


def test_an_uneven_video_may_hold_its_last_frame_as_long_as_any_other():
    info = info_of(10.0, timestamps_sec=np.array([0.0, 0.1, 5.1, 9.9]))
    check_duration("v", info, annotated_sec=15.9)
    with pytest.raises(DecodeError, match=r"ends after 10\.00 s"):
        check_duration("v", info, annotated_sec=16.1)


def test_a_duration_without_sane_timestamps_is_not_compared():
    check_duration("v", info_of(4.0, timestamps_sec=None), annotated_sec=99.0)
