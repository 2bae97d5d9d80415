import multiprocessing
import pickle

import av
import numpy as np
import pytest

from lofi.data import decord_frames
from lofi.data.decode import DecodeError, VideoInfo, check_duration, open_video


def _read_whole(path):
    reader = open_video(path)
    return reader.read(np.arange(reader.num_frames), height=24, width=32)


def test_video_says_how_long_and_how_large_it_is(numbered_videos):
    reader = open_video(numbered_videos["long"])
    assert (reader.num_frames, reader.fps, reader.info.height, reader.info.width) == (40, 10.0, 48, 80)
    assert reader.duration_sec == pytest.approx(4.0)
    np.testing.assert_allclose(reader.timestamps_sec, np.arange(40) / 10, atol=1e-5)


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize(
    "size", [(48, 80), (24, 40), (30, 50), (6, 10), (9, 15), (43, 72), (14, 24), (10, 16), (96, 160)]
)
def test_read_returns_exactly_the_frames_asked_for(numbered_videos, numbers_in, size, decoder):
    wanted = [39, 0, 17, 17, 3, 38, 0]
    reader = open_video(numbered_videos["long"], decoder=decoder)
    frames = reader.read(np.array(wanted), height=size[0], width=size[1])
    assert frames.shape == (7, *size, 3)
    assert frames.dtype == np.uint8
    assert numbers_in(frames) == wanted
    assert reader.info.decoder == decoder


def test_every_frame_is_right_in_one_read_of_several_chunks(numbered_videos, numbers_in, monkeypatch):
    monkeypatch.setattr(decord_frames, "CHUNK_FRAMES", 9)
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


def test_frames_of_open_groups_of_pictures_are_read_by_pyav_and_right(write_numbered, numbers_in, tmp_path):
    path = write_numbered(tmp_path / "open.mp4", num_frames=200, height=96, width=160, x264=OPEN_GROUPS)
    reader = open_video(path)
    assert (reader.info.decoder, reader.info.decoder_reason) == ("pyav", "it has open groups of pictures")
    for wanted in (range(0, 200, 4), range(1, 200, 3), range(90, 140), [77], [190, 3, 72, 73]):
        assert numbers_in(reader.read(np.array(wanted), height=48, width=80)) == list(wanted)
    assert reader.num_frames_decoded == 50 + 67 + 50 + 1 + 4
    with pytest.raises(DecodeError, match=r"open groups of pictures\); data\.decoder: auto or pyav does"):
        open_video(path, decoder="decord")


def test_an_ordinary_video_is_read_by_decord(numbered_videos):
    for path in numbered_videos.values():
        info = open_video(path).info
        assert (info.decoder, info.decoder_reason, info.seeks_exactly) == ("decord", None, True)


def read_one_by_one(reader, wanted):
    return [reader.read(np.array([index]), height=48, width=80)[0] for index in wanted]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_frames_are_right_in_any_order_in_every_container(
    write_numbered, numbers_in, tmp_path, suffix, decoder
):
    path = write_numbered(
        tmp_path / f"v.{suffix}", num_frames=90, x264="keyint=20:bframes=3:b-pyramid=normal"
    )
    reader = open_video(path, decoder=decoder)
    assert reader.num_frames == 90
    wanted = np.random.default_rng(1).permutation(90)[:25]
    assert numbers_in(np.stack(read_one_by_one(reader, wanted))) == wanted.tolist()
    assert numbers_in(reader.read(wanted, height=48, width=80)) == wanted.tolist()
    np.testing.assert_allclose(reader.timestamps_sec, np.arange(90) / 10, atol=2e-3)


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_uneven_video_gives_the_same_frames_with_either_decoder(numbered_videos, numbers_in, decoder):
    reader = open_video(numbered_videos["uneven"], decoder=decoder)
    assert numbers_in(reader.read(np.array([29, 14, 16]), height=24, width=40)) == [29, 14, 16]


