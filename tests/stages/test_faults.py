"""What must stop a run, or go on, when something goes wrong under ZeRO, with misspelt keys or with other classes."""

import pytest
import torch
from tiny_runs import recipe_file, tiny_overrides

from lofi.config.load import RecipeError, load_recipe
from lofi.engine.checkpoint import WEIGHTS_FILE, check_classes, list_checkpoints, newest_weights
from lofi.engine.loop import NonFiniteError
from lofi.stages import train as train_stage
from lofi.stages.evaluate import evaluate_run

NAME = "lofi_s_tiny_actionformer"


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_gradient_that_is_not_finite_stops_the_run_at_every_zero_stage(
    stage, benchmark, tmp_path, monkeypatch
):
    """DeepSpeed leaves such steps out in silence at stages 1 to 3: a run would end with weights that never moved."""
    build = train_stage.build_objective

    def build_broken(*arguments, **options):
        module = build(*arguments, **options)
        next(module.head.parameters()).register_hook(lambda gradient: gradient * torch.nan)
        return module

    monkeypatch.setattr(train_stage, "build_objective", build_broken)
    changes = {"deepspeed__zero_optimization__stage": stage, "evaluation": None}
    overrides = tiny_overrides(NAME, benchmark, tmp_path / "run", **changes)
    with pytest.raises(
        NonFiniteError, match=r"step 0 \(epoch 0\): the gradient.*Videos of the batch: video_"
    ):
        train_stage.run_training(load_recipe(recipe_file(NAME), overrides))


def test_a_misspelt_key_of_deepspeed_is_refused(benchmark, tmp_path):
    overrides = tiny_overrides(NAME, benchmark, tmp_path / "run")
    with pytest.raises(
        RecipeError, match="deepspeed.zero_optimisation is no key.*did you mean zero_optimization"
    ):
        load_recipe(recipe_file(NAME), [*overrides, "deepspeed.zero_optimisation.stage=2"])


def test_a_misspelt_key_of_the_zero_section_is_refused_before_the_run_directory_is_made(benchmark, tmp_path):
    overrides = [*tiny_overrides(NAME, benchmark, tmp_path / "run"), "deepspeed.zero_optimization.stag=2"]
    with pytest.raises(ValueError, match="deepspeed.zero_optimization: stag is 2.*Allowed keys: stage"):
        train_stage.run_training(load_recipe(recipe_file(NAME), overrides))
    assert not (tmp_path / "run").exists()


def test_weights_of_other_classes_are_refused_by_name(trained):
    weights = newest_weights(trained(NAME) / "checkpoints")
    with pytest.raises(ValueError, match="was trained for the classes .* now has orbit, shake"):
        check_classes(weights, ["orbit", "shake"])


def test_evaluation_passes_over_weights_that_are_not_whole(benchmark, tmp_path):
    changes = {"train__checkpoint_every_steps": 1, "train__keep_checkpoints": 3, "evaluation": None}
    overrides = tiny_overrides(NAME, benchmark, tmp_path / "run", **changes)
    run = train_stage.run_training(load_recipe(recipe_file(NAME), overrides))
    newest = list_checkpoints(run.checkpoints)[-1] / WEIGHTS_FILE
    newest.write_bytes(newest.read_bytes()[:-40])
    assert newest_weights(run.checkpoints).parent == list_checkpoints(run.checkpoints)[-2]
    assert evaluate_run(run.path).results.average_mAP >= 0.0
