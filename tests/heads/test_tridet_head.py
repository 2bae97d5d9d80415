"""The TriDet head: boundaries and losses against loops, blocks against torch's layers, masks, any L."""

import dataclasses

import pytest
import torch
from reference.slow_trident import slow_distance, slow_focal, slow_tiou_and_loss
from torch import nn

from lofi.heads.tridet.model import TridetConfig, build_tridet
from lofi.heads.tridet.sgp import MaskedGroupNorm, SgpBlock
from lofi.heads.tridet.trident import expected_distances
from lofi.segments import UNLABELLED, Targets

F64 = torch.float64
D, K = 5, 3
SMALL = TridetConfig(
    embed_width=8, levels=3, stem_layers=1, head_layers=2, perceptron_width=12, norm_groups=2, bins=4, window=3,
    window_scale=1.5, init_std=0.5, loss_normalizer=7.0, drop_path=0.0,
)  # fmt: skip


def small_head(**changes):
    torch.manual_seed(0)
    head = build_tridet(dataclasses.replace(SMALL, **changes), feature_width=D, num_classes=K).double()
    for module in head.modules():  # so that the residual branches matter in a test
        if hasattr(module, "scale") and isinstance(module.scale, nn.Parameter):
            nn.init.ones_(module.scale)
    return head


def targets_of(*rows):
    return Targets(
        segments=torch.tensor([row[:2] for row in rows]).reshape(-1, 2),
        labels=torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )


def batch(length, *, valid):
    torch.manual_seed(1)
    features = torch.randn(2, D, length, dtype=F64)
    mask = torch.arange(length) < torch.tensor([[length], [valid]])
    return features, mask, [targets_of((0.2, 2.9, 1)), targets_of((1.0, 4.5, 2), (1.0, 4.5, 0))]


def test_distances_equal_the_loop_level_by_level():
    torch.manual_seed(0)
    bins, levels = 3, (5, 3, 1)
    start, end = (torch.zeros(1, 2, sum(levels) + 2 * bins, dtype=F64) for _ in range(2))
    begins, begin = [], 0
    for count in levels:
        start[:, :, begin : begin + count] = torch.randn(1, 2, count)
        end[:, :, begin : begin + count] = torch.randn(1, 2, count)
        begins.append(begin)
        begin += count + bins
    offsets = torch.randn(1, 2 * (bins + 1), start.shape[2], dtype=F64)
    found = expected_distances(start, end, offsets, bins=bins)
    for begin, count in zip(begins, levels, strict=True):
        for k in range(2):
            for place in range(count):
                of_place = offsets[0, :, begin + place].tolist()
                for side, (scores, step) in enumerate(((start, -1), (end, 1))):
                    expected = slow_distance(
                        scores[0, k, begin : begin + count].tolist(),
                        of_place[side * (bins + 1) : (side + 1) * (bins + 1)],
                        location=place,
                        step=step,
                    )
                    assert found[0, begin + place, k, side].item() == pytest.approx(expected)


def test_losses_equal_the_loops():
    head = small_head(label_smoothing=0.1, tiou_power=0.5)
    features, mask, targets = batch(11, valid=6)
    head.eval()
    out = head(features, mask=mask)
    losses = head.losses(features, mask=mask, targets=targets)
    classification = regression = 0.0
    from lofi.heads.actionformer.targets import assign_targets

    wanted = assign_targets(targets, locations=out.locations, num_classes=K, centre_radius=1.5)
    probability = out.logits.sigmoid()
    for row in range(2):
        for m in range(out.mask.shape[1]):
            for k in range(K):
                if not out.mask[row, m]:
                    continue
                is_learned = wanted.classes[row, m, k].item() > 0
                focal = slow_focal(probability[row, m, k].item(), 0.9 * is_learned + 0.1 / (K + 1))
                if is_learned:
                    tiou, loss = slow_tiou_and_loss(
                        tuple(out.distances[row, m, k].tolist()), tuple(wanted.distances[row, m].tolist())
                    )
                    focal *= tiou**0.5
                    regression += loss
                classification += focal
    assert regression > 0
    assert losses.parts["classification"].item() == pytest.approx(classification / 7.0)
    assert losses.parts["regression"].item() == pytest.approx(regression / 7.0)


