"""The ActionFormer head as a TalHead: masks, any L, losses that always have a gradient, detections."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from lofi.engine.optimizers import is_decayed
from lofi.heads import HEADS, rank_counts
from lofi.heads.actionformer.config import ActionFormerConfig
from lofi.heads.actionformer.losses import running_share, smoothed
from lofi.heads.actionformer.model import ActionFormerHead, build_actionformer
from lofi.heads.actionformer.pyramid import sine_positions
from lofi.segments import UNLABELLED, Targets

SMALL = ActionFormerConfig(embed_width=8, num_heads=2, levels=3, window=5, stem_layers=1, loss_normalizer=7.0)
D, K = 6, 4


def small_head(**changes: object) -> ActionFormerHead:
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]
    head = build_actionformer(config, feature_width=D, num_classes=K).double()
    for module in head.modules():  # so that the residual branches matter in a test
        if hasattr(module, "scale") and isinstance(module.scale, nn.Parameter):
            nn.init.ones_(module.scale)
    return head


def targets_of(*rows: tuple[float, float, int]) -> Targets:
    return Targets(
        segments=torch.tensor([row[:2] for row in rows]).reshape(-1, 2),
        labels=torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )


def batch(length: int, *, valid: int) -> tuple[torch.Tensor, torch.Tensor, list[Targets]]:
    features = torch.randn(2, D, length, dtype=torch.float64)
    mask = torch.arange(length) < torch.tensor([[length], [valid]])
    return features, mask, [targets_of((0.2, 2.9, 1)), targets_of((1.0, 4.5, 3), (0.0, 1.9, 0))]


def gradients(head: ActionFormerHead) -> dict[str, torch.Tensor]:
    found = {}
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad
    return found


def test_table_builds_the_head() -> None:
    config_class, build = HEADS["actionformer"]
    assert isinstance(build(config_class(embed_width=8), feature_width=D, num_classes=K), ActionFormerHead)


def test_one_head_serves_every_number_of_snippets_in_turn() -> None:
    head = small_head(levels=6)
    for length in (16, 100, 1, 2, 33, 64):
        features, mask, targets = batch(length, valid=max(1, length // 2))
        out = head(features, mask=mask)
        assert out.logits.shape[1:] == (out.mask.shape[1], K)
        assert out.mask[0].sum() == sum(-(-length // 2**level) for level in range(6))
        assert torch.isfinite(head.losses(features, mask=mask, targets=targets).total)


def test_masked_snippets_change_neither_loss_nor_gradient() -> None:
    head = small_head(drop_path=0.0).eval()
    features, mask, targets = batch(11, valid=6)
    results = []
    for filling in (0.0, float("nan"), 1e6):
        head.zero_grad()
        filled = features.masked_fill(~mask[:, None], filling).requires_grad_()
        losses = head.losses(filled, mask=mask, targets=targets)
        losses.total.backward()
        assert filled.grad is not None
        assert (filled.grad[1, :, 6:] == 0).all()
        assert (filled.grad[1, :, :6] != 0).any()
        results.append((losses.total.detach(), {n: g.clone() for n, g in gradients(head).items()}))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


def test_padding_changes_no_loss() -> None:
    head = small_head().eval()
    features, mask, targets = batch(11, valid=6)
    both = head.losses(features, mask=mask, targets=targets).total
    first = head.losses(features[:1], mask=mask[:1], targets=targets[:1]).total
    second = head.losses(features[1:, :, :6], mask=mask[1:, :6], targets=targets[1:]).total
    torch.testing.assert_close(both, first + second)


def test_levels_laid_end_to_end_equal_the_heads_run_level_by_level() -> None:
    head = small_head(head_kernel=5).eval()
    features, mask, _ = batch(13, valid=8)
    x, location_mask = head.pyramid(features, mask)
    together = head.classification(x, location_mask)
    begin = 0
    for level in range(3):
        count = -(-13 // 2**level)
        alone = head.classification(x[:, :, begin : begin + count], location_mask[:, begin : begin + count])
        torch.testing.assert_close(together[:, :, begin : begin + count], alone)
        begin += count + head.pyramid.gap
    assert begin - head.pyramid.gap == x.shape[2]


@pytest.mark.parametrize("case", ["no segment", "wholly masked"])
def test_every_parameter_has_a_finite_gradient_without_positives(case: str) -> None:
    head = small_head()
    features, mask, targets = batch(9, valid=5)
    if case == "wholly masked":
        mask = torch.zeros_like(mask)
        features = torch.full_like(features, float("nan"))
    else:
        targets = [targets_of(), targets_of()]
    losses = head.losses(features, mask=mask, targets=targets)
    losses.total.backward()
    found = gradients(head)
    assert all(torch.isfinite(gradient).all() for gradient in found.values())
    assert losses.parts["regression"] == 0
    if case == "wholly masked":
        assert losses.total.item() == 0.0
        assert all((gradient == 0).all() for gradient in found.values())


def test_loss_normalizer_follows_the_positives_in_training_only() -> None:
    head = small_head()
    features, mask, targets = batch(12, valid=12)
    head.eval().losses(features, mask=mask, targets=targets)
    assert head.loss_normalizer.item() == 7.0
    head.train().losses(features, mask=torch.zeros_like(mask), targets=targets)
    assert head.loss_normalizer.item() == pytest.approx(0.9 * 7.0 + 0.1 * 1.0)
    assert "loss_normalizer" in head.state_dict()


def test_loss_normalizer_is_each_rank_s_share_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_counts.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(rank_counts.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(rank_counts.distributed, "all_reduce", lambda count: count.add_(6))
    mean = torch.tensor(7.0)
    share = running_share(mean, torch.tensor(4), momentum=0.9, moves=True)
    assert share.item() == pytest.approx((0.9 * 7.0 + 0.1 * 10.0) / 2)
    assert mean.item() == pytest.approx(0.9 * 7.0 + 0.1 * 10.0)


def test_two_forwards_before_one_backward_are_allowed() -> None:
    head = small_head()
    features, mask, targets = batch(8, valid=7)
    first = head.losses(features, mask=mask, targets=targets).total
    second = head.losses(features, mask=mask, targets=targets).total
    (first + second).backward()


def test_bf16_autocast_gives_float32_losses_near_the_exact_ones() -> None:
    head = small_head().float().eval()
    features, mask, targets = batch(12, valid=9)
    exact = head.losses(features.float(), mask=mask, targets=targets).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = head.losses(features.float(), mask=mask, targets=targets).total
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.1)
    rough.backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(head).values())


def test_first_scores_are_the_class_prior() -> None:
    head = small_head(class_prior=0.02)
    for layer in (head.classification.output.conv,):
        nn.init.zeros_(layer.weight)
    features, mask, _ = batch(7, valid=7)
    torch.testing.assert_close(
        head(features, mask=mask).logits.sigmoid(),
        torch.full((2, 7 + 4 + 2 + 2, K), 0.02, dtype=torch.float64),
    )


def test_detections_lie_in_the_valid_stretch_best_first_and_within_the_limits() -> None:
    head = small_head(pre_nms_top_k=9, min_score=0.005, min_length=0.5, class_prior=0.3).eval()
    assert head.regression.output.conv.bias is not None
    nn.init.constant_(head.regression.output.conv.bias, 1.5)
    features, mask, _ = batch(14, valid=5)
    for detections, end in zip(head.detect(features, mask=mask), (14, 5), strict=True):
        assert 0 < len(detections.scores) <= 3 * 9
        assert (detections.scores.diff() <= 0).all()
        assert (detections.scores > 0.005).all()
        assert (detections.segments[:, 0] >= 0).all()
        assert (detections.segments[:, 1] <= end).all()
        assert (detections.segments.diff(dim=1) > 0.5).all()
        assert set(detections.labels.tolist()) <= set(range(K))


def test_so_many_detections_are_kept_of_each_level() -> None:
    head = small_head(min_score=0.0, min_length=0.0, class_prior=0.3).eval()
    assert head.regression.output.conv.bias is not None
    nn.init.constant_(head.regression.output.conv.bias, 9.0)  # no detection without length
    features, mask, _ = batch(16, valid=16)
    every = head.detect(features, mask=mask)[0]
    head.config = dataclasses.replace(head.config, pre_nms_top_k=5)
    some = head.detect(features, mask=mask)[0]
    out = head(features, mask=mask)
    of_level = [out.logits.sigmoid()[0, (out.locations.level == level) & out.mask[0]] for level in range(3)]
    best = torch.cat([scores.flatten().sort(descending=True).values[:5] for scores in of_level])
    torch.testing.assert_close(some.scores, best.sort(descending=True).values)
    assert len(every.scores) == (16 + 8 + 4) * K
    rows, kept = (
        {(*segment, label, score) for segment, label, score in zip(*values, strict=True)}
        for values in (
            (found.segments.tolist(), found.labels.tolist(), found.scores.tolist()) for found in (every, some)
        )
    )
    assert kept < rows


def test_wholly_masked_window_has_no_detection() -> None:
    head = small_head().eval()
    features, mask, _ = batch(6, valid=0)
    assert len(head.detect(features, mask=mask)[1].scores) == 0


def test_head_learns_the_segments_of_one_batch() -> None:
    torch.manual_seed(1)
    head = build_actionformer(
        dataclasses.replace(SMALL, embed_width=16, loss_normalizer=4.0, drop_path=0.0),
        feature_width=D,
        num_classes=K,
    )
    features, mask, _ = batch(16, valid=16)
    targets = [targets_of((2.0, 5.0, 1), (8.5, 14.0, 2)), targets_of((4.0, 11.5, 3))]
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        head.losses(features.float(), mask=mask, targets=targets).total.backward()
        optimizer.step()
    best = head.eval().detect(features.float(), mask=mask)[1]
    assert best.labels[0].item() == 3
    assert best.scores[0].item() > 0.5
    assert best.segments[0].tolist() == pytest.approx([4.0, 11.5], abs=0.7)


def test_wrong_feature_width_is_named() -> None:
    with pytest.raises(ValueError, match="features have width 5, but the head was built for 6"):
        small_head()(torch.zeros(1, 5, 4), mask=torch.ones(1, 4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 4}, r"head\.window is 4; it must be odd and at least 1, or null"),
        ({"head_kernel": 2}, r"head\.head_kernel is 2; it must be odd"),
        ({"levels": 0}, r"head\.levels is 0; it must be at least 1"),
        ({"embed_width": 10, "num_heads": 4}, r"head\.embed_width is 10; it must be divisible"),
        ({"drop_path": 1.0}, r"head\.drop_path is 1\.0; it must be at least 0 and below 1"),
        ({"class_prior": 0.0}, r"head\.class_prior is 0\.0"),
        ({"centre_radius": 0.0}, r"head\.centre_radius is 0\.0; it must be greater than 0"),
        ({"regression_weight": -1.0}, r"head\.regression_weight is -1\.0"),
        ({"relative_positions": True, "window": None}, r"relative_positions has no effect with window: null"),
        ({"relative_positions": True, "window": 1}, r"relative_positions has no effect with window: 1"),
        ({"full_top_level": True, "levels": 1}, r"head\.full_top_level: true is refused with levels: 1"),
        ({"levels": 3, "ranges": [[0, 4], [2, 8]]}, r"head\.ranges has 2 ranges; .* each level: 3"),
        ({"levels": 2, "ranges": [[0, 4], [8, 2]]}, r"head\.ranges\[1\] is \[8, 2\]; it must be \[lowest"),
        ({"levels": 2, "ranges": [[0, 4], [2, 8, 9]]}, r"head\.ranges\[1\] is \[2, 8, 9\]"),
        ({"levels": 2, "ranges": [[1, 4], [2, 8]]}, r"head\.ranges begins at 1; it must begin at 0"),
        ({"levels": 2, "ranges": [[0, 8], [0, 4]]}, r"neither end may fall from level to level"),
        ({"levels": 2, "ranges": [[0, 4], [5, 8]]}, r"distances from 4 to 5 are learned by nobody"),
        (
            {"levels": 1, "ranges": [[0, 9]], "first_range": 2.0},
            r"head\.first_range is 2\.0 but has no effect",
        ),
        ({"streams": [[4, 300], [2, 300]]}, r"head\.streams have 600 channels .* head\.embed_width \(512\)"),
        ({"streams": [[4, 512], [2]]}, r"head\.streams\[1\] is \[2\]; it must be \[width, channels\]"),
    ],
)
def test_config_names_the_wrong_key(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ActionFormerConfig(**changes)  # type: ignore[arg-type]


def test_label_smoothing_spreads_a_share_over_classes_and_background() -> None:
    classes = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert smoothed(classes, share=0.2).flatten().tolist() == pytest.approx(
        [0.05, 0.85, 0.05, 0.05, 0.05, 0.05]
    )
    features, mask, targets = batch(8, valid=8)
    plain, soft = (
        small_head(label_smoothing=share).eval().losses(features, mask=mask, targets=targets).parts
        for share in (0.0, 0.2)
    )
    assert soft["classification"] != plain["classification"]
    assert soft["regression"] == plain["regression"]


def test_position_table_is_the_one_of_the_transformer() -> None:
    table = sine_positions(torch.zeros(1, 4, 6))
    for place in range(6):
        for pair, angle in enumerate((place, place / 10000 ** (2 / 4))):
            assert table[2 * pair, place].item() == pytest.approx(math.sin(angle) / 2, abs=1e-6)
            assert table[2 * pair + 1, place].item() == pytest.approx(math.cos(angle) / 2, abs=1e-6)
    features, mask, _ = batch(11, valid=6)
    with_table = small_head(position_embedding=True).eval()
    plain, padded = (with_table(features[1:, :, :length], mask=mask[1:, :length]) for length in (6, 11))
    torch.testing.assert_close(padded.logits[:, :6], plain.logits[:, :6])
    assert not torch.allclose(
        small_head().eval()(features, mask=mask).logits, with_table(features, mask=mask).logits
    )


def test_top_level_sees_all_positions_where_it_should() -> None:
    features, mask, _ = batch(64, valid=64)
    moved = features.clone()
    moved[:, :, -1] += 1.0
    first_of_top = 64 + 32 + 2  # after two levels and their gaps
    for sees_all in (False, True):
        head = small_head(window=3, embed_layers=1, full_top_level=sees_all).eval()
        before, after = (head(x, mask=mask).logits[0, first_of_top] for x in (features, moved))
        assert torch.equal(before, after) != sees_all


def test_relative_positions_are_of_the_local_levels_alone_and_learned() -> None:
    head = small_head(relative_positions=True, full_top_level=True)
    features, mask, targets = batch(12, valid=9)
    head.losses(features, mask=mask, targets=targets).total.backward()
    biases = {name: each for name, each in head.named_parameters() if name.endswith("relative_positions")}
    assert len(biases) == 2  # of the stem and the second level; the third attends to all positions
    for name, bias in biases.items():
        assert bias.shape == (2, 5)
        assert bias.grad is not None, name
        assert (bias.grad != 0).any(), name
        assert not is_decayed(name, bias)
    with torch.no_grad():
        for bias in biases.values():
            bias.zero_()
    without = small_head(full_top_level=True)
    without.load_state_dict({k: v for k, v in head.state_dict().items() if k not in biases})
    both = [each.eval()(features, mask=mask).logits for each in (head, without)]
    torch.testing.assert_close(*both)
    assert not any("relative" in name for name in without.state_dict())


def test_streams_are_projected_each_by_itself() -> None:
    head = small_head(streams=[[4, 3], [2, 5]]).eval()
    assert head.pyramid.streams is not None
    features, mask, targets = batch(12, valid=9)
    seen = head.pyramid.streams(features, mask)
    first, second = (each.conv for each in head.pyramid.streams.projections)
    for row, length in ((0, 12), (1, 9)):
        for place in range(length):
            wanted = torch.cat(
                [
                    conv.weight[:, :, 0] @ part + conv.bias
                    for conv, part in ((first, features[row, :4, place]), (second, features[row, 4:, place]))
                ]
            )
            torch.testing.assert_close(seen[row, :, place], wanted)
    poisoned = features.masked_fill(~mask[:, None], float("nan"))
    losses = [head.losses(x, mask=mask, targets=targets).total for x in (features, poisoned)]
    torch.testing.assert_close(*losses)
    with pytest.raises(ValueError, match=r"head\.streams have widths \[4, 1\], 5 together, but .* width 6"):
        small_head(streams=[[4, 3], [1, 5]])


def test_class_agnostic_head_learns_one_class_and_says_none() -> None:
    head = small_head(class_agnostic=True, class_prior=0.3)
    features, mask, targets = batch(12, valid=9)
    assert head(features, mask=mask).logits.shape[2] == 1
    assert head.losses(features, mask=mask, targets=targets).parts["regression"] > 0
    assert set(head.eval().detect(features, mask=mask)[0].labels.tolist()) == {UNLABELLED}
