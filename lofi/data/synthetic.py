"""A benchmark of real video files that makes the task discrepancy visible, with a knob.

Encoders for temporal action localization are usually trained by classifying trimmed clips, and then frozen. LoFi
(NeurIPS 2021, section 1) and TSP (ICCVW 2021, section 1) argue that such features need not tell WHEN an action happens.
Here that is so by construction. Every video shows one scene, the same from first to last frame, and one shape, which
drifts about and at times performs the motion of its class on top of that drift. The scene is the class's own with
probability `scene_correlation`, so that a classifier of trimmed clips can win by the scene, which is no different during
an action and outside it. At 0 the scene is never the class's own, and the motion must be learned.

All actions of one video are of one class. Each video has its own generator, from the seed and its name alone.

Layout: OUTPUT/{trimmed,untrimmed}/{annotations.json,videos/NAME.mp4} and OUTPUT/benchmark.json, the configuration.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from lofi.data.annotations import write_annotations
from lofi.data.synthetic_frames import CLASS_NAMES, VideoPlan, render_frames
from lofi.files import write_atomically, write_json
from lofi.progress import say, track

FORMAT_VERSION = 1
"""Counts up when the same configuration begins to give other videos."""


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What the benchmark holds. The defaults are small enough for two CPU cores."""

    videos: int = 80
    """Untrimmed training videos; three quarters as many are written for validation."""
    trimmed_videos: int = 300
    """Trimmed training clips; a fifth as many are written for validation."""
    classes: int = 5
    """Number of classes, and of scenes: 2 to 8."""
    size: int = 32
    """Height and width, pixels; even, at least 16."""
    fps: float = 16.0
    """Frames per second."""
    duration_sec: float = 32.0
    """Length of an untrimmed video, seconds."""
    clip_sec: float = 2.0
    """Length of a trimmed clip, seconds; the action fills it."""
    seed: int = 0
    """Seed of the whole benchmark."""
    scene_correlation: float = 1.0
    """Share of the videos of each class whose scene is the class's own, 0 to 1; the others have any other scene."""
    drift: bool = False
    """Move the camera slowly and let the light change."""

    def __post_init__(self) -> None:
        for name in ("videos", "trimmed_videos"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _check("classes", self.classes, 2 <= self.classes <= len(CLASS_NAMES), f"2 to {len(CLASS_NAMES)}")
        _check(
            "size", self.size, self.size >= 16 and self.size % 2 == 0, "an even number of at least 16 pixels"
        )
        _check("fps", self.fps, 8 <= self.fps <= 240, "8 to 240: slower video cannot show the motions")
        _check("duration_sec", self.duration_sec, 4 <= self.duration_sec < math.inf, "at least 4 seconds")
        _check("clip_sec", self.clip_sec, 0.5 <= self.clip_sec < math.inf, "at least 0.5 seconds")
        _check("seed", self.seed, self.seed >= 0, "0 or more")
        _check(
            "scene_correlation", self.scene_correlation, 0 <= self.scene_correlation <= 1, "between 0 and 1"
        )


@dataclass(frozen=True, kw_only=True)
class BenchmarkPaths:
    """Where the benchmark's parts lie."""

    root: Path
    config: Path
    trimmed_annotations: Path
    trimmed_videos: Path
    untrimmed_annotations: Path
    untrimmed_videos: Path


def benchmark_paths(output: str | Path) -> BenchmarkPaths:
    """The layout below `output`; nothing is made."""
    root = Path(output)
    return BenchmarkPaths(
        root=root,
        config=root / "benchmark.json",
        trimmed_annotations=root / "trimmed" / "annotations.json",
        trimmed_videos=root / "trimmed" / "videos",
        untrimmed_annotations=root / "untrimmed" / "annotations.json",
        untrimmed_videos=root / "untrimmed" / "videos",
    )


def write_benchmark(config: SyntheticConfig, output: str | Path) -> BenchmarkPaths:
    """Write the benchmark, or what an interrupted run left out of it; does nothing where it is whole.

    A video is written under another name and renamed, and each annotation file comes after its videos.

    Raises:
        ValueError: `output` holds a benchmark of another configuration, or something else.
    """
    paths = benchmark_paths(output)
    _claim(config, paths)
    parts = (
        (plan_trimmed(config), paths.trimmed_annotations, paths.trimmed_videos),
        (plan_untrimmed(config), paths.untrimmed_annotations, paths.untrimmed_videos),
    )
    work = [
        (plan, path)
        for plans, _, folder in parts
        for plan in plans
        if not (path := folder / f"{plan.name}.mp4").exists()
    ]
    num_videos = sum(len(plans) for plans, _, _ in parts)
    if not work and all(annotations.exists() for _, annotations, _ in parts):
        say(f"synthetic benchmark: {paths.root} is whole ({num_videos} videos), nothing to do.")
        return paths
    with track("videos written", total=num_videos, done=num_videos - len(work)) as advance:
        for plan, path in work:
            write_video(plan, path, config=config)
            advance(1, note=path.name)
    for plans, annotations, _ in parts:
        database = {plan.name: _entry(plan, config) for plan in plans}
        write_annotations(annotations, database, classes=CLASS_NAMES[: config.classes])
    return paths


def plan_untrimmed(config: SyntheticConfig) -> list[VideoPlan]:
    """The untrimmed videos: 1 to 4 actions each, with idle stretches before, between and after."""
    num_frames = round(config.duration_sec * config.fps)
    counts = {"training": config.videos, "validation": math.ceil(config.videos * 3 / 4)}
    return [
        _plan(config, f"video_{subset}_{index:04d}", subset=subset, index=index, num_frames=num_frames)
        for subset, count in counts.items()
        for index in range(count)
    ]


def plan_trimmed(config: SyntheticConfig) -> list[VideoPlan]:
    """The trimmed clips: one action each, from the first frame to the last."""
    num_frames = round(config.clip_sec * config.fps)
    counts = {"training": config.trimmed_videos, "validation": math.ceil(config.trimmed_videos / 5)}
    return [
        _plan(
            config,
            f"clip_{subset}_{index:04d}",
            subset=subset,
            index=index,
            num_frames=num_frames,
            trimmed=True,
        )
        for subset, count in counts.items()
        for index in range(count)
    ]


def write_video(plan: VideoPlan, path: Path, *, config: SyntheticConfig) -> None:
    """Draw one video and write it as H.264 in MP4, atomically. A key frame every second: quick random access."""
    write_atomically(path, lambda partial: _encode_video(plan, partial, config=config))


def _encode_video(plan: VideoPlan, path: Path, *, config: SyntheticConfig) -> None:
    # One thread and no version strings: the same bytes on every run of one machine.
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(config.fps).limit_denominator(1001))
        stream.width = stream.height = config.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {
            "preset": "veryfast",
            "crf": "18",
            "g": str(max(1, round(config.fps))),
            "bf": "0",
            "sc_threshold": "0",
        }
        for chunk in render_frames(plan, size=config.size, fps=config.fps, drift=config.drift):
            for frame in chunk:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _check(name: str, value: Any, is_allowed: bool, allowed: str) -> None:
    if not is_allowed:
        raise ValueError(f"synthetic.{name} is {value}; it must be {allowed}.")