def test_group_norm_over_valid_positions_equals_torch_s_on_the_cut_sequence():
    torch.manual_seed(0)
    norm, torch_norm = MaskedGroupNorm(2, 6).double(), nn.GroupNorm(2, 6).double()
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    torch_norm.load_state_dict({"weight": norm.weight, "bias": norm.bias})
    x = torch.randn(2, 6, 9, dtype=F64)
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    out = norm(x, mask)
    torch.testing.assert_close(out[:1], torch_norm(x[:1]))
    torch.testing.assert_close(out[1:, :, :4], torch_norm(x[1:, :, :4]))


def test_block_equals_its_formula():
    torch.manual_seed(0)
    block = SgpBlock(
        4,
        window=3,
        window_scale=1.5,
        perceptron_width=6,
        norm_groups=2,
        stride=1,
        drop_path=0.0,
        init_std=1.0,
    ).double()
    assert block.wide.conv.kernel_size == (7,)  # (3 + 1) x 1.5 = 6, made odd
    for path in (block.branch_path, block.perceptron_path):
        nn.init.uniform_(path.scale)
    x, mask = torch.randn(1, 4, 8, dtype=F64), torch.ones(1, 8, dtype=torch.bool)
    norm = block.norm(x)
    gate = torch.relu(block.instant_gate.conv(norm.mean(dim=2, keepdim=True)))
    mixed = block.instant.conv(norm) * gate
    mixed = mixed + (block.narrow.conv(norm) + block.wide.conv(norm)) * block.gate.conv(norm) + norm
    expected = x + block.branch_path.scale * mixed
    inner = nn.functional.gelu(block.perceptron_in(block.perceptron_norm(expected, mask)))
    expected = expected + block.perceptron_path.scale * block.perceptron_out(inner)
    torch.testing.assert_close(block(x, mask)[0], expected)


