"""Several feature directories read as one."""

import numpy as np
import pytest

from lofi.data.feature_failures import failed_videos, record_failures
from lofi.data.feature_store import (
    FeatureManifest,
    check_features,
    create_feature_directory,
    num_feature_rows,
    read_feature,
    write_feature,
)
from lofi.data.joined_features import check_streams, join_features


def make(path, *, width, rows, num_snippets=4, mode="rescale"):
    manifest = FeatureManifest(
        fidelity={"num_snippets": num_snippets, "frames": 1, "height": 1, "width": 1},
        grid={"mode": mode} | ({"window_sec": 8.0} if mode == "sliding" else {}),
        feature_width=width,
    )
    directory = create_feature_directory(path, manifest)
    for video, count in rows.items():
        write_feature(directory, video, np.arange(count * width, dtype=np.float32).reshape(count, width))
    return directory


def test_features_stand_side_by_side_row_by_row(tmp_path):
    first = make(tmp_path / "a", width=2, rows={"v": 4, "only here": 4})
    second = make(tmp_path / "b", width=3, rows={"v": 4})
    joined = join_features([first, second])
    assert joined.manifest.feature_width == 5
    assert joined.existing_videos() == {"v"}
    assert num_feature_rows(joined, "v") == 4
    expected = np.concatenate([read_feature(first, "v"), read_feature(second, "v")], axis=1)
    assert (read_feature(joined, "v") == expected).all()
    assert (read_feature(joined, "v", rows=(1, 3)) == expected[1:3]).all()
    check_features(joined, ["v"])
    with pytest.raises(FileNotFoundError, match="1 of 1 videos have no features in .*b"):
        check_features(joined, ["only here"])
    assert join_features([first]) is first


def test_other_grids_and_other_lengths_are_refused_by_name(tmp_path):
    first = make(tmp_path / "a", width=2, rows={"v": 4})
    with pytest.raises(ValueError, match=r"c does not fit .*a: grid.mode \(rescale and sliding\)"):
        join_features([first, make(tmp_path / "c", width=2, rows={"v": 4}, mode="sliding")])
    with pytest.raises(ValueError, match=r"rows of a window \(4 and 5\) differ"):
        join_features([first, make(tmp_path / "d", width=2, rows={"v": 5}, num_snippets=5)])
    longer = join_features([first, make(tmp_path / "e", width=2, rows={"v": 6})])
    with pytest.raises(ValueError, match="4 rows in .*a, 6 rows in .*e"):
        check_features(longer, ["v"])


def test_a_video_that_failed_in_one_of_them_failed(tmp_path):
    first, second = (make(tmp_path / name, width=2, rows={"v": 4}) for name in "ab")
    record_failures(second, {"broken": "cut off"})
    assert failed_videos(join_features([first, second])) == {"broken": "cut off"}


def test_streams_must_be_cut_where_the_directories_were_joined(tmp_path):
    first, second = (make(tmp_path / str(width), width=width, rows={}) for width in (3, 2))
    joined = join_features([first, second])
    for right in ([[3, 16], [2, 16]], [[1, 8], [2, 8], [2, 16]], [[5, 32]]):
        check_streams(joined, right)
    for wrong in ([[2, 16], [3, 16]], [[1, 8], [4, 8]], [[3, 16], [2, 16], [1, 8]], [[6, 32]]):
        with pytest.raises(
            ValueError, match=r"head.streams have widths .*data.joined_features have \[3, 2\]"
        ):
            check_streams(joined, wrong)
    check_streams(first, [[1, 16], [2, 16]])  # features that are side by side in one directory
