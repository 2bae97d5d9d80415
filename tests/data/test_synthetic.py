"""The synthetic benchmark: what is written is what is annotated, once, and again after an interruption."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from lofi.data import synthetic
from lofi.data.annotations import check_videos_exist, read_annotations
from lofi.data.synthetic import SyntheticConfig, plan_trimmed, plan_untrimmed, write_benchmark
from lofi.data.synthetic_frames import CLASS_NAMES, render_frames

TINY = SyntheticConfig(videos=3, trimmed_videos=4, classes=3, size=16, duration_sec=4.0, clip_sec=0.75)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def frames_of(plan, config) -> np.ndarray:
    return np.concatenate(
        list(render_frames(plan, size=config.size, fps=config.fps, drift=config.drift))
    ).astype(np.float32)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_benchmark(TINY, tmp_path_factory.mktemp("benchmark") / "first")


def test_both_sets_are_written_and_annotated(written):
    for annotations_path, folder, counts, num_frames in (
        (written.untrimmed_annotations, written.untrimmed_videos, {"training": 3, "validation": 3}, 64),
        (written.trimmed_annotations, written.trimmed_videos, {"training": 4, "validation": 1}, 12),
    ):
        annotations = read_annotations(annotations_path)
        assert annotations.classes == CLASS_NAMES[:3]
        assert Counter(video.subset for video in annotations.videos.values()) == counts
        check_videos_exist(annotations.videos.values(), folder)
        for video in annotations.videos.values():
            assert 1 <= len(video.segments) <= 4
            assert video.duration_sec == num_frames / 16
            with av.open(str(folder / video.file)) as container:
                shapes = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(video=0)]
            assert shapes == [(16, 16, 3)] * num_frames


def test_same_seed_gives_the_same_bytes(written, tmp_path):
    again = write_benchmark(TINY, tmp_path / "again")
    assert files_below(again.root) == files_below(written.root)


def test_decoded_frames_are_the_drawn_frames(written):
    plan = plan_untrimmed(TINY)[1]
    with av.open(str(written.untrimmed_videos / f"{plan.name}.mp4")) as container:
        decoded = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])
    drawn = frames_of(plan, TINY) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    distance = np.abs(decoded[:, None].astype(np.float32) - drawn[None]).mean(axis=(2, 3))
    assert np.diag(distance).mean() < 6
    assert (np.abs(distance.argmin(axis=1) - np.arange(len(drawn))) <= 1).mean() > 0.9


def test_a_video_depends_on_seed_and_name_alone():
    few, many = plan_untrimmed(TINY), plan_untrimmed(replace(TINY, videos=7))
    assert many[:3] == few[:3]
    assert plan_untrimmed(replace(TINY, seed=1))[0].seed != few[0].seed


@pytest.mark.parametrize("plans", [plan_untrimmed, plan_trimmed])
@pytest.mark.parametrize(("correlation", "share"), [(0.0, 0.0), (0.8, 0.8), (0.35, 0.35), (1.0, 1.0)])
def test_scene_is_the_classs_own_with_the_given_share(plans, correlation, share):
    config = SyntheticConfig(videos=400, trimmed_videos=400, scene_correlation=correlation)
    training = [plan for plan in plans(config) if plan.subset == "training"]
    for label in range(config.classes):
        own = [plan.scene == plan.label for plan in training if plan.label == label]
        assert len(own) == 80
        assert sum(own) / len(own) == pytest.approx(share, abs=0.015)
    others = Counter((plan.label, plan.scene) for plan in training if plan.scene != plan.label)
    assert len(others) == (0 if share == 1 else 20)


def test_actions_lie_apart_inside_the_video():
    config = SyntheticConfig(videos=200)
    counts = Counter()
    for plan in plan_untrimmed(config):
        times = np.array(plan.actions) * config.fps
        assert (times == times.round()).all()
        lengths = times[:, 1] - times[:, 0]
        gaps = np.diff(times.reshape(-1), prepend=0, append=plan.num_frames)[::2]
        assert lengths.min() >= 32
        assert lengths.max() <= 160
        assert gaps.min() >= 16
        counts[len(times)] += 1
    assert set(counts) == {1, 2, 3, 4}


@pytest.mark.parametrize("drift", [False, True])
def test_every_class_moves_more_inside_its_actions_than_outside(drift):
    config = SyntheticConfig(videos=8, classes=8, duration_sec=16.0, drift=drift)
    for plan in plan_untrimmed(config)[:8]:
        motion = np.abs(np.diff(frames_of(plan, config), axis=0)).mean(axis=(1, 2, 3))
        middles = (np.arange(len(motion)) + 1) / config.fps
        inside = np.any([(middles > start) & (middles < end) for start, end in plan.actions], axis=0)
        assert motion[inside].mean() > 1.5 * motion[~inside].mean(), CLASS_NAMES[plan.label]


def test_scene_stays_the_same_without_drift_and_moves_with_it():
    def change_at_border(config):
        frames = frames_of(plan_untrimmed(config)[0], config)
        return np.abs(frames[:, 0, :3] - frames[:1, 0, :3]).mean()

    assert change_at_border(TINY) < 4
    assert change_at_border(replace(TINY, drift=True, duration_sec=16.0)) > 8


def test_whole_benchmark_is_left_alone(written, capsys):
    before = {path: path.stat().st_mtime_ns for path in written.root.rglob("*")}
    write_benchmark(TINY, written.root)
    assert {path: path.stat().st_mtime_ns for path in written.root.rglob("*")} == before
    assert "is whole (11 videos), nothing to do" in capsys.readouterr().out


def test_interrupted_benchmark_continues(written, tmp_path, monkeypatch):
    output = tmp_path / "interrupted"
    real, count = synthetic._encode_video, 0

    def interrupted(plan, path, *, config):
        nonlocal count
        count += 1
        if count == 5:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        real(plan, path, config=config)

    monkeypatch.setattr(synthetic, "_encode_video", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_benchmark(TINY, output)
    assert not list(output.rglob("annotations.json"))
    assert len(list(output.rglob("*.mp4"))) == 4
    write_benchmark(TINY, output)
    assert count == 5 + 7
    assert files_below(output) == files_below(written.root)


def test_benchmark_of_another_configuration_is_refused(written):
    before = files_below(written.root)
    with pytest.raises(
        ValueError, match=r"another configuration: videos 3 \(wanted 4\), seed 0 \(wanted 2\)\. D"
    ):
        write_benchmark(replace(TINY, videos=4, seed=2), written.root)
    assert files_below(written.root) == before


def test_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "untrimmed").mkdir()
    with pytest.raises(ValueError, match=r"holds untrimmed/ but no benchmark\.json"):
        write_benchmark(TINY, tmp_path)
    (tmp_path / "benchmark.json").write_text("{")
    with pytest.raises(ValueError, match=r"benchmark\.json: not JSON"):
        write_benchmark(TINY, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("videos", 0, "synthetic.videos is 0; it must be at least 1"),
        ("trimmed_videos", -1, "synthetic.trimmed_videos is -1"),
        ("classes", 9, "synthetic.classes is 9; it must be 2 to 8"),
        ("size", 33, "synthetic.size is 33; it must be an even number of at least 16"),
        ("size", 14, "synthetic.size is 14"),
        ("fps", 4.0, "synthetic.fps is 4.0; it must be 8 to 240"),
        ("duration_sec", 3.0, "synthetic.duration_sec is 3.0; it must be at least 4 seconds"),
        ("clip_sec", 0.1, "synthetic.clip_sec is 0.1; it must be at least 0.5 seconds"),
        ("seed", -1, "synthetic.seed is -1; it must be 0 or more"),
        ("scene_correlation", 1.5, "synthetic.scene_correlation is 1.5; it must be between 0 and 1"),
    ],
)
def test_wrong_value_names_its_key(key, value, message):
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**{key: value})


def test_configuration_in_the_folder_is_the_whole_configuration(written):
    saved = json.loads(written.config.read_text())
    assert SyntheticConfig(**{key: value for key, value in saved.items() if key != "format_version"}) == TINY
