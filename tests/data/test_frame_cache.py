import os
import shutil
import threading

import numpy as np
import pytest

from lofi.data.decode import open_video
from lofi.data.frame_cache import FrameCache, check_cache_room, estimate_cache_bytes
from lofi.fidelity import Fidelity
from lofi.segments import Window


class Reading:
    """A decoder that counts how often it is asked."""

    def __init__(self, shape, value=7):
        self.frames = np.full(shape, value, dtype=np.uint8)
        self.count = 0

    def __call__(self):
        self.count += 1
        return self.frames


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"some video")
    return path


def fetch(cache, video, reading, *, indices=(1, 5, 9), height=4, width=6, resize="crop", **keys):
    return cache.frames(
        video, np.array(indices), height=height, width=width, resize=resize, read=reading, **keys
    )


def test_second_reading_comes_from_disk_and_is_equal(tmp_path, video):
    cache, reading = FrameCache(tmp_path / "cache"), Reading((3, 4, 6, 3))
    first = fetch(cache, video, reading)
    second = fetch(FrameCache(tmp_path / "cache"), video, reading)
    assert reading.count == 1
    assert isinstance(second, np.memmap)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        ({"indices": (1, 5, 8)}, (3, 4, 6, 3)),
        ({"indices": (1, 5)}, (2, 4, 6, 3)),
        ({"height": 5}, (3, 5, 6, 3)),
        ({"width": 7}, (3, 4, 7, 3)),
        ({"resize": "stretch"}, (3, 4, 6, 3)),
        ({"decoder": "pyav"}, (3, 4, 6, 3)),
    ],
)
def test_anything_that_changes_the_frames_is_another_entry(tmp_path, video, change, shape):
    cache, other = FrameCache(tmp_path / "cache"), Reading(shape, value=9)
    fetch(cache, video, Reading((3, 4, 6, 3)))
    assert (fetch(cache, video, other, **change) == 9).all()
    assert other.count == 1


def test_a_changed_video_is_read_again(tmp_path, video):
    cache, reading = FrameCache(tmp_path / "cache"), Reading((3, 4, 6, 3))
    fetch(cache, video, reading)
    status = video.stat()
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    fetch(cache, video, reading)
    assert reading.count == 2


def test_a_damaged_entry_is_replaced(tmp_path, video):
    cache, reading = FrameCache(tmp_path / "cache"), Reading((3, 4, 6, 3))
    fetch(cache, video, reading)
    (entry,) = (tmp_path / "cache").rglob("*.npy")
    entry.write_bytes(entry.read_bytes()[:-1])
    assert (fetch(cache, video, reading) == 7).all()
    assert (fetch(cache, video, reading) == 7).all()
    assert reading.count == 2


def test_many_writers_leave_one_whole_entry_and_no_partial_file(tmp_path, video):
    cache = FrameCache(tmp_path / "cache")
    readings = [Reading((3, 4, 6, 3)) for _ in range(8)]
    threads = [threading.Thread(target=fetch, args=(cache, video, reading)) for reading in readings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.suffix for path in files] == [".npy"]
    assert (np.load(files[0]) == 7).all()


def test_a_failed_reading_leaves_nothing(tmp_path, video):
    def fail():
        raise OSError("no")

    cache = FrameCache(tmp_path / "cache")
    with pytest.raises(OSError, match="no"):
        fetch(cache, video, fail)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_video_info_comes_back_as_it_was(tmp_path, numbered_videos):
    path = numbered_videos["uneven"]
    info = open_video(path).info
    cache, calls = FrameCache(tmp_path / "cache"), []

    def read():
        calls.append(1)
        return info

    for _ in range(2):
        found = cache.video_info(path, read=read)
        for name, value in vars(info).items():
            np.testing.assert_array_equal(getattr(found, name), value)
    assert len(calls) == 1


def window_of(end_sec, *, video="v"):
    return Window(video=video, start_sec=1.0, end_sec=end_sec, video_duration_sec=99.0)


def test_estimate_is_the_bytes_of_each_different_fidelity_and_window():
    full = Fidelity(num_snippets=4, frames=3, height=10, width=8)
    space = full.reduced(space=2)
    windows = [window_of(9.0, video=name) for name in "abcdeabc"]
    assert estimate_cache_bytes(windows, [full, space, full]) == 5 * 3 * 4 * 3 * (80 + 20)


def test_estimate_of_moving_clips_is_their_segments_once_without_the_long_ones():
    clip = Fidelity(num_snippets=1, frames=3, height=10, width=8)
    windows = [window_of(3.0), window_of(3.0), window_of(1.5), window_of(50.0)]
    assert estimate_cache_bytes(windows, [clip], jitter=True) == 3 * 80 * (60 + 15)


def test_a_cache_that_the_disk_cannot_hold_is_refused(tmp_path, monkeypatch):
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "frames.npy").write_bytes(b"x" * 2**20)
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * 2**30)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert check_cache_room(tmp_path, num_bytes=3 * 2**30 + 2**20) == 3 * 2**30
    with pytest.raises(
        ValueError, match=r"^data\.frame_cache is .* needs up to 5\.0 GiB; its disk has 3\.0 GiB free"
    ):
        check_cache_room(tmp_path, num_bytes=5 * 2**30)
