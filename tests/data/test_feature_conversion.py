"""Foreign features against the annotations: every kind of wrong is found, what is right becomes a feature directory."""

import json

import numpy as np
import pytest

from lofi.data.annotations import read_annotations, write_annotations
from lofi.data.feature_conversion import convert_features
from lofi.data.feature_failures import failed_videos
from lofi.data.feature_files import open_feature_files
from lofi.data.feature_store import open_feature_directory, read_feature
from lofi.data.feature_times import RowTimes, read_frame_rates, row_times_of_frames
from lofi.data.feature_windows import FeatureWindows
from lofi.data.grid import GridConfig
from lofi.data.samples import SampleKey
from lofi.fidelity import Fidelity
from lofi.segments import Window

DURATIONS = {f"v{index}": 20.0 + 6 * index for index in range(9)}
STRIDE = RowTimes(stride_sec=0.5)
WIDTH = 3


def features_of(video):
    generator = np.random.default_rng(list(video.encode()))
    return generator.normal(size=(round(DURATIONS[video] / 0.5), WIDTH)).astype(np.float32)


@pytest.fixture
def annotations(tmp_path):
    path = tmp_path / "annotations.json"
    write_annotations(
        path,
        {
            name: {
                "subset": "training",
                "duration": duration,
                "annotations": [{"segment": [1, 2], "label": "x"}],
            }
            for name, duration in DURATIONS.items()
        },
    )
    return read_annotations(path)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    for video in DURATIONS:
        np.save(folder / f"{video}.npy", features_of(video).T)
    return folder


def convert(source, annotations, output, **options):
    options = {"times": STRIDE, "name": "i3d", **options}
    return convert_features(open_feature_files(source), annotations, output=output, **options)


def test_what_is_right_becomes_an_ordinary_feature_directory(source, annotations, tmp_path):
    done = convert(source, annotations, tmp_path / "features", num_snippets=8)
    assert (done.num_converted, done.num_wrong, done.layout, done.width) == (9, 0, "DL", WIDTH)
    directory = open_feature_directory(tmp_path / "features", videos=DURATIONS)
    assert directory.manifest.snippet_stride_sec == 0.5
    assert directory.manifest.encoder == {"name": "i3d"}
    for video in DURATIONS:
        np.testing.assert_array_equal(read_feature(directory, video), features_of(video))


def test_every_kind_of_wrong_is_listed_and_left_out(source, annotations, tmp_path):
    (source / "v0.npy").unlink()
    (source / "v1.npy").write_bytes(b"half")
    np.save(source / "v2.npy", np.zeros((WIDTH + 1, 64), np.float32))
    np.save(source / "v3.npy", features_of("v3")[:-9].T)
    bad = features_of("v4")
    bad[[5, 7], 1] = np.nan, np.inf
    np.save(source / "v4.npy", bad.T)
    np.save(source / "stranger.npy", features_of("v5").T)
    output = tmp_path / "features"
    done = convert(source, annotations, output, width=WIDTH, layout="DL")
    assert {kind: list(videos) for kind, videos in done.problems.items()} == {
        "missing": ["v0"],
        "unreadable": ["v1"],
        "wrong width": ["v2"],
        "wrong length": ["v3"],
        "not finite": ["v4"],
    }
    assert done.problems["wrong length"]["v3"].startswith("67 rows, but a video of 38 s has 76 at one row")
    assert done.problems["not finite"]["v4"].startswith("2 of 88 rows hold NaN or infinity as float32, the")
    assert done.not_annotated == ("stranger",)
    directory = open_feature_directory(output)
    assert directory.existing_videos() == {"v5", "v6", "v7", "v8"}
    assert sorted(failed_videos(directory)) == ["v0", "v1", "v2", "v3", "v4"]
    written = json.loads((output / "conversion.json").read_text())
    assert written["problems"] == done.problems
    assert [line.split()[0] for line in done.lines()] == [
        "9",
        "missing",
        "unreadable",
        "wrong",
        "wrong",
        "not",
        "left",
    ]


def test_started_again_it_writes_only_what_was_not_there(source, annotations, tmp_path):
    output = tmp_path / "features"
    good = (source / "v6.npy").read_bytes()
    (source / "v6.npy").write_bytes(b"half")
    assert convert(source, annotations, output).num_converted == 8
    times = {file: file.stat().st_mtime_ns for file in output.glob("*.npy")}
    (output / ".v6.npy.123-ab.partial").write_bytes(b"killed here")
    (source / "v6.npy").write_bytes(good)
    done = convert(source, annotations, output)
    assert (done.num_converted, done.num_whole, done.num_wrong) == (1, 8, 0)
    assert {file: file.stat().st_mtime_ns for file in times} == times
    assert not list(output.glob(".*"))
    assert failed_videos(open_feature_directory(output)) == {}
    with pytest.raises(ValueError, match=r"made otherwise: .*grid \("):
        convert(source, annotations, output, times=RowTimes(stride_sec=0.25))


