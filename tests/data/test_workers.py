"""Reading in processes of their own: a video that crashes or hangs its reader is named, and nothing else suffers."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from lofi.data.decode import DecodeError, open_video
from lofi.data.frame_windows import FrameWindows
from lofi.data.grid import GridConfig
from lofi.data.packed_windows import PackedWindows
from lofi.data.reading_process import ReadingProcess
from lofi.data.sampler import BatchPlan, Loader
from lofi.data.samples import SampleKey
from lofi.fidelity import Fidelity, FidelitySchedule
from lofi.segments import Window

SMALL = Fidelity(num_snippets=4, frames=2, height=24, width=40)


@pytest.fixture
def process():
    process = ReadingProcess(timeout_sec=60)
    yield process
    process.close()


def test_a_child_reads_what_this_process_reads(process, numbered_videos):
    here, there = (opener(numbered_videos["long"]) for opener in (open_video, process.open))
    for wanted in ([39, 0, 17, 17], [], list(range(40))):
        frames = there.read(np.array(wanted, dtype=np.int64), height=24, width=30, resize="stretch")
        expected = here.read(np.array(wanted, dtype=np.int64), height=24, width=30, resize="stretch")
        np.testing.assert_array_equal(frames, expected)
    assert there.num_frames_decoded == here.num_frames_decoded
    np.testing.assert_array_equal(there.info.timestamps_sec, here.info.timestamps_sec)


def test_a_childs_errors_come_back_as_they_are(process, numbered_videos, tmp_path):
    with pytest.raises(DecodeError, match=r"no\.mp4 cannot be decoded: there is no such file"):
        process.open(tmp_path / "no.mp4")
    pid = process.pid
    with pytest.raises(RuntimeError, match="frames 3 to 23 were asked for; it has 23"):
        process.open(numbered_videos["short"]).read(np.array([3, 23]), height=6, width=10)
    assert process.pid == pid


def test_memory_that_does_not_suffice_is_the_failure_of_one_video(process, numbered_videos, numbers_in):
    reader = process.open(numbered_videos["long"])
    pid = process.pid
    with pytest.raises(DecodeError, match=r"long\.mp4 cannot be decoded: there is not enough memory"):
        reader.read(np.arange(40), height=10**6, width=10**6)
    assert numbers_in(reader.read(np.array([7]), height=24, width=40)) == [7]
    assert process.pid == pid


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux alone lists the files of a process")
def test_what_decoders_print_is_dropped(process, numbered_videos):
    process.open(numbered_videos["short"])
    assert os.readlink(f"/proc/{process.pid}/fd/2") == os.devnull


@pytest.mark.parametrize("ending", [signal.SIGSEGV, signal.SIGKILL])
def test_a_child_that_dies_while_it_reads_names_its_video_and_the_next_one_is_read(
    process, numbered_videos, numbers_in, ending
):
    reader = process.open(numbered_videos["long"])
    first = process.pid
    os.kill(first, signal.SIGSTOP)  # so that it dies with a request in hand
    threading.Timer(0.3, os.kill, (first, ending)).start()
    threading.Timer(0.3, os.kill, (first, signal.SIGCONT)).start()
    with pytest.raises(DecodeError, match=rf"long\.mp4 cannot .* died of {ending.name}"):
        reader.read(np.arange(40), height=24, width=40)
    frames = process.open(numbered_videos["short"]).read(np.array([7]), height=24, width=40)
    assert numbers_in(frames) == [7]
    assert process.pid != first


def test_a_child_that_hangs_is_ended_and_names_its_video(numbered_videos, numbers_in):
    process = ReadingProcess(timeout_sec=0.5)
    reader = process.open(numbered_videos["long"])
    hung = process.pid
    os.kill(hung, signal.SIGSTOP)
    with pytest.raises(DecodeError, match=r"long\.mp4 cannot be decoded: nothing has come of it for 0\.5 s"):
        reader.read(np.arange(40), height=24, width=40)
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)
    process.close()


def test_a_child_ends_with_its_parent_even_with_one_that_is_killed(numbered_videos):
    code = (
        "import os, signal, sys\n"
        "from lofi.data.reading_process import ReadingProcess\n"
        "process = ReadingProcess(timeout_sec=60)\n"
        f"process.open({str(numbered_videos['long'])!r})\n"
        "print(process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60, check=False)
    child = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"process {child} lives on")


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_opening_and_reading_many_times_leaks_nothing(numbered_videos, decoder):
    def read():
        reader = open_video(numbered_videos["short"], decoder=decoder)
        reader.read(np.array([2, 19]), height=48, width=80)

    for _ in range(30):
        read()
    before = resident_bytes()
    for _ in range(150):
        read()
    assert resident_bytes() - before < 8 * 2**20


@pytest.fixture
def endless_video(tmp_path):
    """150,000 frames (83 minutes at 30 per second), all the same packet."""
    path = tmp_path / "endless.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        image = np.full((48, 80, 3), 90, dtype=np.uint8)
        encoded = [*stream.encode(av.VideoFrame.from_ndarray(image)), *stream.encode()]
        content, time_base = bytes(encoded[0]), stream.codec_context.time_base
        for number in range(150_000):
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.is_keyframe = stream, time_base, True
            packet.pts = packet.dts = number
            container.mux(packet)
    return path


def test_a_child_that_opens_a_long_video_keeps_a_few_numbers_of_each_frame(
    process, numbered_videos, endless_video
):
    def peak_bytes():
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024

    process.open(numbered_videos["short"]).read(np.arange(23), height=48, width=80)
    before = peak_bytes()
    num_frames = process.open(endless_video).info.num_frames
    assert num_frames == 150_000
    assert (peak_bytes() - before) / num_frames < 192


@pytest.fixture
def windows():
    return [
        Window(video=video, start_sec=start, end_sec=start + 1.5, video_duration_sec=duration)
        for video, duration in (("long", 4.0), ("short", 2.3))
        for start in (0.0, 0.4, 0.8)
    ]


def make_dataset(windows, paths, **keys):
    options = {"flip": True, "random_crop": 1.25, "color_jitter": 0.3, "snippet_jitter": 1.0}
    return FrameWindows(windows, paths, grid=GridConfig(), seed=3, **options, **keys)


def test_batches_are_the_same_with_any_number_of_workers_epoch_after_epoch(windows, numbered_videos):
    plan = BatchPlan(num_windows=6, batch_size=2, schedule=FidelitySchedule(fidelities=(SMALL,)), seed=5)

    def epochs(workers):
        loader = Loader(make_dataset(windows, numbered_videos, decode_timeout_sec=60.0), workers=workers)
        return [batch for epoch in (0, 1) for batch in loader.batches(plan.batches(epoch=epoch))]

    alone = epochs(0)
    assert len(alone) == 6
    for workers in (1, 3):
        for one, other in zip(alone, epochs(workers), strict=True):
            assert one.windows == other.windows
            assert torch.equal(one.frames, other.frames)
            for name in ("top", "left", "is_mirrored", "color_factors"):
                assert torch.equal(getattr(one.views, name), getattr(other.views, name))


def test_an_epoch_that_was_left_early_leaves_nothing_in_the_next(windows, numbered_videos):
    plan = BatchPlan(num_windows=6, batch_size=1, schedule=FidelitySchedule(fidelities=(SMALL,)), seed=5)
    loader = Loader(make_dataset(windows, numbered_videos), workers=1)
    next(loader.batches(plan.batches(epoch=0)))
    expected = [windows[batch[0].index] for batch in plan.batches(epoch=1)]
    assert [batch.windows[0] for batch in loader.batches(plan.batches(epoch=1))] == expected


def test_a_video_that_pyav_reads_in_decords_place_is_named_once(write_numbered, tmp_path, windows, capsys):
    path = write_numbered(
        tmp_path / "o.mp4", num_frames=40, x264="keyint=9:min-keyint=9:open-gop=1:bframes=3"
    )
    data = make_dataset(windows[:3], {"long": path})
    for index in (0, 1, 2):
        _ = data[SampleKey(index=index, fidelity=SMALL)]
    said = capsys.readouterr().out
    assert said.count("long: read by PyAV, not decord: it has open groups of pictures") == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_videos_are_skipped_by_name_and_the_others_read(windows, numbered_videos, tmp_path, workers):
    half, noise = tmp_path / "half.mp4", tmp_path / "noise.mp4"
    whole = numbered_videos["long"].read_bytes()
    half.write_bytes(whole[: len(whole) // 2])
    noise.write_bytes(b"nothing" * 30)
    broken = [replace(windows[0], video="half"), replace(windows[0], video="noise")]
    paths = {**numbered_videos, "half": half, "noise": noise}
    data = make_dataset([*windows, *broken], paths, on_decode_error="skip", decode_timeout_sec=60.0)
    keys = [[SampleKey(index=index, fidelity=SMALL)] for index in (6, 0, 7, 5)]
    batches = list(Loader(data, workers=workers).batches(keys))
    assert [[video for video, _ in batch.failures] for batch in batches] == [["half"], [], ["noise"], []]
    assert [bool(batch.mask.any()) for batch in batches] == [False, True, False, True]


def test_what_is_sent_to_a_worker_does_not_grow_with_the_annotations(windows, numbered_videos):
    segments = tuple((float(number), number + 0.5, number % 7) for number in range(200))
    many = [replace(window, segments=segments) for window in windows] * 500

    def sent(each):
        return len(ForkingPickler.dumps(make_dataset(each, numbered_videos)))

    assert sent(many) < sent(windows) + 200


def test_packed_windows_are_a_sequence_of_the_same_windows(windows):
    packed = PackedWindows(windows)
    assert list(packed) == windows
    assert packed[-2] == windows[-2]
    assert packed[1:4] == windows[1:4]
    assert len(PackedWindows([])) == 0
    with pytest.raises(IndexError, match="window 6 was asked for; there are 6"):
        _ = packed[6]
