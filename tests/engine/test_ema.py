"""The running mean of the weights: its arithmetic, what a run hands on, resuming, and the planner's bytes."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import recipe_file, tiny_overrides
from torch import nn

from lofi.config.load import load_recipe
from lofi.engine.checkpoint import list_checkpoints, newest_weights
from lofi.engine.ema import WeightAverage
from lofi.stages.plan import PlanOptions, predict_peak
from lofi.stages.train import run_training

NAME = "lofi_s_tiny_actionformer"
DECAY = 0.7


def tiny_module():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    module[0].bias.requires_grad_(False)
    return module


def test_the_mean_is_the_recursion_and_the_weights_come_back():
    module = tiny_module()
    average = WeightAverage(module, decay=DECAY)
    expected = module[0].weight.detach().clone()
    for step in range(3):
        with torch.no_grad():
            module[0].weight.add_(step + 1.0)
        average.update()
        expected = DECAY * expected + (1 - DECAY) * module[0].weight.detach()
    own = module[0].weight.detach().clone()
    with average.in_place():
        torch.testing.assert_close(module[0].weight.detach(), expected)
        assert module.state_dict()["0.weight"].data_ptr() == module[0].weight.data_ptr()
    assert torch.equal(module[0].weight, own)
    assert len(average.tensors) == 3, "the frozen bias has none"


@pytest.fixture(scope="module")
def recipe(benchmark, tmp_path_factory):
    def make(name, **changes):
        output = tmp_path_factory.mktemp("ema") / name
        changes = {"train__checkpoint_every_steps": 1, "train__keep_checkpoints": 20, **changes}
        return load_recipe(recipe_file(NAME), tiny_overrides(NAME, benchmark, output, **changes))

    return make


@pytest.fixture(scope="module")
def averaged(recipe):
    return run_training(recipe("averaged", train__ema_decay=DECAY, evaluation__every_epochs=1))


@pytest.fixture(scope="module")
def plain(recipe):
    return run_training(recipe("plain"))


def weights_of(run):
    return [load_file(checkpoint / "weights.safetensors") for checkpoint in list_checkpoints(run.checkpoints)]


def test_checkpoints_hand_on_the_mean_of_the_weights_that_train(averaged, plain):
    """The plain run shows the weights of every step, and the same steps: a mean changes nothing about training."""
    means, weights = weights_of(averaged), weights_of(plain)
    assert len(means) == len(weights) == 6
    name = "head.classification.output.conv.weight"
    for before, mean, weight in zip(means, means[1:], weights[1:], strict=False):
        torch.testing.assert_close(mean[name], DECAY * before[name] + (1 - DECAY) * weight[name])
    assert not torch.allclose(means[-1][name], weights[-1][name])
    assert torch.equal(means[-1]["head.loss_normalizer"], weights[-1]["head.loss_normalizer"])


def test_validation_judges_the_mean(averaged, monkeypatch):
    """The last validation's result is that of the weights handed on, which evaluation reads from the file."""
    from lofi.engine.validation import read_validations
    from lofi.stages.evaluate import evaluate_run

    last = read_validations(averaged.validation)[-1].score
    assert evaluate_run(averaged.path).results.average_mAP == pytest.approx(last, abs=1e-12)


def test_a_resumed_run_goes_on_bit_for_bit(averaged, recipe):
    again = recipe("again", train__ema_decay=DECAY, evaluation__every_epochs=1)
    shutil.copytree(averaged.path, again.output)
    copy = type(averaged)(path=type(averaged.path)(again.output))
    copy.recipe.write_text(copy.recipe.read_text().replace(str(averaged.path), again.output))
    for path in (copy.summary, copy.predictions, copy.results):
        path.unlink()
    for checkpoint in list_checkpoints(copy.checkpoints)[2:]:
        shutil.rmtree(checkpoint)
    run_training(again, resume=True)
    found, expected = (load_file(newest_weights(run.checkpoints)) for run in (copy, averaged))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_planner_counts_the_means_to_the_byte(averaged, recipe):
    import json

    (measured,) = json.loads(averaged.memory.read_text())
    options = PlanOptions(device="cpu")
    bytes_with, bytes_without = (
        predict_peak(recipe(f"planned_{decay}", train__ema_decay=decay), options=options).worst.bytes
        for decay in (DECAY, None)
    )
    trained = json.loads(averaged.summary.read_text())["trained_parameters"]
    assert bytes_with["parameters"] - bytes_without["parameters"] == 4 * trained
    assert bytes_with["parameters"] == measured["bytes"]["parameters"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__ema_decay": 1.0}, r"train\.ema_decay is 1\.0; it must lie between 0 and 1"),
        (
            {"train__ema_decay": 0.9, "deepspeed__zero_optimization__stage": 3},
            r"train\.ema_decay is refused with deepspeed\.zero_optimization\.stage: 3",
        ),
    ],
)
def test_what_cannot_be_averaged_is_refused(recipe, changes, message):
    with pytest.raises(ValueError, match=message):
        recipe("refused", **changes)
