"""launch/prepare.py features: foreign files -> a feature directory that launch/train.py takes."""

import json

import numpy as np
import pytest
from tiny_runs import recipe_file, tiny_overrides

HEAD = "frozen_tiny_actionformer"
ROWS, WIDTH = 9, 5


@pytest.fixture
def source(benchmark, tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for video in json.loads(benchmark.annotations.read_text())["database"]:
        array = generator.normal(size=(ROWS, WIDTH)).astype(np.float32)
        np.savez(folder / f"v_{video}.npz", feats=array)
    return folder


def test_foreign_features_are_converted_and_train_a_head(call, source, benchmark, tmp_path):
    output = tmp_path / "features"
    options = ("--source", source, "--annotations", benchmark.annotations, "--output", output)
    more = ("--rescale", "--file-name", "v_{video}", "--name", "tsn")
    code, _, error = call("prepare", "features", *options, *more)
    assert code == 2
    assert "say the layout (--layout): LD where time is the first axis" in error
    code, printed, error = call("prepare", "features", *options, *more, "--layout", "LD")
    assert (code, error) == (0, "")
    assert "11 annotated videos: 11 are right, 0 were whole already, 0 are wrong" in printed
    overrides = tiny_overrides(HEAD, benchmark, tmp_path / "run", data__features=output)
    code, _, error = call("train", recipe_file(HEAD), *overrides)
    assert code == 0, error


def test_what_is_wrong_is_listed_with_exit_code_1_and_a_head_says_so_before_it_trains(
    call, source, benchmark, tmp_path
):
    (source / "v_video_training_0001.npz").unlink()
    output = tmp_path / "features"
    options = (
        "--source",
        source,
        "--annotations",
        benchmark.annotations,
        "--output",
        output,
        "--layout",
        "LD",
    )
    code, printed, _ = call("prepare", "features", *options, "--rescale", "--file-name", "v_{video}")
    assert code == 1
    assert "missing       video_training_0001: there is no v_video_training_0001 in " in printed
    overrides = tiny_overrides(HEAD, benchmark, tmp_path / "run", data__features=output)
    code, _, error = call("train", recipe_file(HEAD), *overrides)
    assert code == 2
    assert "video_training_0001 has no features, since making them failed: missing: there is no" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--stride-frames", "8"), "--stride-frames needs --frames"),
        (("--stride-frames", "0", "--frames", "16", "--fps", "8"), "stride_sec is 0.0; it must be positive"),
        (
            ("--stride-frames", "8", "--frames", "16", "--first-row-sec", "1"),
            "--first-row-sec has no effect with --stride-frames",
        ),
        (("--stride-sec", "0.5", "--fps", "30"), "--fps is 30 but has no effect"),
        (("--stride-sec", "-1"), "stride_sec is -1.0; it must be positive"),
        (("--rescale", "--first-row-sec", "1"), "first_row_sec is 1.0 but has no effect"),
    ],
)
def test_options_that_do_not_tell_the_time_of_a_row_are_refused(
    options, match, call, source, benchmark, tmp_path
):
    arguments = ("--source", source, "--annotations", benchmark.annotations, *options)
    code, _, error = call("prepare", "features", *arguments)
    assert code == 2
    assert match in error
