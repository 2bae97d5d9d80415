"""TSP: two heads, each with the mean cross entropy of the clips that it sees; the region head knows the whole video."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretext_clips import B, D, K, MeanEncoder, clip_batch

from lofi.data.global_features import GlobalFeatures
from lofi.gradients.chunked import encode_chunked
from lofi.gradients.joint import encode_joint
from lofi.objectives.tac import NO_LABEL
from lofi.objectives.tsp import TspConfig, build_tsp, region_labels

GVF = 5


class KnownGlobals:
    """Global features without a directory."""

    width = GVF

    def of(self, videos):
        generator = torch.Generator().manual_seed(len(videos))
        return torch.randn(len(videos), GVF, generator=generator)


@pytest.fixture
def tsp():
    def make(*, with_globals=True, encode=encode_joint, **options):
        torch.manual_seed(5)
        module = build_tsp(
            TspConfig(**options), encoder=MeanEncoder(), encode=encode, feature_width=D, num_classes=K
        )
        if with_globals:
            module.global_features = KnownGlobals()
            module.region_head = torch.nn.Linear(D + GVF, 2)
        return module.double()

    return make


def slow_losses(module, batch):
    """Clip by clip -> (mean action loss of foreground clips, mean region loss of all that could be decoded)."""
    actions, regions = [], []
    whole = module.global_features.of([window.video for window in batch.windows])
    for index, targets in enumerate(batch.targets):
        if not batch.mask[index].any():
            continue
        feature = module.encoder(batch.frames[index]).mean(dim=0)
        is_foreground = len(targets.labels) > 0
        logits = module.region_head(torch.cat([feature, whole[index].double()]))
        regions.append(-F.log_softmax(logits, dim=0)[int(is_foreground)])
        if is_foreground:
            actions.append(-F.log_softmax(module.action_head(feature), dim=0)[targets.labels[0]])
    return sum(actions) / max(1, len(actions)), sum(regions) / max(1, len(regions))


@pytest.mark.parametrize(
    ("labels", "masked"), [([3, None, 7], ()), ([3, None, None, 6], (2, 3)), ([None, None], ())]
)
def test_the_loss_is_that_of_a_loop_over_clips(labels, masked, tsp):
    module = tsp(action_weight=0.5, region_weight=2.0)
    batch = clip_batch(labels, masked=masked)
    if 3 in masked:  # a clip that could not be decoded carries no label either
        batch = clip_batch([3, None, None, None], masked=masked)
    with torch.no_grad():
        action, region = slow_losses(module, batch)
    found = module(batch)
    assert found.total.detach().item() == pytest.approx(float(0.5 * action + 2.0 * region), rel=1e-6)
    assert found.parts["region"].item() == pytest.approx(float(region), rel=1e-6)


def test_background_clips_give_the_action_head_no_gradient(tsp):
    module = tsp()
    module(clip_batch([None, None, None])).total.backward()
    assert (module.action_head.weight.grad == 0).all()
    assert (module.region_head.weight.grad != 0).any()


def test_the_region_head_alone_sees_the_global_features(tsp):
    module = tsp()
    module(clip_batch([2, None, 5])).total.backward()
    assert module.action_head.weight.shape == (K, D)
    assert (module.region_head.weight.grad[:, D:] != 0).any()
    without = tsp(with_globals=False)
    assert without.region_head.weight.shape == (2, D)
    without(clip_batch([2, None, 5])).total.backward()


def test_chunked_gradients_equal_joint_ones(tsp):
    batch = clip_batch([1, None, 4, None])

    def gradients(encode):
        module = tsp(encode=encode)
        module(batch).total.backward()
        return [parameter.grad for parameter in module.parameters()]

    def chunked(*args, **options):
        return encode_chunked(*args, chunk_size=3, **options)

    for joint, other in zip(gradients(encode_joint), gradients(chunked), strict=True):
        torch.testing.assert_close(other, joint, rtol=1e-9, atol=1e-12)


def test_regions_are_read_off_labels_and_mask():
    batch = clip_batch([3, None, None], masked=(2,))
    assert region_labels(batch).tolist() == [1, 0, NO_LABEL]


def test_what_is_measured_is_the_mean_of_both_accuracies(tsp):
    module = tsp(with_globals=False)
    with torch.no_grad():
        module.action_head.weight.zero_()
        module.action_head.bias.copy_(torch.arange(K, 0, -1))  # says class 0
        module.region_head.weight.zero_()
        module.region_head.bias.copy_(torch.tensor([0.0, 1.0]))  # says foreground
    rows = torch.cat([module.measure(clip_batch([0, 1, 0])), module.measure(clip_batch([0, None, None]))])
    found = module.summarise(rows)
    assert found.details["action_accuracy"] == pytest.approx(3 / 4)
    assert found.details["region_accuracy"] == pytest.approx(4 / 6)
    assert found.details["balanced_region_accuracy"] == 0.5
    assert found.score == pytest.approx((3 / 4 + 4 / 6) / 2)


def test_masked_clips_are_measured_as_nothing(tsp):
    rows = tsp(with_globals=False).measure(clip_batch([1, None, None], masked=(1,)))
    assert rows.shape == (B, 4)
    assert rows.isnan().all(dim=1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="none of the 1 validation clips could be used"):
        tsp().summarise(rows[1:2])


def test_global_features_are_the_maximum_over_time(tmp_path):
    from lofi.data.feature_store import FeatureManifest, create_feature_directory, write_feature

    manifest = FeatureManifest(
        fidelity={"num_snippets": 3, "frames": 1, "height": 1, "width": 1},
        grid={"mode": "rescale"},
        feature_width=2,
    )
    directory = create_feature_directory(tmp_path / "features", manifest)
    write_feature(directory, "a", np.array([[1.0, 5.0], [3.0, -1.0], [2.0, 0.0]]))
    known = GlobalFeatures(directory.path, assumed_width=99)
    assert known.width == 2
    assert known.of(["a", "made up", "a"]).tolist() == [[3.0, 5.0], [0.0, 0.0], [3.0, 5.0]]
    directory.file("a").unlink()
    assert known.of(["a"]).tolist() == [[3.0, 5.0]], "a file is read once"
    assert GlobalFeatures(tmp_path / "none", assumed_width=4).of(["a"]).shape == (1, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region_weight": 0}, "objective: tac"),
        ({"action_weight": -1}, "must not be negative"),
        ({"min_background_sec": 0}, "positive number of seconds"),
        ({"validate_every_epochs": None}, "weights: best needs validation"),
        ({"weights": "last"}, "must be newest or best"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TspConfig(**options)
