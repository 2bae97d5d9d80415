import copy
import sys

import pytest
import torch
from torch import nn

from lofi.encoders.build import build_encoder
from lofi.encoders.choices import R2plus1dConfig
from lofi.encoders.videomae import Videomae
from lofi.encoders.videomae_sizes import Size
from lofi.engine.optimizers import (
    Adamw8bitConfig,
    AdamwConfig,
    SgdConfig,
    build_optimizer,
    parameter_groups,
    use_fused_kernels,
)
from lofi.heads import HEADS
from lofi.heads.proposals.alignment import AlignedLinear
from lofi.memory.counting import storage_bytes


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


def decayed_names(module):
    groups = parameter_groups(module, AdamwConfig(weight_decay=0.05))
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}


@pytest.mark.parametrize("head", HEADS)
def test_of_a_head_all_linear_and_convolution_weights_decay_and_nothing_else(head):
    config_class, build = HEADS[head]
    with torch.device("meta"):
        module = build(config_class(), feature_width=8, num_classes=3)
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, AlignedLinear)
    weights = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, layers)}
    assert decayed_names(module) == weights
    assert all(parameter.ndim > 1 for name, parameter in module.named_parameters() if name in weights)


def test_scales_tokens_and_position_tables_do_not_decay():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4, 1))
            self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
            self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
            self.attention = nn.MultiheadAttention(4, 2)

    assert decayed_names(Table()) == {"attention.in_proj_weight", "attention.out_proj.weight"}


def test_an_adapter_is_a_group_of_its_own_at_the_heads_rate():
    module = Module()
    module.adapter = nn.Linear(2, 2)
    groups = parameter_groups(module, AdamwConfig(lr=1e-3, encoder_lr=1e-5))
    rates = {group["name"]: group["lr"] for group in groups}
    assert (rates["adapter"], rates["adapter_no_decay"], rates["encoder"]) == (1e-3, 1e-3, 1e-5)


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


class Detector(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(3, 2)


def rates_by_name(module, config):
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        names[id(parameter)]: group["lr"]
        for group in parameter_groups(module, config)
        for parameter in group["params"]
    }


def videomae_layer(name):
    """As VideoMAE numbers them: the embedding 0, block i at i + 1, the norm behind them last."""
    kind, _, rest = name.partition(".")
    return {"patch_embed": 0, "fc_norm": 3}[kind] if kind != "blocks" else 1 + int(rest.partition(".")[0])


def r2plus1d_layer(name):
    """The stem 0, then two blocks in each of four layers."""
    stage, block, *_ = name.split(".")
    return 0 if stage == "stem" else 1 + 2 * (int(stage.removeprefix("layer")) - 1) + int(block)


@pytest.mark.parametrize(
    ("build", "layer_of", "last"),
    [
        (lambda: Videomae(Size(width=12, depth=2, heads=3), has_adapters=True), videomae_layer, 3),
        (lambda: build_encoder("r2plus1d", R2plus1dConfig())[0], r2plus1d_layer, 8),
        (lambda: build_encoder("r2plus1d", R2plus1dConfig(frozen_stages=2))[0], r2plus1d_layer, 8),
    ],
    ids=["videomae", "r2plus1d", "r2plus1d with frozen stages"],
)
def test_an_encoders_rate_falls_from_block_to_block_towards_the_input(build, layer_of, last):
    with torch.device("meta"):
        module = Detector(build())
    config = AdamwConfig(lr=1e-3, encoder_lr=1e-4, encoder_layer_decay=0.5)
    expected = {
        f"encoder.{name}": 1e-4 * 0.5 ** (last - layer_of(name))
        for name, parameter in module.encoder.named_parameters()
        if parameter.requires_grad
    }
    assert rates_by_name(module, config) == {**expected, "head.weight": 1e-3, "head.bias": 1e-3}


def test_groups_of_a_layer_decay_have_names_of_their_own_and_keep_the_weight_decay():
    with torch.device("meta"):
        module = Detector(Videomae(Size(width=12, depth=2, heads=3)))
    groups = parameter_groups(module, AdamwConfig(weight_decay=0.05, encoder_layer_decay=0.75))
    assert {group["name"]: group["weight_decay"] for group in groups} == {
        **{f"encoder_{layer}": 0.05 for layer in range(3)},
        **{f"encoder_{layer}_no_decay": 0.0 for layer in range(4)},
        "head": 0.05,
        "head_no_decay": 0.0,
    }


@pytest.mark.parametrize("factor", [0.0, 1.1])
def test_a_layer_decay_out_of_range_is_refused(factor):
    with pytest.raises(ValueError, match=rf"encoder_layer_decay is {factor}; it must be greater than 0 and"):
        SgdConfig(encoder_layer_decay=factor)


class WideModule(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.encoder = nn.Linear(70, 90)
        self.head = nn.Linear(90, 3)


def trained(module, optimizer, *, steps):
    x = torch.randn(11, 70, generator=torch.manual_seed(4))
    for _ in range(steps):
        optimizer.zero_grad()
        module.head(module.encoder(x).tanh()).square().mean().backward()
        optimizer.step()
    return module


def state_bytes(optimizer):
    states = [value for state in optimizer.state.values() for value in state.values()]
    return storage_bytes(value for value in states if isinstance(value, torch.Tensor) and value.ndim > 0)


def test_adamw_of_8_bits_trains_as_adamw_does_with_a_quarter_of_its_states():
    pytest.importorskip("bitsandbytes")
    plain, small = WideModule(), WideModule()
    start = copy.deepcopy(plain).encoder.weight
    adamw = build_optimizer(plain, AdamwConfig(lr=1e-3))
    adamw_8bit = build_optimizer(small, Adamw8bitConfig(lr=1e-3))
    trained(plain, adamw, steps=10)
    trained(small, adamw_8bit, steps=10)
    moved = float((plain.encoder.weight - start).norm())
    assert float((small.encoder.weight - plain.encoder.weight).norm()) < 0.1 * moved
    others = 90 + 3 * 90 + 3  # of fewer than 4096 elements
    scales, tables = 2 * 4 * 25, 2 * 4 * 256
    assert state_bytes(adamw) == 8 * (70 * 90 + others)
    assert state_bytes(adamw_8bit) == 2 * 70 * 90 + 8 * others + scales + tables


def test_adamw_of_8_bits_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"adamw_8bit needs bitsandbytes .*lofi-sola\[lowmem\]"):
        build_optimizer(Module(), Adamw8bitConfig())


@pytest.mark.parametrize("config", [SgdConfig(momentum=0.9), AdamwConfig(weight_decay=0.0)])
def test_a_step_that_overflows_in_fp16_is_left_out_with_fused_kernels_too(config):
    module = nn.Linear(2, 1, bias=False)
    optimizer = build_optimizer(module, config)
    use_fused_kernels(optimizer)
    before = module.weight.detach().clone()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (torch.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale(factor * module(torch.ones(1, 2)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        if factor == torch.inf:
            assert torch.equal(module.weight, before)
    torch.testing.assert_close(module.weight, before - config.lr * torch.ones(1, 2))
