"""Freezing happens once and cannot be undone by `train()`."""

import copy
import pickle

import pytest
import timm
import torch
from torch import nn

from lofi.encoders.build import build_encoder
from lofi.encoders.choices import R2plus1dConfig, TinyConfig, TsmConfig
from lofi.encoders.freezing import freeze_norms, freeze_stages, norm_is_frozen


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def small_network():
    """With the two batch norms of our encoders, one of them nested."""
    return nn.Sequential(
        nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4)),
        nn.Flatten(1, 2),
        nn.Sequential(nn.Sequential(nn.BatchNorm2d(20), nn.ReLU()), nn.GroupNorm(2, 20)),
    )


def small_input():
    return torch.randn(2, 3, 5, 6, 7) + 1


def test_frozen_norms_survive_train_of_the_network_and_of_themselves():
    network = small_network()
    freeze_norms(network)
    network.train()
    for norm in norms(network):
        assert not norm.train().training
    before = copy.deepcopy(network.state_dict())
    network(small_input())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_frozen_norms_compute_what_the_norm_computed_in_evaluation():
    network = small_network()
    network(small_input())
    x = small_input()
    expected = network.eval()(x)
    freeze_norms(network)
    assert torch.equal(network.train()(x), expected)


def test_frozen_norms_keep_names_and_weights():
    network = small_network()
    network(small_input())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    freeze_norms(network)
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(("mode", "learns", "is_frozen"), [("frozen", False, True), ("affine", True, True)])
def test_modes_freeze_statistics_and_perhaps_weights(mode, learns, is_frozen):
    network = small_network()
    freeze_norms(network, mode=mode)
    assert all(
        norm.weight.requires_grad is learns and norm.bias.requires_grad is learns for norm in norms(network)
    )
    assert network[0][0].weight.requires_grad
    assert network[2][1].weight.requires_grad
    assert norm_is_frozen(network) is is_frozen


def test_mode_train_leaves_batch_norms_alone():
    network = small_network()
    freeze_norms(network, mode="train")
    assert all(type(norm) in (nn.BatchNorm2d, nn.BatchNorm3d) for norm in norms(network))
    assert not norm_is_frozen(network)
    assert not norm_is_frozen(network.eval())


def test_a_network_with_norms_per_sample_alone_counts_as_frozen():
    assert norm_is_frozen(nn.Sequential(nn.GroupNorm(2, 4), nn.LayerNorm(5)))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_frozen_norms_can_be_copied_and_pickled(again):
    network = small_network()
    freeze_norms(network)
    copied = again(network).train()
    assert norm_is_frozen(copied)
    assert not any(norm.training for norm in norms(copied))
    x = small_input()
    assert torch.equal(copied(x), network(x))
    assert {id(each) for each in copied.parameters()}.isdisjoint(id(each) for each in network.parameters())


@pytest.mark.parametrize("name", ["regnety_002", "efficientnet_b0", "resnet10t"])
def test_norms_of_timm_are_frozen_whatever_their_class(name):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0)
    x = torch.randn(2, 3, 32, 32)
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        expected = network.eval()(x)
        freeze_norms(network)
        assert torch.equal(network.train()(x), expected)
    assert norm_is_frozen(network)
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_norms_without_statistics_of_their_own_do_not_count_as_frozen():
    network = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.InstanceNorm2d(3))
    freeze_norms(network)
    assert not norm_is_frozen(network)
    assert norm_is_frozen(network[1])


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("tiny", TinyConfig(frozen_stages=2)),
        ("tsm", TsmConfig(frozen_stages=2, norm="train")),
        ("r2plus1d", R2plus1dConfig(frozen_stages=2, norm="train")),
    ],
)
def test_the_first_stages_are_frozen_with_their_norms(name, config):
    encoder, _ = build_encoder(name, config)
    encoder.train()
    for position, stage in enumerate(encoder.stages):
        learns = {p.requires_grad for p in stage.parameters()}
        assert learns == {position >= 2}
        assert all(norm.training is (position >= 2) for norm in norms(stage))


def test_the_default_freezes_every_batch_norm_of_an_encoder():
    encoder, _ = build_encoder("tsm", TsmConfig())
    assert norm_is_frozen(encoder)
    assert len(norms(encoder)) == 20
    assert not any(p.requires_grad for norm in norms(encoder) for p in norm.parameters())


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="encoder.frozen_stages is 3; this encoder has 2 stages.*0 to 2"):
        freeze_stages([nn.Linear(2, 3), nn.Linear(3, 2)], count=3)
    with pytest.raises(ValueError, match="encoder.norm is 'eval'; it must be one of frozen, affine, train"):
        freeze_norms(small_network(), mode="eval")
