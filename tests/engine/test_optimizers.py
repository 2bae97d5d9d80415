import pytest
import torch
from torch import nn

from lofi.engine.optimizers import AdamwConfig, SgdConfig, build_optimizer, parameter_groups


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3))
        self.head = nn.Linear(3, 5)


def test_encoder_and_head_have_their_own_rates_and_vectors_no_decay():
    groups = parameter_groups(Module(), AdamwConfig(lr=1e-3, encoder_lr=1e-5, weight_decay=0.05))
    found = {group["name"]: (group["lr"], group["weight_decay"], len(group["params"])) for group in groups}
    assert found == {
        "encoder": (1e-5, 0.05, 1),
        "encoder_no_decay": (1e-5, 0.0, 3),
        "head": (1e-3, 0.05, 1),
        "head_no_decay": (1e-3, 0.0, 1),
    }


def test_lofi_optimizer_is_one_rate_without_momentum():
    optimizer = build_optimizer(Module(), SgdConfig())
    assert isinstance(optimizer, torch.optim.SGD)
    assert {(g["lr"], g["momentum"], g["weight_decay"]) for g in optimizer.param_groups} == {(0.1, 0.0, 1e-4)}


def test_frozen_parameters_are_in_no_group():
    module = Module()
    module.encoder.requires_grad_(False)
    assert {group["name"] for group in parameter_groups(module, SgdConfig())} == {"head"}


def test_nothing_left_to_train_is_an_error():
    module = Module().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter is left to train"):
        build_optimizer(module, SgdConfig())


def test_a_negative_rate_is_refused():
    with pytest.raises(ValueError, match="optimizer.encoder_lr is -0.1; it must not be negative"):
        AdamwConfig(encoder_lr=-0.1)
