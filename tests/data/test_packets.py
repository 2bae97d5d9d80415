import av
import numpy as np
import pytest

from lofi.data.decode import open_video
from lofi.data.packets import VP8_IS_SHOWN, keyframes_divide, scan_packets
from lofi.data.video_info import DecodeError


@pytest.mark.parametrize(
    ("pts", "keyframes", "expected"),
    [
        ([0, 1, 2, 3, 4], [0, 3], True),
        ([0, 3, 1, 2, 4, 6, 5], [0, 4], True),  # reordered inside closed groups
        ([0, 1, 4, 2, 3, 5], [0, 2], False),  # frames 2 and 3 lead the keyframe at 4
        ([0, 3, 1, 2, 4], [0, 2], False),  # a frame stored before the keyframe is shown after it
        ([5], [0], True),
    ],
)
def test_keyframes_divide_only_where_storage_and_display_agree_there(pts, keyframes, expected):
    is_keyframe = np.isin(np.arange(len(pts)), keyframes)
    assert keyframes_divide(np.array(pts), is_keyframe) is expected


def test_an_ordinary_video_shows_all_its_frames(numbered_videos):
    scan = scan_packets(numbered_videos["short"])
    assert (scan.num_frames, scan.height, scan.width, scan.fps) == (23, 48, 80, 10.0)
    assert scan.decord_misses is None
    np.testing.assert_allclose(scan.starts_sec, np.arange(23) / 10, atol=1e-4)
    assert scan.end_sec == pytest.approx(2.3)
    assert set(scan.keyframe_pts) <= set(scan.pts)


def test_every_packet_is_a_sign_of_life(numbered_videos):
    signs = []
    scan_packets(numbered_videos["short"], on_progress=lambda: signs.append(None))
    assert len(signs) >= 23


def test_what_is_no_video_is_a_decode_error(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"nothing" * 40)
    with pytest.raises(DecodeError, match="it is not a video file"):
        scan_packets(path)


def test_frames_of_vp8_that_only_serve_others_are_not_counted(tmp_path):
    path, other = tmp_path / "v.webm", tmp_path / "hidden.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        for number in range(20):
            image = np.full((48, 80, 3), 10 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    with av.open(str(path)) as source, av.open(str(other), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            content = bytearray(bytes(packet))
            if content:
                content[0] &= ~VP8_IS_SHOWN if number in (7, 13) else 0xFF
                copied = av.Packet(bytes(content))
                copied.pts, copied.dts, copied.time_base = packet.pts, packet.dts, packet.time_base
                copied.is_keyframe, copied.stream = packet.is_keyframe, stream
                target.mux(copied)
    reader = open_video(other)
    assert reader.num_frames == 18
    levels = reader.read(np.arange(18), height=6, width=10).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(levels, [10 * n for n in range(20) if n not in (7, 13)], atol=6)