def _plan(
    config: SyntheticConfig, name: str, *, subset: str, index: int, num_frames: int, trimmed: bool = False
) -> VideoPlan:
    seed = int.from_bytes(hashlib.sha256(f"{config.seed}/{name}".encode()).digest()[:8], "big")
    rng = np.random.default_rng([seed, 0])
    label = index % config.classes
    # An exact share in every class rather than a draw per video: with few videos a draw would blur the knob.
    turn, offset = index // config.classes, (label * 0.618) % 1.0
    share = config.scene_correlation
    is_own = math.floor((turn + 1) * share + offset) > math.floor(turn * share + offset)
    other = (label + 1 + int(rng.integers(config.classes - 1))) % config.classes
    whole = ((0.0, num_frames / config.fps),)
    actions = whole if trimmed else _place_actions(rng, num_frames=num_frames, fps=config.fps)
    return VideoPlan(
        name=name,
        subset=subset,
        label=label,
        scene=label if is_own else other,
        num_frames=num_frames,
        actions=actions,
        is_trimmed=trimmed,
        seed=seed,
    )


def _place_actions(
    rng: np.random.Generator, *, num_frames: int, fps: float
) -> tuple[tuple[float, float], ...]:
    """Actions on the borders of frames: lengths log-uniform from 1/16 to 5/16 of the video, at most 60 % in all."""
    wanted = int(rng.integers(1, 5))
    lengths = np.exp(rng.uniform(math.log(num_frames / 16), math.log(num_frames * 5 / 16), size=wanted))
    lengths = np.maximum(lengths.round().astype(int), math.ceil(0.5 * fps))
    lengths = lengths[: max(1, int((lengths.cumsum() <= 0.6 * num_frames).sum()))]
    gap = num_frames // 32
    spare = num_frames - int(lengths.sum()) - gap * (len(lengths) + 1)
    cuts = np.sort(rng.integers(0, spare + 1, size=len(lengths)))
    starts = cuts + gap * (np.arange(len(lengths)) + 1) + np.concatenate([[0], lengths[:-1].cumsum()])
    return tuple(
        (float(start) / fps, float(start + length) / fps)
        for start, length in zip(starts, lengths, strict=True)
    )


def _entry(plan: VideoPlan, config: SyntheticConfig) -> dict[str, Any]:
    return {
        "subset": plan.subset,
        "duration": plan.num_frames / config.fps,
        "annotations": [
            {"segment": [start, end], "label": CLASS_NAMES[plan.label]} for start, end in plan.actions
        ],
        "file": f"{plan.name}.mp4",
        "fps": config.fps,
        "frames": plan.num_frames,
        "scene": plan.scene,
    }


def _claim(config: SyntheticConfig, paths: BenchmarkPaths) -> None:
    """Write the configuration, or check that the one there is this one."""
    wanted = {"format_version": FORMAT_VERSION, **asdict(config)}
    if not paths.config.exists():
        taken = [path for path in (paths.root / "trimmed", paths.root / "untrimmed") if path.exists()]
        if taken:
            raise ValueError(
                f"{paths.root} holds {taken[0].name}/ but no {paths.config.name}: it was not made here. "
                "Name an empty folder."
            )
        write_json(paths.config, wanted)
        return
    try:
        found = json.loads(paths.config.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{paths.config}: not JSON: {error}. Delete the folder or name another.") from None
    differing = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    if differing:
        listed = ", ".join(f"{key} {found.get(key)} (wanted {wanted.get(key)})" for key in differing)
        raise ValueError(
            f"{paths.root} holds a benchmark of another configuration: {listed}. "
            "Delete it or name another folder."
        )
