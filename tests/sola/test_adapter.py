"""The SoLa module: the identity at first, local, blind to padding, and loaded only where it fits."""

import json
import zlib

import pytest
import torch
from safetensors.torch import save_file

from sola.adapter import SolaAdapter, SolaAdapterConfig, build_adapter


def adapter(width=6, **changes):
    torch.manual_seed(1)
    return build_adapter(SolaAdapterConfig(hidden_width=7, **changes), feature_width=width)


def test_an_untrained_adapter_is_exactly_the_identity_and_its_gate_can_learn():
    module = adapter()
    features = torch.randn(2, 9, 6)
    out = module(features, mask=torch.ones(2, 9, dtype=torch.bool))
    assert torch.equal(out, features)
    out.square().sum().backward()
    assert float(module.alpha.grad) != 0


def test_the_published_module_has_its_number_of_weights():
    module = build_adapter(SolaAdapterConfig(), feature_width=2048)
    assert sum(p.numel() for p in module.parameters()) == 6_556_673


@pytest.mark.parametrize(("dilation", "reach"), [(1, 2), (3, 6)])
def test_a_snippet_sees_as_far_as_the_kernel_reaches(dilation, reach):
    module = adapter(dilations=[dilation, 1, 1])
    module.alpha.data.fill_(1.0)
    features = torch.randn(1, 21, 6)
    moved = features.clone()
    moved[0, 10] += 1
    mask = torch.ones(1, 21, dtype=torch.bool)
    changed = (module(moved, mask=mask) != module(features, mask=mask)).any(dim=-1)[0].nonzero().flatten()
    assert (int(changed.min()), int(changed.max())) == (10 - reach, 10 + reach)


def test_what_lies_outside_the_video_changes_nothing_inside():
    module = adapter(kernels=[5, 3, 1])
    module.alpha.data.fill_(0.7)
    features = torch.randn(1, 8, 6)
    mask = torch.tensor([[True] * 5 + [False] * 3])
    noisy = torch.where(mask[..., None], features, torch.randn(1, 8, 6))
    alone = module(features[:, :5], mask=mask[:, :5])
    torch.testing.assert_close(module(noisy, mask=mask)[:, :5], alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernels": [4, 1, 1]}, r"adapter\.kernels is \[4, 1, 1\]; they must be odd"),
        ({"dilations": [1, 1]}, r"adapter\.dilations is \[1, 1\]; it must be three"),
        ({"hidden_width": 0}, r"adapter\.hidden_width is 0"),
        ({"frozen": True}, r"adapter\.frozen: true without adapter\.weights is the identity"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SolaAdapterConfig(**options)


def write_run(folder, state, **adapter):
    """A run directory whose checkpoint holds these weights of an adapter of these options, as `newest_weights` wants it."""
    checkpoint = folder / "checkpoints" / "step_000001"
    checkpoint.mkdir(parents=True)
    weights = checkpoint / "weights.safetensors"
    save_file(state, weights, {"recipe": json.dumps({"adapter": adapter})} if adapter else None)
    content = weights.read_bytes()
    manifest = {"files": {weights.name: [len(content), zlib.crc32(content)]}, "world_size": 1}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_the_weights_of_a_run_are_loaded_and_can_be_frozen(tmp_path):
    trained = SolaAdapter(6, hidden_width=7, kernels=[5, 1, 1], dilations=[1, 1, 1])
    trained.alpha.data.fill_(0.3)
    state = {f"adapter.{name}": value for name, value in trained.state_dict().items()}
    write_run(tmp_path, {**state, "predictor.0.bias": torch.zeros(3)})
    module = adapter(weights=str(tmp_path), frozen=True)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in module.state_dict().items())
    assert not any(p.requires_grad for p in module.parameters())


def test_an_adapter_for_another_width_is_refused(tmp_path):
    trained = SolaAdapter(5, hidden_width=7, kernels=[5, 1, 1], dilations=[1, 1, 1])
    write_run(tmp_path, {f"adapter.{name}": value for name, value in trained.state_dict().items()})
    with pytest.raises(ValueError, match=r"features of width 5; the features here have width 6"):
        adapter(weights=str(tmp_path))


def test_an_adapter_of_another_form_is_refused_also_where_no_shape_tells(tmp_path):
    trained = SolaAdapter(6, hidden_width=7, kernels=[5, 1, 1], dilations=[1, 1, 1])
    state = {f"adapter.{name}": value for name, value in trained.state_dict().items()}
    write_run(tmp_path, state, dilations=[1, 1, 1])
    with pytest.raises(ValueError, match=r"other shapes .*weight is \(7, 6, 5\), wanted \(7, 6, 3\)"):
        adapter(weights=str(tmp_path), kernels=[3, 1, 1])
    with pytest.raises(ValueError, match=r"dilations is \[2, 1, 1\], but .* trained with \[1, 1, 1\]"):
        adapter(weights=str(tmp_path), dilations=[2, 1, 1])


def test_a_run_without_an_adapter_is_refused(tmp_path):
    write_run(tmp_path, {"encoder.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"holds no adapter; name a run of objective similarity_matching"):
        adapter(weights=str(tmp_path))
    with pytest.raises(ValueError, match=r"is no run directory"):
        adapter(weights=str(tmp_path / "nowhere"))
