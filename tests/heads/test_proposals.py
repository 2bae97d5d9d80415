"""Maps of proposals: alignment, targets, losses and candidates against loops, and alignment against RoIAlign."""

import pytest
import torch
from reference.slow_proposals import (
    slow_balanced_cross_entropy,
    slow_bins,
    slow_candidates,
    slow_regression,
    slow_targets,
)
from torchvision.ops import roi_align

from lofi.heads.proposals.alignment import AlignedLinear, sampling_weights
from lofi.heads.proposals.detections import boundary_candidates, proposal_detections
from lofi.heads.proposals.losses import ProposalOutputs, proposal_losses
from lofi.heads.proposals.targets import longest_duration, proposal_targets, valid_cells
from lofi.segments import UNLABELLED, Targets

F64 = torch.float64
INSTANCES = [(0.4, 3.1, 1), (2.0, 6.7, 0), (5.2, 5.5, 2)]


def targets_of(*rows):
    return Targets(
        segments=torch.tensor([row[:2] for row in rows], dtype=F64).reshape(-1, 2),
        labels=torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )


def aligned(x, *, max_duration, **how):
    """x (C, L) -> (D, L, C, N), by the product with the sampling weights."""
    weights = sampling_weights(x.shape[1], max_duration=max_duration, dtype=F64, **how)
    return torch.einsum("cl,nlds->dscn", x, weights)


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize(("length", "max_duration"), [(9, 9), (7, 3), (1, 1)])
def test_alignment_reads_what_the_loop_reads(samples, length, max_duration):
    torch.manual_seed(0)
    x = torch.randn(2, length, dtype=F64)
    out = aligned(x, max_duration=max_duration, bins=4, samples_per_bin=samples, context=0.5)
    for d in range(max_duration):
        for s in range(length):
            for c in range(2):
                expected = slow_bins(
                    x[c].tolist(), start=s, length=d + 1, bins=4, samples=samples, context=0.5
                )
                assert out[d, s, c].tolist() == pytest.approx(expected, abs=1e-12)


def test_alignment_equals_roi_align_where_no_sample_lies_beyond_the_ends():
    torch.manual_seed(0)
    x = torch.randn(3, 11, dtype=F64)
    out = aligned(x, max_duration=11, bins=5, samples_per_bin=2, context=0.0)
    for d in range(2, 9):
        for s in range(1, 10 - d):
            box = torch.tensor([[0, s, 0, s + d + 1, 1]], dtype=F64)
            expected = roi_align(x[None, :, None], box, (1, 5), sampling_ratio=2, aligned=True)[0, :, 0]
            torch.testing.assert_close(out[d, s], expected)


def test_a_layer_before_the_alignment_is_the_layer_after_it():
    torch.manual_seed(0)
    layer = AlignedLinear(3, 2, bins=4, samples_per_bin=None, context=0.5).double()
    x = torch.randn(2, 3, 6, dtype=F64)
    out = layer(x, 5)
    assert out.shape == (2, 2, 5, 6)
    for row in range(2):
        features = aligned(x[row], max_duration=5, bins=4, samples_per_bin=None, context=0.5)
        expected = torch.einsum("ocn,dscn->ods", layer.weight, features) + layer.bias[:, None, None]
        torch.testing.assert_close(out[row], expected)


@pytest.mark.parametrize(
    "instances", [INSTANCES, [], [(0.0, 8.0, 0)], INSTANCES[2:]], ids=["some", "none", "whole", "short"]
)
def test_targets_equal_the_loop(instances):
    wanted = proposal_targets(
        [targets_of(*instances), targets_of((1.0, 2.0, 3))],
        num_snippets=8,
        max_duration=5,
        dtype=F64,
        device=torch.device("cpu"),
    )
    tiou, start, end = slow_targets(instances, num_snippets=8, max_duration=5)
    torch.testing.assert_close(wanted.tiou[0], torch.tensor(tiou, dtype=F64))
    torch.testing.assert_close(wanted.start[0], torch.tensor(start, dtype=F64))
    torch.testing.assert_close(wanted.end[0], torch.tensor(end, dtype=F64))
    if instances == INSTANCES:
        assert wanted.label[0, 2, 0] == 1
        assert wanted.label[0, 4, 2] == 0


def test_an_instance_that_fills_the_window_is_a_proposal_of_its_own():
    wanted = proposal_targets(
        [targets_of((0.0, 6.0, 0))], num_snippets=6, max_duration=6, dtype=F64, device=torch.device("cpu")
    )
    assert wanted.tiou[0, 5, 0] == 1.0
    assert (wanted.start[0, 0], wanted.end[0, 5]) == (1.0, 1.0)


