"""G-TAD and BMN as TalHeads: masks, any L, gradients, an easy sequence; and the graph block against a loop."""

import pytest
import torch

from lofi.heads import HEADS
from lofi.heads.gtad.graph import GraphBlock, gather_snippets, nearest_snippets, neighbour_mean
from lofi.segments import UNLABELLED, Targets

F64 = torch.float64
D, K = 6, 4
SIZES = {"width": 8, "aligned_width": 12, "map_width": 6, "embed_groups": 2}
OWN = {
    "gtad": {"groups": 2, "path_width": 3, "bins": 4, "map_kernel": 3},
    "bmn": {"bins": 5, "samples_per_bin": 2},
}


def targets_of(*rows):
    return Targets(
        segments=torch.tensor([row[:2] for row in rows]).reshape(-1, 2),
        labels=torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )


def small_head(name, **changes):
    torch.manual_seed(0)
    config_class, build = HEADS[name]
    config = config_class(**{**SIZES, **OWN[name], "labels": "own", **changes})
    return build(config, feature_width=D, num_classes=K).double()


def batch(length, *, valid):
    torch.manual_seed(1)
    features = torch.randn(2, D, length, dtype=F64)
    mask = torch.arange(length) < torch.tensor([[length], [valid]])
    return features, mask, [targets_of((0.2, 2.9, 1)), targets_of((1.0, 4.5, 3), (0.0, 1.9, 0))]


@pytest.fixture(params=["gtad", "bmn"])
def name(request):
    return request.param


@pytest.fixture
def without_draw(monkeypatch):
    """The regression loss takes every proposal, so that losses of different shapes can be compared."""
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)


def test_one_head_serves_every_number_of_snippets_in_turn(name):
    head = small_head(name, max_duration=0.6)
    for length in (16, 1, 2, 7, 25):
        features, mask, targets = batch(length, valid=max(1, length // 2))
        losses = head.losses(features, mask=mask, targets=targets)
        losses.total.backward()
        assert torch.isfinite(losses.total)
        assert len(head.eval().detect(features, mask=mask)) == 2


def test_masked_snippets_change_neither_loss_nor_gradient(name, without_draw):
    head = small_head(name)
    features, mask, targets = batch(9, valid=5)
    results = []
    for filling in (0.0, float("nan"), 1e6):
        head.zero_grad()
        filled = features.masked_fill(~mask[:, None], filling).requires_grad_()
        losses = head.losses(filled, mask=mask, targets=targets)
        losses.total.backward()
        assert (filled.grad[1, :, 5:] == 0).all()
        assert (filled.grad[1, :, :5] != 0).any()
        results.append((losses.total.detach(), [p.grad.clone() for p in head.parameters()]))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


def test_padding_changes_no_score_and_no_proposal(name):
    head = small_head(name, labels="external").eval()
    features, mask, _ = batch(9, valid=5)
    (_, padded), (cut,) = (
        head.detect(features, mask=mask),
        head.detect(features[1:, :, :5], mask=mask[1:, :5]),
    )
    assert len(cut.scores) > 0
    torch.testing.assert_close(padded.scores, cut.scores)
    torch.testing.assert_close(padded.segments, cut.segments)
    assert set(cut.labels.tolist()) == {UNLABELLED}


@pytest.mark.parametrize("case", ["no segment", "wholly masked"])
def test_every_parameter_has_a_finite_gradient_without_positives(name, case):
    head = small_head(name)
    features, mask, targets = batch(7, valid=5)
    if case == "wholly masked":
        mask, features = torch.zeros_like(mask), torch.full_like(features, float("nan"))
    else:
        targets = [targets_of(), targets_of()]
    losses = head.losses(features, mask=mask, targets=targets)
    losses.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())
    if case == "wholly masked":
        assert losses.total == 0.0
        assert all(len(found.scores) == 0 for found in head.detect(features, mask=mask))


def test_bf16_autocast_gives_float32_losses_near_the_exact_ones(name, without_draw):
    head = small_head(name, neighbours=1).float() if name == "gtad" else small_head(name).float()
    features, mask, targets = batch(8, valid=6)
    exact = head.losses(features.float(), mask=mask, targets=targets).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = head.losses(features.float(), mask=mask, targets=targets).total
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.05)


