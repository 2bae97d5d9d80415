"""Maps and boundary scores of a window -> its scored proposals.

Source: BMN (ICCV 2019, section 3.5) and G-TAD's code: a proposal is a candidate if its start and its end are peaks of their
sequences, or exceed half of their greatest score; the first valid snippet may always start, the last one always end one.
The published heads find proposals without a class; each takes its class, and a factor, from a video-level classifier
(`heads.postprocess`). With classes of its own, a head says the class of each proposal.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lofi.heads.proposals.losses import ProposalOutputs
from lofi.heads.proposals.targets import valid_cells
from lofi.segments import UNLABELLED, Detections


def boundary_candidates(scores: Tensor, mask: Tensor) -> Tensor:
    """scores (B, L) in [0, 1], mask (B, L) -> (B, L) bool: peaks and whatever exceeds half of the window's greatest."""
    scores = torch.where(mask, scores, -1.0)
    padded = torch.nn.functional.pad(scores, (1, 1), value=-1.0)
    is_peak = (scores > padded[:, :-2]) & (scores > padded[:, 2:])
    return mask & (is_peak | (scores > 0.5 * scores.amax(dim=1, keepdim=True)))


def edge_snippets(mask: Tensor) -> tuple[Tensor, Tensor]:
    """mask (B, L) -> (B, L) bool each: the first snippet of a valid stretch, and the last one."""
    padded = torch.nn.functional.pad(mask, (1, 1), value=False)
    return mask & ~padded[:, :-2], mask & ~padded[:, 2:]


def proposal_detections(
    out: ProposalOutputs,
    *,
    scores: Tensor,
    mask: Tensor,
    top_k: int,
    min_score: float,
    labels_per_proposal: int,
) -> list[Detections]:
    """B windows' candidates, best first, at most `top_k` proposals each.

    Args:
        out: of B windows of L snippets.
        scores: (B, D, L) of every proposal, not below 0.
        mask: (B, L) bool.
        top_k: proposals per window.
        min_score: a detection needs a score above this.
        labels_per_proposal: classes of each proposal, where the head has its own; the score is shared out by probability.
    """
    max_duration, length = scores.shape[1:]
    first, last = edge_snippets(mask)
    may_start = boundary_candidates(torch.sigmoid(out.start), mask) | first
    may_end = boundary_candidates(torch.sigmoid(out.end), mask) | last
    start = torch.arange(length, device=mask.device)
    end = start + torch.arange(max_duration, device=mask.device)[:, None]  # (D, L), the last snippet
    is_candidate = valid_cells(mask, max_duration=max_duration) & may_start[:, None, :]
    is_candidate = is_candidate & may_end[:, end.clamp(max=length - 1)]
    flat = torch.where(is_candidate, scores, -1.0).flatten(1)
    best, cells = flat.topk(min(top_k, flat.shape[1]), dim=1)
    segments = torch.stack([cells % length, cells % length + cells // length + 1], dim=2).to(scores.dtype)
    found = []
    for row in range(len(scores)):
        labels = None if out.labels is None else out.labels[row].flatten(1)[:, cells[row]]
        found.append(
            _labelled(
                segments[row], best[row], labels, min_score=min_score, labels_per_proposal=labels_per_proposal
            )
        )
    return found


def _labelled(
    segments: Tensor, scores: Tensor, logits: Tensor | None, *, min_score: float, labels_per_proposal: int
) -> Detections:
    """segments (M, 2), scores (M,), logits (K, M) or None -> detections, best first."""
    if logits is None:
        labels = torch.full(scores.shape, UNLABELLED, device=scores.device)
    else:
        share, label = torch.softmax(logits, dim=0).topk(min(labels_per_proposal, len(logits)), dim=0)
        scores, labels = (share * scores).flatten(), label.flatten()
        segments = segments.repeat(len(share), 1)
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] > min_score]
    return Detections(segments=segments[order], scores=scores[order], labels=labels[order])


def known_labels(labels: str) -> None:
    """Raise ValueError for another value of `head.labels`."""
    allowed: Sequence[str] = ("external", "own")
    if labels not in allowed:
        raise ValueError(f"head.labels is {labels!r}; allowed: {', '.join(allowed)}.")