def test_one_head_serves_every_number_of_snippets_in_turn():
    head = small_head(input_noise=0.1)
    for length in (16, 1, 2, 33):
        features, mask, targets = batch(length, valid=max(1, length // 2))
        losses = head.losses(features, mask=mask, targets=targets)
        losses.total.backward()
        assert torch.isfinite(losses.total)


def test_masked_snippets_change_neither_loss_nor_gradient():
    head = small_head()
    features, mask, targets = batch(11, valid=6)
    results = []
    for filling in (0.0, float("nan"), 1e6):
        head.zero_grad()
        head.loss_normalizer.fill_(7.0)
        filled = features.masked_fill(~mask[:, None], filling).requires_grad_()
        losses = head.losses(filled, mask=mask, targets=targets)
        losses.total.backward()
        assert (filled.grad[1, :, 6:] == 0).all()
        assert (filled.grad[1, :, :6] != 0).any()
        results.append((losses.total.detach(), [p.grad.clone() for p in head.parameters()]))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


def test_padding_changes_no_loss():
    head = small_head().eval()
    features, mask, targets = batch(11, valid=6)
    both = head.losses(features, mask=mask, targets=targets).total
    first = head.losses(features[:1], mask=mask[:1], targets=targets[:1]).total
    second = head.losses(features[1:, :, :6], mask=mask[1:, :6], targets=targets[1:]).total
    torch.testing.assert_close(both, first + second)


@pytest.mark.parametrize("case", ["no segment", "wholly masked"])
def test_every_parameter_has_a_finite_gradient_without_positives(case):
    head = small_head()
    features, mask, targets = batch(9, valid=5)
    if case == "wholly masked":
        mask, features = torch.zeros_like(mask), torch.full_like(features, float("nan"))
    else:
        targets = [targets_of(), targets_of()]
    losses = head.losses(features, mask=mask, targets=targets)
    losses.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())
    assert losses.parts["regression"] == 0
    assert case != "wholly masked" or losses.total == 0.0


def test_boundary_heads_do_not_train_the_pyramid():
    head = small_head()
    features, mask, _ = batch(9, valid=9)
    for layer in (head.classification, head.offsets):
        nn.init.zeros_(layer.output.conv.weight)
    head(features, mask=mask).distances.sum().backward()
    assert all((p.grad is None or (p.grad == 0).all()) for p in head.pyramid.parameters())
    assert any((p.grad != 0).any() for p in head.start.parameters())


def test_head_learns_the_segments_of_one_batch():
    torch.manual_seed(1)
    config = dataclasses.replace(SMALL, embed_width=16, loss_normalizer=4.0, bins=8)
    head = build_tridet(config, feature_width=D, num_classes=K)
    features, mask, _ = batch(16, valid=16)
    features = features.float()
    targets = [targets_of((2.0, 5.0, 1), (8.5, 14.0, 2)), targets_of((4.0, 11.5, 0))]
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        head.losses(features, mask=mask, targets=targets).total.backward()
        optimizer.step()
    best = head.eval().detect(features, mask=mask)[1]
    assert best.labels[0].item() == 0
    assert best.segments[0].tolist() == pytest.approx([4.0, 11.5], abs=1.0)


def test_depthwise_kernels_that_start_at_zero_stay_there():
    """As published for THUMOS14."""
    head = small_head(init_std=0.0)
    features, mask, targets = batch(9, valid=9)
    head.losses(features, mask=mask, targets=targets).total.backward()
    for module in head.modules():
        if isinstance(module, SgpBlock):
            for conv in (module.gate, module.instant, module.instant_gate, module.narrow, module.wide):
                assert all((p == 0).all() and (p.grad == 0).all() for p in conv.parameters())


def test_blocks_at_full_rate_are_narrow_and_drop_no_path():
    head = small_head(drop_path=0.25)
    stem, level = head.pyramid.stem[0], head.pyramid.downsampling[0]
    assert (stem.narrow.conv.kernel_size, level.narrow.conv.kernel_size) == ((1,), (3,))
    assert (stem.branch_path.drop, level.branch_path.drop) == (0.0, 0.25)


def test_heads_may_be_wider_than_the_pyramid():
    head = small_head(head_width=11)
    assert head.classification.layers[0].conv.conv.weight.shape[:2] == (11, 8)
    assert head.start.output.conv.weight.shape[:2] == (K, 11)
    features, mask, targets = batch(9, valid=9)
    head.losses(features, mask=mask, targets=targets).total.backward()


def test_class_agnostic_detections_have_no_label():
    head = small_head(class_agnostic=True, class_prior=0.3)
    features, mask, targets = batch(9, valid=9)
    assert head(features, mask=mask).logits.shape[2] == 1
    head.losses(features, mask=mask, targets=targets).total.backward()
    found = head.eval().detect(features, mask=mask)[0]
    assert set(found.labels.tolist()) == {UNLABELLED}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 2}, r"head\.window is 2; it must be odd"),
        ({"norm_groups": 3}, r"head\.embed_width is 8; it must be divisible by head\.norm_groups \(3\)"),
        ({"bins": 0}, r"head\.bins is 0; it must be at least 1"),
        ({"window_scale": 0.5}, r"head\.window_scale is 0\.5; it must be at least 1"),
        ({"tiou_power": -1.0}, r"head\.tiou_power is -1\.0; it must not be negative"),
        ({"label_smoothing": 1.0}, r"head\.label_smoothing is 1\.0; it must be at least 0 and below 1"),
    ],
)
def test_config_names_the_wrong_key(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)
