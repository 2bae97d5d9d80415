import numpy as np
import pytest

from lofi.data.packets import keyframes_divide, scan_packets


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
    assert scan.is_shown.tolist() == [True] * 23
    assert scan.seeks_exactly


def test_what_is_no_video_has_no_packets(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"nothing" * 40)
    assert scan_packets(path) is None
