"""Two ranks share an odd number of validation videos; one rank that reads the same checkpoints must find the same."""

import json
from pathlib import Path

import pytest
from ranks import run_on_ranks
from tiny_runs import read_steps, recipe_file, tiny_overrides

from lofi.data.annotations import read_annotations
from lofi.engine.run_directory import RunDirectory
from lofi.engine.validation import read_best, read_validations
from lofi.stages.evaluate import evaluate_run

NAME = "lofi_s_tiny_actionformer"
CHANGES = {
    "train__epochs": 2,
    "train__keep_checkpoints": 9,
    "evaluation__every_epochs": 1,
    "optimizer__lr": 0.02,
    "head__drop_path": 0.2,
}
STAGES = (0, 3)

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def two_ranks(benchmark, tmp_path_factory):
    """ZeRO stage -> the run of two ranks; and the line that the worker printed."""
    folder = tmp_path_factory.mktemp("validation_ranks")
    runs = {stage: folder / f"stage_{stage}" for stage in STAGES}
    recipes = [
        (
            str(recipe_file(NAME)),
            tiny_overrides(NAME, benchmark, run, **CHANGES, deepspeed__zero_optimization__stage=stage),
        )
        for stage, run in runs.items()
    ]
    file = folder / "recipes.json"
    file.write_text(json.dumps(recipes))
    script = Path(__file__).with_name("validation_worker.py")
    output = run_on_ranks(script, file, world_size=2, timeout_sec=400)
    (line,) = [json.loads(line) for line in output.splitlines() if line.startswith('{"buffers"')]
    return {stage: RunDirectory(path=run) for stage, run in runs.items()}, line, output


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_validate_an_odd_number_of_videos_exactly_as_one_rank(stage, two_ranks, benchmark):
    run = two_ranks[0][stage]
    videos = read_annotations(benchmark.annotations).subset("validation")
    assert len(videos) % 2 == 1
    rows = read_validations(run.validation)
    assert [row.epoch for row in rows] == [1, 2]
    assert len({row.score for row in rows}) > 1
    of_two = run.predictions.read_bytes()
    assert sorted(json.loads(of_two)["results"]) == sorted(video.name for video in videos)
    for row in reversed(
        rows
    ):  # a checkpoint is taken away once it is evaluated, so that the one before is the newest
        alone = evaluate_run(run.path, weights="newest").results
        assert {f"mAP_{tiou}": value for tiou, value in alone.mAP.items()} == row.details
        assert alone.average_mAP == row.score
        if row is rows[-1]:
            assert run.predictions.read_bytes() == of_two
        (run.checkpoints / f"step_{row.step:06d}").rename(run.path / f"evaluated_{row.step}")


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_leave_one_log_and_one_best(stage, two_ranks):
    runs, _, output = two_ranks
    assert output.count("validation, epoch 2:") == len(STAGES)
    rows = read_validations(runs[stage].validation)
    best = max(rows, key=lambda row: row.score)
    assert read_best(runs[stage].checkpoints).name == f"step_{best.step:06d}"
    assert [step["step"] for step in read_steps(runs[stage].path)] == list(range(6))


def test_prediction_takes_the_buffers_of_rank_0_and_gives_each_rank_its_own_back(two_ranks):
    assert two_ranks[1]["buffers"] == [
        {"inside": [[1.0] * 3, False], "after": [[1.0] * 3, True]},
        {"inside": [[1.0] * 3, False], "after": [[2.0] * 3, True]},
    ]
