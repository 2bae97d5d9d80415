"""What reading a window's frames costs, beside the bare decoders for the same frames, at full and at low fidelity, and cached.

    python tests/benchmarks/decode_speed.py
    python tests/benchmarks/decode_speed.py --seconds 20 --repeat 1
    python tests/benchmarks/decode_speed.py --video one_of_mine.mp4

Read are snippets of 8 frames, spread evenly over the video: 100 at 112 x 112, and what LoFi's S (half the size), T (a quarter of
the snippets) and ST leave of that. The video is made for it (H.264, 1280 x 720, 30 frames per second, three minutes, a keyframe
every 250 frames, a textured picture that moves) unless one is given.

Rows: a decoder alone, one thread, asked for the same frames at the same size (torchcodec only where it can be imported); then ours:
`first` opens the file as nobody has before (a pass over its packets), `known` is every later time in a process, `watched` is that in
a child process, as training reads, `cached` comes from data.frame_cache. Columns: median CPU time (of the child too; other work on
the machine disturbs it least), the fastest wall time, frames per second of that, and the CPU time as a share of decord's alone, as
speed: 0.9 is nine tenths as fast.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from lofi.data.decode import VideoInfo, open_video
from lofi.data.frame_cache import FrameCache
from lofi.data.reading_process import ReadingProcess

HEIGHT, WIDTH, FPS, GOP = 720, 1280, 30, 250
CHUNK_FRAMES = 32
SIZE, SNIPPETS, FRAMES = 112, 100, 8
FIDELITIES = {"full": (1, 1), "S: size / 2": (2, 1), "T: snippets / 4": (1, 4), "ST: both": (2, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video", type=Path, help="read this file in place of a made one")
    parser.add_argument(
        "--seconds", type=int, default=180, help="length of the made video (default: %(default)s)"
    )
    parser.add_argument(
        "--repeat", type=int, default=5, help="readings of each row, in turn (default: %(default)s)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.video or write_video(Path(folder) / "made.mp4", num_frames=options.seconds * FPS)
        measure_all(path, Path(folder), repeat=options.repeat)


def measure_all(path: Path, folder: Path, *, repeat: int) -> None:
    infos = {"decord": open_video(path).info, "PyAV": open_video(path, decoder="pyav").info}
    info = infos["decord"]
    indices = snippet_frames(info.num_frames, num_snippets=SNIPPETS)
    scaled = scaled_size(info, SIZE)
    child = ReadingProcess(timeout_sec=120, decoder="decord")
    child.open(path)
    rows: dict[str, Callable[[], Any]] = {
        "decord alone": lambda: decord_alone(path, indices, scaled),
        "PyAV alone": lambda: pyav_alone(path, indices, scaled, info=info),
        "torchcodec alone": lambda: torchcodec_alone(path, indices, scaled),
        "ours, decord, first": lambda: ours(path, indices, SIZE, decoder="decord"),
        "ours, decord, known": lambda: ours(path, indices, SIZE, decoder="decord", info=info),
        "ours, decord, watched": lambda: child.open(path, info=info).read(indices, height=SIZE, width=SIZE),
        "ours, PyAV, first": lambda: ours(path, indices, SIZE, decoder="pyav"),
        "ours, PyAV, known": lambda: ours(path, indices, SIZE, decoder="pyav", info=infos["PyAV"]),
    }
    try:
        import torchcodec  # noqa: F401
    except (ImportError, RuntimeError):
        del rows["torchcodec alone"]
    cache = FrameCache(folder / "cache")
    for name, (space, share) in FIDELITIES.items():
        size, frames = SIZE // space, snippet_frames(info.num_frames, num_snippets=SNIPPETS // share)
        if name != "full":
            for decoder in ("decord", "PyAV"):
                rows[f"ours, {decoder}, known, {name}"] = partial(
                    ours, path, frames, size, decoder=decoder.lower(), info=infos[decoder]
                )
        rows[f"ours, cached, {name}"] = lambda s=size, f=frames: cached(cache, path, f, s, info=info)
    for name, row in rows.items():
        if "cached" in name:
            row()  # the first reading fills it
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for _ in range(repeat):
        for name, row in rows.items():
            times[name].append(timed(row, child=child.pid))
    child.close()
    print_versions(path, info)
    reference = statistics.median(cpu for cpu, _ in times["decord alone"])
    print(f"{'':40}{'CPU s':>8}{'wall s':>8}{'frames/s':>10}{'of decord':>10}")
    for name, measured in times.items():
        cpu, wall = statistics.median(cpu for cpu, _ in measured), min(wall for _, wall in measured)
        count = len(indices) // next(
            (share for key, (_, share) in FIDELITIES.items() if name.endswith(key)), 1
        )
        print(f"{name:40}{cpu:8.2f}{wall:8.2f}{count / wall:10.0f}{reference / max(cpu, 0.01):10.2f}")


def write_video(path: Path, *, num_frames: int) -> Path:
    """A soft texture with grain that wanders, so that motion and residuals cost what they do in films."""
    generator = np.random.default_rng(0)
    texture = np.kron(generator.integers(0, 256, (100, 160, 3)).astype(np.float32), np.ones((12, 12, 1)))
    for axis in (0, 1):
        texture = sum(np.roll(texture, shift, axis) for shift in range(-6, 7, 3)) / 5
    texture = np.clip(texture + generator.normal(0, 4, texture.shape), 0, 255).astype(np.uint8)
    rows, columns = (room - size for room, size in zip(texture.shape, (HEIGHT, WIDTH), strict=False))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23"}
        stream.codec_context.gop_size = GOP
        for number in range(num_frames):
            top = int(rows / 2 * (1 + np.sin(number / 97)))
            left = int(columns / 2 * (1 + np.sin(number / 61 + number // 300)))
            image = np.ascontiguousarray(texture[top : top + HEIGHT, left : left + WIDTH])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def snippet_frames(num_frames: int, *, num_snippets: int) -> np.ndarray:
    """(num_snippets * FRAMES,) int, rising; fewer where snippets overlap."""
    centres = ((np.arange(num_snippets) + 0.5) * num_frames / num_snippets).astype(np.int64)
    return np.unique(np.clip(centres[:, None] + np.arange(FRAMES) - FRAMES // 2, 0, num_frames - 1))


def scaled_size(info: VideoInfo, size: int) -> tuple[int, int]:
    scale = size / min(info.height, info.width)
    return round(info.height * scale), round(info.width * scale)


def decord_alone(path: Path, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(str(path), height=size[0], width=size[1], num_threads=1)
    return np.concatenate([reader.get_batch(chunk.tolist()).asnumpy() for chunk in chunks(indices)])


def pyav_alone(path: Path, indices: np.ndarray, size: tuple[int, int], *, info: VideoInfo) -> np.ndarray:
    """One pass from the first frame on."""
    wanted = {int(info.pts[index]) for index in indices}
    frames = []
    reformatter = av.video.reformatter.VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for frame in container.decode(stream):
            if frame.pts in wanted:
                scaled = reformatter.reformat(frame, height=size[0], width=size[1], format="rgb24", threads=1)
                frames.append(scaled.to_ndarray())
                if len(frames) == len(wanted):
                    break
    return np.stack(frames)


def torchcodec_alone(path: Path, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    reader = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC", transforms=[Resize(size)])
    return np.concatenate([reader.get_frames_at(chunk.tolist()).data.numpy() for chunk in chunks(indices)])


def ours(path: Path, indices: np.ndarray, size: int, **options: Any) -> np.ndarray:
    return open_video(path, **options).read(indices, height=size, width=size)


def cached(cache: FrameCache, path: Path, indices: np.ndarray, size: int, *, info: VideoInfo) -> np.ndarray:
    frames = cache.frames(
        path,
        indices,
        height=size,
        width=size,
        resize="crop",
        read=lambda: ours(path, indices, size, decoder="decord", info=info),
    )
    return np.array(frames)


def chunks(indices: np.ndarray) -> Iterable[np.ndarray]:
    return (indices[first : first + CHUNK_FRAMES] for first in range(0, len(indices), CHUNK_FRAMES))


def timed(row: Callable[[], Any], *, child: int | None) -> tuple[float, float]:
    """(CPU seconds of this process and of the child, wall seconds)."""
    before, clock = cpu_seconds("self") + cpu_seconds(child), time.perf_counter()
    row()
    wall = time.perf_counter() - clock
    return cpu_seconds("self") + cpu_seconds(child) - before, wall


def cpu_seconds(process: int | str | None) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def print_versions(path: Path, info: VideoInfo) -> None:
    from importlib.metadata import PackageNotFoundError, version

    print(
        f"{path.name}: {info.num_frames} frames, {info.width} x {info.height}, {path.stat().st_size / 2**20:.0f} MiB"
    )
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", end="")
    for name in ("decord", "av", "torchcodec", "numpy"):
        try:
            print(f", {name} {version(name)}", end="")
        except PackageNotFoundError:
            continue
    print()


if __name__ == "__main__":
    main()