def test_head_learns_the_segments_of_one_batch(name):
    torch.manual_seed(1)
    config_class, build = HEADS[name]
    sizes = {**SIZES, **OWN[name], "width": 16, "labels": "own"}
    head = build(config_class(**sizes), feature_width=D, num_classes=K)
    features, mask, _ = batch(16, valid=16)
    features = features.float()
    targets = [targets_of((2.0, 5.0, 1), (8.5, 14.0, 2)), targets_of((4.0, 12.0, 3))]
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        head.losses(features, mask=mask, targets=targets).total.backward()
        optimizer.step()
    best = head.eval().detect(features, mask=mask)[1]
    assert best.labels[0].item() == 3
    assert best.segments[0].tolist() == pytest.approx([4.0, 12.0], abs=1.0)


def test_neighbours_equal_a_loop_and_are_never_masked():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, dtype=F64)
    mask = torch.arange(7) < torch.tensor([[7], [2]])
    index, counts = nearest_snippets(x, mask, k=3)
    mean = neighbour_mean(x, mask, k=3)
    for row, valid in ((0, 7), (1, 2)):
        for i in range(valid):
            by_distance = sorted(range(valid), key=lambda j: (x[row, :, i] - x[row, :, j]).norm().item())[:3]
            assert sorted(index[row, i][counts[row, i]].tolist()) == sorted(by_distance)
            torch.testing.assert_close(mean[row, :, i], x[row][:, by_distance].mean(dim=1))
    assert (mean[1, :, 2:] == 0).all()
    expected = torch.stack([x[0][:, index[0, i]] for i in range(7)], dim=1)
    torch.testing.assert_close(gather_snippets(x, index)[0], expected)


def test_graph_block_equals_one_that_builds_every_edge():
    torch.manual_seed(0)
    block = GraphBlock(4, groups=2, path_width=3, k=2).double()
    x, mask = torch.randn(1, 4, 6, dtype=F64), torch.ones(1, 6, dtype=torch.bool)
    index, _ = nearest_snippets(x, mask, k=2)
    edge_in = torch.cat([block.neighbour_in.weight, block.self_in.weight], dim=1)  # on [neighbour; self]
    semantic = []
    for i in range(6):
        edges = torch.stack([torch.cat([x[0, :, j], x[0, :, i]]) for j in index[0, i]], dim=1)  # (2 C, k)
        hidden = torch.relu(edge_in[:, :, 0] @ edges + block.self_in.bias[:, None])
        hidden = torch.relu(block.semantic_mix(hidden[None, :, None]))
        semantic.append(block.semantic_out(hidden)[0, :, 0].amax(dim=1))
    temporal = torch.relu(block.temporal_mix(torch.relu(block.temporal_in(x))))
    expected = torch.relu(block.temporal_out(temporal) + torch.stack(semantic, dim=1) + x)
    torch.testing.assert_close(block(x, mask), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, r"head\.width is 0; it must be at least 1"),
        ({"embed_groups": 3}, r"head\.width is 8; it must be divisible by head\.embed_groups \(3\)"),
        ({"max_duration": 1.5}, r"head\.max_duration is 1\.5; it must be above 0 and at most 1"),
        ({"labels": "none"}, r"head\.labels is 'none'; allowed: external, own"),
        (
            {"labels": "external", "labels_per_proposal": 3},
            r"labels_per_proposal has no effect with labels: external",
        ),
        ({"context": -0.5}, r"head\.context is -0\.5"),
        ({"regression_weight": -1.0}, r"head\.regression_weight is -1\.0"),
    ],
)
def test_config_names_the_wrong_key(name, changes, message):
    with pytest.raises(ValueError, match=message):
        small_head(name, **changes)


def test_features_that_the_groups_cannot_share_are_refused(name):
    config_class, build = HEADS[name]
    with pytest.raises(ValueError, match=r"embed_groups is 4, which does not divide the features' width 6"):
        build(config_class(), feature_width=6, num_classes=K)
    with pytest.raises(ValueError, match="features have width 5, but the head was built for 6"):
        small_head(name)(torch.zeros(1, 5, 4), mask=torch.ones(1, 4, dtype=torch.bool))