def copied(source_path, path, *, change):
    """The packets of a video, without decoding, each as `change(number, packet, one_sec)` leaves it; None drops it."""
    with av.open(str(source_path)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        one_sec = int(1 / source.streams.video[0].time_base)
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and change(number, packet, one_sec):
                packet.stream = stream
                target.mux(packet)
    return path


def test_frames_hidden_by_an_edit_list_are_not_counted(write_numbered, numbers_in, tmp_path):
    def a_second_earlier(number, packet, one_sec):
        packet.pts, packet.dts = packet.pts - one_sec, packet.dts - one_sec
        return True

    whole = write_numbered(tmp_path / "whole.mp4", num_frames=60, gop=30)
    reader = open_video(copied(whole, tmp_path / "cut.mp4", change=a_second_earlier))
    assert reader.num_frames == 50
    assert reader.info.decoder == "pyav"
    np.testing.assert_allclose(reader.timestamps_sec, np.arange(50) / 10, atol=1e-4)
    wanted = [44, 0, 7, 30]
    assert numbers_in(reader.read(np.array(wanted), height=48, width=80)) == [54, 10, 17, 40]


def test_a_start_that_is_not_zero_is_the_start(write_numbered, numbers_in, tmp_path):
    def later(number, packet, one_sec):
        packet.pts, packet.dts = packet.pts + 3 * one_sec, packet.dts + 3 * one_sec
        return True

    whole = write_numbered(tmp_path / "whole.mkv", num_frames=30)
    reader = open_video(copied(whole, tmp_path / "late.mkv", change=later))
    np.testing.assert_allclose(reader.timestamps_sec, np.arange(30) / 10, atol=2e-3)
    assert reader.duration_sec == pytest.approx(3.0, abs=0.01)
    assert numbers_in(reader.read(np.array([12, 0]), height=48, width=80)) == [12, 0]


def test_a_recording_that_begins_between_keyframes_begins_at_the_first_one(
    write_numbered, numbers_in, tmp_path
):
    whole = write_numbered(tmp_path / "whole.ts", num_frames=60, x264="keyint=20:scenecut=0:bframes=0")
    cut = copied(whole, tmp_path / "cut.ts", change=lambda number, packet, one_sec: number >= 13)
    reader = open_video(cut)
    assert (reader.num_frames, reader.info.decoder) == (40, "pyav")
    assert numbers_in(reader.read(np.array([0, 25, 39]), height=48, width=80)) == [20, 45, 59]


@pytest.mark.parametrize(
    ("pix_fmt", "height", "width"),
    [("yuv420p10le", 48, 80), ("yuv444p", 77, 101), ("yuv422p", 49, 80), ("yuv444p10le", 47, 83)],
)
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_other_forms_of_pixels_and_odd_sizes_are_right(
    write_numbered, numbers_in, tmp_path, pix_fmt, height, width, decoder
):
    path = write_numbered(tmp_path / "v.mp4", num_frames=30, height=height, width=width, pix_fmt=pix_fmt)
    reader = open_video(path, decoder=decoder)
    assert (reader.info.height, reader.info.width) == (height, width)
    wanted = [25, 0, 13, 29]
    whole = reader.read(np.array(wanted), height=height, width=width)
    assert numbers_in(whole) == wanted
    assert numbers_in(reader.read(np.array(wanted), height=24, width=40, resize="stretch")) == wanted
    for colour in range(3):  # black blocks are 25, white ones 225
        np.testing.assert_allclose(np.percentile(whole[0, ..., colour], [2, 98]), [25, 225], atol=8)


class RepeatingFrames:
    """decord as it is on damaged data: the frame before, in place of one that it could not decode."""

    size = (24, 40)

    def __init__(self, reader):
        self._reader = reader

    def read(self, wanted):
        frames = self._reader.read(wanted, height=24, width=40)
        frames[3] = frames[2]
        yield 0, frames


def test_a_frame_that_decord_repeats_in_silence_is_noticed_and_read_by_pyav(numbered_videos, numbers_in):
    path = numbered_videos["long"]
    reader = open_video(path)
    reader._decord = RepeatingFrames(open_video(path, decoder="pyav"))
    wanted = np.array([5, 9, 20, 31, 33])
    assert numbers_in(reader.read(wanted, height=24, width=40)) == wanted.tolist()
    assert reader.info.decoder == "pyav"
    assert reader.info.decoder_reason == "decord gives the same frame for 20 and 31"
    forced = open_video(path, decoder="decord")
    forced._decord = RepeatingFrames(open_video(path, decoder="pyav"))
    with pytest.raises(DecodeError, match="decord gives the same frame for 20 and 31"):
        forced.read(wanted, height=24, width=40)


def damaged(path, made, *, share):
    """A copy with noise in the middle of its data."""
    content = bytearray(path.read_bytes())
    middle, size = len(content) // 2, int(share * len(content))
    content[middle : middle + size] = np.random.default_rng(0).bytes(size)
    made.write_bytes(content)
    return made


def test_damage_in_the_middle_never_gives_frames_that_were_not_asked_for(
    write_numbered, numbers_in, tmp_path
):
    whole = write_numbered(
        tmp_path / "w.mp4", num_frames=300, height=96, width=160, x264="keyint=50:scenecut=0:bframes=2"
    )
    path = damaged(whole, tmp_path / "damaged.mp4", share=0.03)
    with pytest.raises(DecodeError, match=r"damaged\.mp4 cannot be decoded: the decoder failed") as caught:
        open_video(path).read(np.arange(300), height=48, width=80)
    assert "\n" not in str(caught.value)
    reader = open_video(path)
    assert numbers_in(reader.read(np.array([3, 40, 280]), height=48, width=80)) == [3, 40, 280]


def test_a_still_picture_stays_with_decord(write_numbered, tmp_path):
    path = tmp_path / "still.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        for _ in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 80, 3), 90, np.uint8))))
        container.mux(stream.encode())
    reader = open_video(path)
    frames = reader.read(np.arange(30), height=24, width=40)
    assert np.array_equal(frames[0], frames[29])
    assert reader.info.decoder == "decord"


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
