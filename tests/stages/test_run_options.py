"""Options of a run that must not change what is learned, and those that must do what they say."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import read_steps, recipe_file, tiny_overrides

from lofi.config.load import load_recipe
from lofi.engine.checkpoint import list_checkpoints
from lofi.stages.train import run_training

NAME = "chunked_tiny_actionformer"
PLAIN = {"evaluation": None, "head__drop_path": 0.0}


@pytest.fixture
def steps_of(benchmark, tmp_path):
    """A function: the steps of a run with these changes."""

    def run(name=NAME, **changes):
        output = tmp_path / "run"
        recipe = load_recipe(
            recipe_file(name), tiny_overrides(name, benchmark, output, **{**PLAIN, **changes})
        )
        return read_steps(run_training(recipe, restart=True).path)

    return run


def losses(steps):
    return [step["loss"] for step in steps]


@pytest.fixture(scope="module")
def reference(trained):
    return losses(read_steps(trained(NAME, **PLAIN)))


@pytest.mark.parametrize(
    "block",
    [
        {"deepspeed__zero_optimization__stage": 1},
        {"deepspeed__zero_optimization__stage": 2},
        {"deepspeed__zero_optimization__stage": 3},
        {
            "deepspeed__zero_optimization__stage": 2,
            "deepspeed__zero_optimization__offload_optimizer__device": "cpu",
        },
    ],
    ids=["stage_1", "stage_2", "stage_3", "stage_2_offload"],
)
def test_every_zero_stage_trains_alike(block, steps_of, reference, tmp_path):
    steps = steps_of(**block)
    assert losses(steps) == pytest.approx(reference, rel=1e-4)
    assert all(step["gradient_norm"] > 0 for step in steps)
    (row,) = json.loads((tmp_path / "run" / "memory.json").read_text())
    assert sum(row["bytes"].values()) == row["peak_bytes"]


def test_a_zero_3_run_is_evaluated_from_its_plain_weights(steps_of, tmp_path):
    steps_of(evaluation={}, deepspeed__zero_optimization__stage=3)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["counts"]["predictions"] > 0


def test_workers_decode_the_same_batches(steps_of, reference):
    assert losses(steps_of(data__workers=2, train__epochs=1)) == pytest.approx(reference[:3], rel=1e-6)


def test_the_frame_cache_changes_nothing(steps_of, reference):
    assert losses(steps_of(data__frame_cache=None)) == reference


def test_runs_of_one_seed_are_equal_and_of_two_are_not(steps_of, reference):
    assert losses(steps_of()) == reference
    assert losses(steps_of(seed=1)) != reference


@pytest.mark.parametrize("chunk_size", [1, 16, 100])
def test_the_size_of_a_chunk_changes_nothing(chunk_size, steps_of, reference):
    assert losses(steps_of(gradient__chunk_size=chunk_size)) == pytest.approx(reference, abs=1e-5)


def test_blocks_checkpointed_inside_chunks_change_nothing(steps_of, reference):
    assert losses(steps_of(gradient__checkpoint_blocks=True)) == pytest.approx(reference, abs=1e-5)


def test_sampling_every_chunk_is_exact(steps_of, reference):
    steps = steps_of("sampled_tiny_actionformer", gradient__share=1.0)
    assert losses(steps) == pytest.approx(reference, abs=1e-5)


def test_a_frozen_encoder_beside_a_learning_head_stays_as_it_is(steps_of):
    changes = {"gradient__name": "detached", "optimizer__encoder_lr": None}
    steps = steps_of(**changes)
    assert "lr_encoder" not in steps[0]
    assert losses(steps)[0] > 0


def test_gradients_of_several_batches_make_one_step_of_the_optimizer(steps_of, reference):
    steps = steps_of(deepspeed__gradient_accumulation_steps=3, schedule="constant")
    assert losses(steps)[0] == pytest.approx(reference[0], rel=1e-6)
    assert losses(steps)[3] != pytest.approx(reference[3], rel=1e-6)
    rates = [step["lr_head"] for step in steps_of(deepspeed__gradient_accumulation_steps=3)]
    assert rates[0] == rates[1]
    assert rates[3] == rates[4] != rates[0]


def test_the_optimizer_of_the_paper_halves_its_rate(steps_of):
    changes = {
        "optimizer__name": "sgd",
        "optimizer__lr": 0.1,
        "optimizer__encoder_lr": None,
        "schedule__name": "step",
        "schedule__every_epochs": 1,
        "schedule__warmup_epochs": 0,
        "train__epochs": 3,
    }
    steps = steps_of(**changes)
    expected = [0.1, 0.05, 0.025]
    assert [step["lr_head"] for step in steps] == pytest.approx([rate for rate in expected for _ in range(3)])
    assert [step["lr_encoder"] for step in steps] == [step["lr_head"] for step in steps]


def test_bf16_trains_a_head_nearly_as_fp32_does(steps_of, extracted):
    name = "frozen_tiny_actionformer"
    exact = losses(steps_of(name, data__features=extracted))
    rough = losses(steps_of(name, data__features=extracted, train__precision="bf16"))
    assert rough == pytest.approx(exact, rel=0.05)
    assert rough != exact


def test_clipping_bounds_the_step_and_logs_the_norm_before_it(steps_of, reference):
    steps = steps_of(train__gradient_clipping=1e-6)
    assert losses(steps)[0] == reference[0]
    assert steps[0]["gradient_norm"] > 1e-6


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train__checkpoint_every_epochs": 2, "train__keep_checkpoints": 9}, [6, 9]),
        ({"train__checkpoint_every_epochs": 1, "train__keep_checkpoints": 2}, [6, 9]),
        ({"train__checkpoint_every_steps": 2, "train__keep_checkpoints": 9}, [2, 3, 4, 6, 8, 9]),
    ],
)
def test_checkpoints_are_saved_when_the_recipe_says_and_the_newest_stay(
    changes, expected, steps_of, tmp_path
):
    steps_of("lofi_t_tiny_actionformer", train__epochs=3, **changes)
    found = [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert found == [f"step_{step:06d}" for step in expected]
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_tensorboard_holds_the_numbers_of_the_metrics_file(steps_of, tmp_path):
    steps = steps_of("lofi_t_tiny_actionformer")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert {"loss", "classification", "gradient_norm", "snippets_per_sec"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [0, 1, 2, 3, 4, 5]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(steps))
