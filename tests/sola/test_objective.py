"""The objective on batches, and where its samples come from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lofi.batches import WindowBatch
from lofi.data.feature_store import FeatureManifest, create_feature_directory, write_feature
from lofi.data.samples import SampleKey, collate
from lofi.fidelity import Fidelity
from lofi.segments import Targets, Window
from sola.adapter import SolaAdapterConfig, build_adapter
from sola.objective import SimilarityMatching, SimilarityMatchingConfig
from sola.sampling import RandomStretches

FIDELITY = Fidelity(num_snippets=9, frames=2, height=8, width=8)
CONFIG = SimilarityMatchingConfig(window=9, positions=4, step=2, margin=1, predictor_width=7)


def objective(config=CONFIG):
    torch.manual_seed(0)
    adapter = build_adapter(SolaAdapterConfig(hidden_width=7), feature_width=5)
    return SimilarityMatching(adapter=adapter, feature_width=5, config=config)


def batch(stride_sec=1.0):
    window = Window(video="v", start_sec=3.0, end_sec=3.0 + 9 * stride_sec, video_duration_sec=99.0)
    empty = Targets(segments=torch.zeros(0, 2), labels=torch.zeros(0, dtype=torch.int64))
    generator = torch.Generator().manual_seed(1)
    return WindowBatch(
        windows=(window, window),
        targets=(empty, empty),
        mask=torch.ones(2, 9, dtype=torch.bool),
        features=torch.randn(2, 9, 5, generator=generator),
    )


def test_the_gradient_reaches_adapter_and_predictor():
    module = objective()
    module.adapter.alpha.data.fill_(0.5)
    losses = module(batch())
    losses.total.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
    assert set(losses.parts) == {"alpha", "relative_change"}


def test_only_the_gathered_positions_count():
    module, first = objective(), batch()
    changed = first.features.clone()
    changed[:, [0, 2, 4, 6, 8]] += 1  # positions are 1, 3, 5, 7, and the adapter is the identity
    assert torch.equal(module(first).total, module(replace(first, features=changed)).total)


def test_a_target_in_seconds_follows_the_stride_and_matches_the_published_one_at_its_scale():
    plain = float(objective()(batch()).total.detach())
    in_seconds = objective(replace(CONFIG, target_scale_sec=2.0))
    assert float(in_seconds(batch(stride_sec=1.0)).total.detach()) == pytest.approx(plain)
    assert float(in_seconds(batch(stride_sec=0.25)).total.detach()) != pytest.approx(plain)


def test_the_symmetric_loss_also_moves_the_side_that_stays():
    def norm(symmetric):
        module = objective(replace(CONFIG, symmetric=symmetric))
        module.adapter.alpha.data.fill_(0.5)
        module.predictor.requires_grad_(False)
        module(batch()).total.backward()
        return module.adapter.convolutions[2].bias.grad

    assert not torch.allclose(norm(True), norm(False))


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("symmetric", [False, True])
def test_under_autocast_the_loss_stays_that_of_float32(device, symmetric):
    module = objective(replace(CONFIG, symmetric=symmetric)).to(device)
    expected = float(module(batch()).total.detach())  # the adapter is the identity, whatever its precision
    with torch.autocast(device, torch.bfloat16):
        loss = module(batch()).total
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 7}, r"objective\.window is 7, but 4 positions 2 apart after a margin of 1 need 8"),
        ({"positions": 1}, r"objective\.positions is 1"),
        ({"coefficient": 0.0}, r"objective\.coefficient is 0"),
        ({"stride_jitter": 1.0}, r"objective\.stride_jitter is 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **options)


@pytest.fixture
def directory(tmp_path):
    manifest = FeatureManifest(
        fidelity={"num_snippets": 20, "frames": 2, "height": 8, "width": 8},
        grid={"mode": "rescale"},
        feature_width=5,
    )
    made = create_feature_directory(tmp_path / "features", manifest)
    for name, rows in (("long", 20), ("short", 8), ("whole", 9)):
        write_feature(made, name, np.arange(rows, dtype=np.float32)[:, None].repeat(5, axis=1))
    return made


def whole_videos(*names):
    return [Window(video=name, start_sec=0.0, end_sec=40.0, video_duration_sec=40.0) for name in names]


def stretches(directory, *names, **options):
    return RandomStretches(whole_videos(*names), directory, num_snippets=9, **options)


def test_a_sample_is_consecutive_rows_from_a_place_that_changes_with_the_epoch(directory):
    data = stretches(directory, "long", "whole")
    places = set()
    for epoch in range(12):
        sample = data[SampleKey(index=0, fidelity=FIDELITY, epoch=epoch)]
        first = float(sample.features[0, 0])
        assert sample.features[:, 0].tolist() == [first + i for i in range(9)]
        assert (sample.window.start_sec, sample.window.end_sec) == (first * 2, first * 2 + 18)
        places.add(first)
    assert len(places) > 4
    again = data[SampleKey(index=0, fidelity=FIDELITY, epoch=3)]
    assert torch.equal(again.features, data[SampleKey(index=0, fidelity=FIDELITY, epoch=3)].features)
    assert data[SampleKey(index=1, fidelity=FIDELITY)].features[:, 0].tolist() == list(range(9))
    assert collate([again, again]).features.shape == (2, 9, 5)


def test_a_jittered_stride_interpolates_and_stays_inside_the_video(directory):
    data = stretches(directory, "long", "whole", stride_jitter=0.5)
    strides = set()
    for epoch in range(20):
        for index in range(2):
            rows = data[SampleKey(index=index, fidelity=FIDELITY, epoch=epoch)].features[:, 0]
            steps = rows.diff()
            assert float(steps.max() - steps.min()) < 1e-4
            assert rows.min() >= 0
            assert rows.max() <= (19, 8)[index]
            strides.add(round(float(steps.mean()), 3))
    assert min(strides) < 0.8
    assert max(strides) > 1.2


def test_the_greatest_stretch_ends_on_the_last_row_however_it_rounds(directory):
    write_feature(directory, "v", np.arange(26, dtype=np.float32)[:, None].repeat(5, axis=1))
    data = RandomStretches(whole_videos("v"), directory, num_snippets=23, stride_jitter=0.25)
    ends = []
    for epoch in range(300):
        rows = data[SampleKey(index=0, fidelity=FIDELITY, epoch=epoch)].features[:, 0]
        assert rows.min() >= 0
        ends.append(float(rows[-1]))
    assert max(ends) == pytest.approx(25)


def test_short_videos_are_left_out_and_said(directory, capsys):
    assert len(stretches(directory, "long", "short")) == 1
    assert "1 of 2 training videos are shorter than 9 rows and left out: short" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"none of the 1 training videos has 9 rows .* .the longest has 8"):
        stretches(directory, "short")