def test_without_an_output_nothing_is_written(source, annotations, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert convert(source, annotations, None).num_converted == 9
    assert sorted(tmp_path.rglob("*")) == before


def test_snippets_that_start_with_the_video_have_fewer_rows_and_later_centres(annotations, tmp_path):
    """16 frames every 4 at 8 per second: (n - 16) / 4 + 1 rows, the first at 1 s."""
    source = tmp_path / "foreign"
    source.mkdir()
    for video, duration in DURATIONS.items():
        rows = (round(duration * 8) - 16) // 4 + 1
        np.save(source / f"{video}.npy", np.arange(rows * WIDTH, dtype=np.float32).reshape(rows, WIDTH))
    times = row_times_of_frames(stride_frames=4, fps=8.0, frames=16)
    assert convert(source, annotations, tmp_path / "features", times=times).num_wrong == 0
    directory = open_feature_directory(tmp_path / "features")
    assert (directory.manifest.first_row_sec, directory.manifest.fidelity["frames"]) == (1.0, 16)
    window = Window(video="v0", start_sec=4.75, end_sec=6.75, video_duration_sec=DURATIONS["v0"])
    data = FeatureWindows([window], directory, grid=GridConfig(mode="sliding", window_sec=2.0))
    sample = data[SampleKey(index=0, fidelity=Fidelity(num_snippets=4, frames=1, height=1, width=1))]
    np.testing.assert_allclose(
        sample.features[:, 0], [24, 27, 30, 33]
    )  # rows 8, 9, 10, 11: at 5.0, 5.5 s, ...


def test_rows_of_a_video_of_another_frame_rate_are_interpolated_to_the_common_stride(annotations, tmp_path):
    """Every value is its row's own time, so that it must stay so: 16 frames every 4, at 8 and at 5 per second."""
    source, slow = tmp_path / "foreign", "v3"
    source.mkdir()
    own = {
        video: row_times_of_frames(stride_frames=4, fps=5.0 if video == slow else 8.0, frames=16)
        for video in DURATIONS
    }
    for video, times in own.items():
        rows = round((DURATIONS[video] - 2 * times.first_row_sec) / times.stride_sec) + 1
        seconds = times.first_row_sec + times.stride_sec * np.arange(rows)
        np.save(source / f"{video}.npy", np.repeat(seconds[:, None], WIDTH, axis=1).astype(np.float32))
    common = own["v0"]
    done = convert(source, annotations, tmp_path / "features", times=common, own_times=own, layout="LD")
    assert (done.num_wrong, done.interpolated) == (0, (slow,))
    assert "interpolated to the common stride: 1" in done.lines()[-1]
    directory = open_feature_directory(tmp_path / "features")
    features = read_feature(directory, slow)[:, 0]
    expected = directory.manifest.row_times_sec(len(features))
    assert expected[:2].tolist() == [1.0, 1.5]
    earliest = own[slow].first_row_sec  # before its first row there is nothing to interpolate
    np.testing.assert_allclose(features, np.maximum(expected, earliest), atol=1e-4)
    assert len(features) == pytest.approx((DURATIONS[slow] - 2 * common.first_row_sec) / 0.5 + 1, abs=2)


def test_frame_rates_come_from_the_annotations_and_must_all_be_there(annotations):
    with pytest.raises(
        ValueError, match=r'does not say the frame rate \("fps".* of 9 of 9 videos, such as v0'
    ):
        read_frame_rates(annotations)
    document = json.loads(annotations.path.read_text())
    for index, entry in enumerate(document["database"].values()):
        entry["fps"] = 25 if index else 29.97
    annotations.path.write_text(json.dumps(document))
    assert read_frame_rates(annotations) == {video: 25 if video != "v0" else 29.97 for video in DURATIONS}


def test_rows_that_are_spread_over_their_video_may_be_of_any_number(source, annotations, tmp_path):
    rescale = RowTimes(stride_sec=None)
    with pytest.raises(ValueError, match="the videos have 40 to 136 rows.*say to how many snippets"):
        convert(source, annotations, tmp_path / "features", times=rescale)
    assert convert(source, annotations, tmp_path / "features", times=rescale, num_snippets=10).num_wrong == 0
    directory = open_feature_directory(tmp_path / "features")
    assert directory.manifest.grid == {"mode": "rescale"}
    assert directory.manifest.fidelity["num_snippets"] == 10


def test_names_that_fit_no_video_are_refused_with_the_name_that_would(source, annotations, tmp_path):
    for file in list(source.iterdir()):
        file.rename(source / f"x_{file.name}")
    with pytest.raises(ValueError, match=r"none of the 9 annotated videos .* such as 'x_\{video\}'"):
        convert(source, annotations, tmp_path / "features")
    assert not (tmp_path / "features").exists()
    assert convert(source, annotations, tmp_path / "features", file_name="x_{video}").num_converted == 9
