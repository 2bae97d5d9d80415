import json
from dataclasses import replace

import numpy as np
import pytest

from lofi.data.feature_failures import failed_videos, record_failures
from lofi.data.feature_store import (
    FeatureManifest,
    create_feature_directory,
    num_feature_rows,
    open_feature_directory,
    read_feature,
    write_feature,
)

MANIFEST = FeatureManifest(
    encoder={"name": "tiny", "channels": [4, 6]},
    weights_sha256="0a1b",
    fidelity={"num_snippets": 5, "frames": 2, "height": 8, "width": 9},
    grid={"mode": "rescale"},
    feature_width=3,
    versions={"torch": "2"},
)


@pytest.fixture
def directory(tmp_path):
    return create_feature_directory(tmp_path / "features", MANIFEST)


def test_features_come_back_as_float32(directory):
    features = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    write_feature(directory, "a", features)
    write_feature(directory, "b", features, dtype="float16")
    np.testing.assert_array_equal(read_feature(directory, "a"), features)
    half = read_feature(directory, "b")
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, features.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(read_feature(directory, "a", rows=(1, 3)), features[1:3])
    np.testing.assert_array_equal(np.load(directory.path / "a.npy"), features)
    assert num_feature_rows(directory, "a") == 5
    assert directory.existing_videos() == {"a", "b"}


def test_manifest_comes_back_equal(directory):
    assert open_feature_directory(directory.path).manifest == MANIFEST


def test_an_extraction_goes_on_with_the_same_manifest_and_lists_what_is_there(directory):
    write_feature(directory, "a", np.zeros((5, 3)))
    again = create_feature_directory(
        directory.path, replace(MANIFEST, encoder={"name": "tiny", "channels": (4, 6)})
    )
    assert again.existing_videos() == {"a"}


def test_another_manifest_is_refused_with_the_keys_that_differ(directory):
    other = replace(MANIFEST, weights_sha256="ffff", feature_width=4)
    with pytest.raises(
        ValueError, match=r'feature_width \(3 there, 4 now\); weights_sha256 \("0a1b" there, "ffff" now\)'
    ):
        create_feature_directory(directory.path, other)


@pytest.mark.parametrize("change", [{"resize": "stretch"}, {"dtype": "float16"}, {"grid": {"mode": "other"}}])
def test_whatever_changes_features_is_another_manifest(directory, change):
    (key,) = change
    with pytest.raises(ValueError, match=rf"made otherwise: {key} \("):
        create_feature_directory(directory.path, replace(MANIFEST, **change))


@pytest.mark.parametrize(
    "change",
    [{"versions": {"torch": "3"}}, {"encoder": {**MANIFEST.encoder, "weights": "elsewhere/weights.pth"}}],
)
def test_library_versions_and_the_path_of_the_weights_are_information_alone(directory, change):
    create_feature_directory(directory.path, replace(MANIFEST, **change))
    assert open_feature_directory(directory.path).manifest == MANIFEST


OLDER = replace(MANIFEST, grid={"mode": "rescale", "frame_rate": 8.0})
NEWER = replace(
    MANIFEST,
    encoder={**MANIFEST.encoder, "dropout": 0.0, "stages": ()},
    grid={"mode": "rescale", "frame_rate": 8.0, "frame_stride": 1, "spread_frames": False},
)
DEFAULTS = {"channels": (16,), "dropout": 0.0, "stages": ()}


def test_what_an_older_version_began_goes_on_where_new_options_are_at_their_defaults(tmp_path):
    create_feature_directory(tmp_path, OLDER)
    create_feature_directory(tmp_path, NEWER, encoder_defaults=DEFAULTS)
    assert open_feature_directory(tmp_path).manifest == OLDER
    for block, change in (("grid", {"frame_stride": 2}), ("encoder", {"dropout": 0.5})):
        other = replace(NEWER, **{block: {**getattr(NEWER, block), **change}})
        with pytest.raises(ValueError, match=rf"made otherwise: {block} \("):
            create_feature_directory(tmp_path, other, encoder_defaults=DEFAULTS)


def test_what_the_grid_says_of_heads_plays_no_part(tmp_path):
    sliding = replace(MANIFEST, grid={"mode": "sliding", "window_sec": 8.0})
    of_heads = {
        "overlap": 0.25,
        "training": "crops",
        "crop_share": 0.9,
        "crop_visible": 0.5,
        "prediction": "videos",
    }
    create_feature_directory(tmp_path, replace(sliding, grid={**sliding.grid, **of_heads}))
    create_feature_directory(tmp_path, sliding)


def test_the_least_manifest_of_the_docstring_is_enough(tmp_path):
    for grid, stride_sec in (({"mode": "rescale"}, None), ({"mode": "sliding", "window_sec": 8.0}, 0.08)):
        least = {
            "format_version": 1,
            "feature_width": 512,
            "fidelity": {"num_snippets": 100, "frames": 16, "height": 112, "width": 112},
            "grid": grid,
        }
        (tmp_path / "manifest.json").write_text(json.dumps(least))
        np.save(tmp_path / "a.npy", np.zeros((100, 512), np.float16))
        directory = open_feature_directory(tmp_path, videos=["a"])
        assert directory.manifest.snippet_stride_sec == stride_sec
        assert directory.manifest.versions == {}


def test_a_folder_of_unknown_features_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"holds \.npy files but no manifest\.json"):
        create_feature_directory(tmp_path, MANIFEST)