def test_cells_are_valid_where_all_their_snippets_are():
    mask = torch.tensor([[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]]).bool()
    cells = valid_cells(mask, max_duration=3)
    expected = [[1, 1, 1, 0, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert cells[0].int().tolist() == expected
    assert not cells[1].any()


def test_longest_duration_is_a_share_of_the_window():
    assert [longest_duration(length, share=0.25) for length in (256, 64, 3, 1)] == [64, 16, 1, 1]
    assert longest_duration(7, share=1.0) == 7


def outputs(length, duration, *, batch=1, labels=None):
    torch.manual_seed(3)
    maps = torch.randn(2, batch, duration, length, dtype=F64)
    ends = torch.randn(2, batch, length, dtype=F64)
    return ProposalOutputs(
        start=ends[0], end=ends[1], regression=maps[0], classification=maps[1], labels=labels
    )


def test_losses_equal_the_loops(monkeypatch):
    length, duration = 8, 8
    out = outputs(length, duration)
    draw = torch.rand(1, duration, length, dtype=F64)
    monkeypatch.setattr(torch, "rand_like", lambda x: draw)
    mask = torch.ones(1, length, dtype=torch.bool)
    instances = [(0.0, 3.0, 1), (4.0, 7.1, 0)]
    losses = proposal_losses(out, mask=mask, targets=[targets_of(*instances)], regression_weight=10.0)

    tiou, start, end = slow_targets(instances, num_snippets=length, max_duration=duration)
    cells = [(d, s) for d in range(duration) for s in range(length) if s + d + 1 <= length]
    boundaries = sum(
        slow_balanced_cross_entropy(torch.sigmoid(logits[0]).tolist(), [x > 0.5 for x in wanted])
        for logits, wanted in ((out.start, start), (out.end, end))
    )
    p_cls, p_reg = torch.sigmoid(out.classification[0]), torch.sigmoid(out.regression[0])
    classification = slow_balanced_cross_entropy(
        [p_cls[cell].item() for cell in cells], [tiou[d][s] > 0.9 for d, s in cells]
    )
    regression = slow_regression([(p_reg[d, s].item(), tiou[d][s], draw[0, d, s].item()) for d, s in cells])
    assert losses.parts["boundaries"].item() == pytest.approx(boundaries)
    assert losses.parts["classification"].item() == pytest.approx(classification)
    assert losses.parts["regression"].item() == pytest.approx(regression)
    assert losses.total.item() == pytest.approx(boundaries + classification + 10.0 * regression)


def test_losses_of_a_batch_are_the_mean_of_its_ranks(monkeypatch):
    """Two ranks with a window each, whose counts are shared, against one rank with both; draws that take everything."""
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)
    from lofi.heads import rank_counts

    targets = [targets_of((0.0, 3.0, 1)), targets_of((1.0, 6.0, 0), (2.0, 3.0, 0))]
    out = outputs(6, 6, batch=2)
    mask = torch.ones(2, 6, dtype=torch.bool)

    def of_rank(row):
        parts = {
            name: getattr(out, name)[row : row + 1]
            for name in ("start", "end", "regression", "classification")
        }
        return proposal_losses(
            ProposalOutputs(**parts), mask=mask[:1], targets=targets[row : row + 1], regression_weight=10.0
        ).total

    whole = proposal_losses(out, mask=mask, targets=targets, regression_weight=10.0).total
    seen = [[], []]
    monkeypatch.setattr(rank_counts.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(rank_counts.distributed, "get_world_size", lambda: 2)
    for row in (0, 1):  # what each rank would send
        monkeypatch.setattr(
            rank_counts.distributed, "all_reduce", lambda counts, row=row: seen[row].append(counts.clone())
        )
        of_rank(row)
    totals = []
    for row in (0, 1):
        others = iter(seen[1 - row])
        monkeypatch.setattr(
            rank_counts.distributed, "all_reduce", lambda counts, others=others: counts.add_(next(others))
        )
        totals.append(of_rank(row))
    torch.testing.assert_close(sum(totals) / 2, whole)


@pytest.mark.parametrize("case", ["no instance", "all masked"])
def test_losses_without_positives_are_finite_and_reach_everything(case):
    out = outputs(5, 3, labels=torch.randn(1, 4, 3, 5, dtype=F64))
    tensors = [out.start, out.end, out.regression, out.classification, out.labels]
    for tensor in tensors:
        tensor.requires_grad_()
    mask = torch.full((1, 5), case == "no instance")
    targets = [targets_of()] if case == "no instance" else [targets_of((0.0, 4.0, 2))]
    losses = proposal_losses(out, mask=mask, targets=targets, regression_weight=10.0)
    losses.total.backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in tensors)
    assert losses.parts["regression"] == 0.0
    if case == "all masked":
        assert losses.total == 0.0


def test_candidates_equal_the_loop():
    torch.manual_seed(0)
    scores = torch.rand(6, 9, dtype=F64) ** 3
    found = boundary_candidates(scores, torch.ones(6, 9, dtype=torch.bool))
    for row in range(6):
        assert found[row].nonzero()[:, 0].tolist() == slow_candidates(scores[row].tolist())


def test_proposals_lie_in_the_valid_stretch_best_first_without_a_label():
    out = outputs(9, 9, batch=2)
    scores = torch.rand(2, 9, 9, dtype=F64)
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    found = proposal_detections(
        out, scores=scores, mask=mask, top_k=10, min_score=0.05, labels_per_proposal=2
    )
    for detections, end in zip(found, (9, 4), strict=True):
        assert 0 < len(detections.scores) <= 10
        assert (detections.scores.diff() <= 0).all()
        assert detections.segments.min() >= 0
        assert detections.segments.max() <= end
        assert set(detections.labels.tolist()) == {UNLABELLED}
        for (start, stop), score in zip(detections.segments.int().tolist(), detections.scores, strict=True):
            row = 0 if end == 9 else 1
            assert scores[row, stop - start - 1, start] == score


def test_own_labels_share_a_proposal_s_score_by_probability():
    labels = torch.zeros(1, 3, 1, 1, dtype=F64)
    labels[0, :, 0, 0] = torch.tensor([0.5, 0.3, 0.2], dtype=F64).log()
    out = outputs(1, 1, labels=labels)
    (found,) = proposal_detections(
        out,
        scores=torch.full((1, 1, 1), 0.8, dtype=F64),
        mask=torch.ones(1, 1, dtype=torch.bool),
        top_k=5,
        min_score=0.0,
        labels_per_proposal=2,
    )
    assert found.labels.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.4, 0.24])
    assert found.segments.tolist() == [[0, 1], [0, 1]]