def test_missing_folder_manifest_and_videos_are_named(directory, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        open_feature_directory(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.json"):
        open_feature_directory(tmp_path)
    write_feature(directory, "a", np.zeros((5, 3)))
    with pytest.raises(FileNotFoundError, match="2 of 3 videos have no features in .*: b, c"):
        open_feature_directory(directory.path, videos=["a", "b", "c"])
    with pytest.raises(FileNotFoundError, match=r"b\.npy does not exist"):
        read_feature(directory, "b")


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((5, 4), np.float32), r"a\.npy: the shape is \(5, 4\); it must be \(L, 3\)"),
        (np.zeros((5, 3, 1), np.float32), r"a\.npy: the shape is \(5, 3, 1\)"),
        (np.zeros((5, 3), np.int64), r"a\.npy holds int64"),
    ],
)
def test_a_file_of_another_shape_or_type_is_refused_at_opening(directory, array, match):
    np.save(directory.path / "a.npy", array)
    with pytest.raises(ValueError, match=match):
        open_feature_directory(directory.path, videos=["a"])


def test_a_file_that_is_not_whole_is_refused(directory):
    write_feature(directory, "a", np.zeros((5, 3)))
    file = directory.path / "a.npy"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"a\.npy is not a whole \.npy file"):
        open_feature_directory(directory.path, videos=["a"])


def test_nan_is_found_when_read_and_never_written(directory):
    features = np.zeros((5, 3), np.float32)
    features[3, 1] = np.nan
    np.save(directory.path / "a.npy", features)
    with pytest.raises(ValueError, match=r"a\.npy holds NaN or infinity \(first in row 3\)"):
        read_feature(directory, "a")
    with pytest.raises(ValueError, match=r"\(first in row 3\)"):
        read_feature(directory, "a", rows=(2, 4))
    with pytest.raises(ValueError, match="features of b hold NaN or infinity"):
        write_feature(directory, "b", features)
    with pytest.raises(ValueError, match=r"as float16; .*store float32"):
        write_feature(directory, "b", np.full((5, 3), 1e30), dtype="float16")
    assert "b" not in directory.existing_videos()


def test_values_are_read_once_and_again_when_a_file_has_changed(directory, capsys):
    for name in "ab":
        write_feature(directory, name, np.zeros((5, 3)))
    open_feature_directory(directory.path, videos=["a", "b"])
    assert "2/2" in capsys.readouterr().out
    open_feature_directory(directory.path, videos=["a", "b"])
    assert capsys.readouterr().out == ""
    features = np.full((4, 3), np.inf, np.float32)
    np.save(directory.path / "b.npy", features)
    with pytest.raises(ValueError, match=r"b\.npy holds NaN or infinity \(first in row 0\)"):
        open_feature_directory(directory.path, videos=["a", "b"])


def test_wrong_width_is_never_written(directory):
    with pytest.raises(ValueError, match=r"b\.npy: the shape is \(5, 7\); it must be \(L, 3\)"):
        write_feature(directory, "b", np.zeros((5, 7)))
    with pytest.raises(ValueError, match="cannot name a feature file"):
        write_feature(directory, "a/b", np.zeros((5, 3)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format_version": 9}, "format_version is 9; this program reads 1"),
        ({"grid": {"mode": "dense"}}, "grid is .*dense"),
        ({"grid": {"mode": "sliding"}}, r"grid\.window_sec is None"),
        (
            {"grid": {"mode": "sliding", "window_sec": -1}},
            r"grid\.window_sec is -1; sliding needs a positive",
        ),
        ({"grid": "rescale"}, "grid is 'rescale'"),
        ({"feature_width": 0}, "feature_width is 0"),
        ({"feature_width": True}, "feature_width is True"),
        (
            {"fidelity": {"num_snippets": 5}},
            r"fidelity is .*; it must be .* num_snippets, frames, height and",
        ),
        ({"fidelity": {**MANIFEST.fidelity, "stride": 2}}, "fidelity is .*stride"),
        ({"fidelity": {**MANIFEST.fidelity, "frames": 1.5}}, "fidelity is .*1.5"),
        ({"encoder": "tsn"}, "encoder is 'tsn'; it must be an object"),
        ({"first_row_sec": 1.0}, r"first_row_sec is 1\.0; .* only with grid\.mode sliding"),
        ({"snippet_stride_sec": 0.5}, r"snippet_stride_sec is 0\.5, but grid and fidelity give none"),
        ({"dtype": 16}, "dtype is 16; it must be a text or null"),
        ({"colour": "red"}, r"unknown keys: \['colour'\]"),
    ],
)
def test_a_wrong_manifest_is_refused(directory, change, match):
    file = directory.path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ValueError, match=match):
        open_feature_directory(directory.path)


def test_stride_of_sliding_features_is_window_over_snippets():
    sliding = replace(MANIFEST, grid={"mode": "sliding", "window_sec": 10.0})
    assert sliding.snippet_stride_sec == 2.0
    assert MANIFEST.snippet_stride_sec is None


def test_failures_are_kept_over_extractions_until_the_video_is_whole(directory):
    record_failures(directory, {})
    assert not (directory.path / "failures.json").exists()
    record_failures(directory, {"a": "it is empty.", "b": "it is damaged."})
    record_failures(directory, {"c": "no video stream."})
    assert failed_videos(directory) == {
        "a": "it is empty.",
        "b": "it is damaged.",
        "c": "no video stream.",
    }
    write_feature(directory, "b", np.zeros((5, 3)))
    assert sorted(failed_videos(directory)) == ["a", "c"]
    record_failures(directory, {})
    assert sorted(json.loads((directory.path / "failures.json").read_text())) == ["a", "c"]
    for name in "ac":
        write_feature(directory, name, np.zeros((5, 3)))
    record_failures(directory, {})
    assert failed_videos(directory) == {}


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 3}'])
def test_a_wrong_list_of_failures_is_refused(directory, content):
    (directory.path / "failures.json").write_text(content)
    with pytest.raises(ValueError, match=r"failures\.json: .*Remove it and extract again"):
        failed_videos(directory)
