"""Target assignment against a slow loop, and by hand."""

import pytest
import torch
from reference.slow_target_assignment import slow_assignment

from lofi.heads.actionformer.config import ActionFormerConfig
from lofi.heads.actionformer.pyramid import Locations, pyramid_locations
from lofi.heads.actionformer.targets import LocationTargets, assign_targets
from lofi.segments import Targets

DOUBLING = ActionFormerConfig(levels=3).level_ranges
OVERLAPPING = [(0.0, 4.0), (2.0, 8.0), (4.0, 10.0)]


def locations_of(
    num_snippets: int, *, ranges: list[tuple[float, float]] = DOUBLING, gap: int = 1
) -> Locations:
    return pyramid_locations(
        num_snippets,
        ranges=ranges,
        gap=gap,
        device=torch.device("cpu"),
        dtype=torch.float64,
    )


def targets_of(*segments: tuple[float, float, int]) -> Targets:
    return Targets(
        segments=torch.tensor([each[:2] for each in segments]).reshape(-1, 2),
        labels=torch.tensor([each[2] for each in segments], dtype=torch.int64),
    )


def assign(*targets: Targets, locations: Locations, centre_radius: float = 1.5) -> LocationTargets:
    return assign_targets(targets, locations=locations, num_classes=4, centre_radius=centre_radius)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("ranges", "centre_radius"),
    [(DOUBLING, 1.5), (OVERLAPPING, 1.5), (DOUBLING, torch.inf)],
    ids=["doubling", "overlapping", "all inside"],
)
def test_assignment_equals_slow_loop(
    seed: int, ranges: list[tuple[float, float]], centre_radius: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    locations = locations_of(21, ranges=ranges)
    windows = []
    for count in (0, 1, 7):
        rows = []
        for _ in range(count):
            # Quarters of a snippet, so that equal lengths and touching boundaries do occur.
            start = int(torch.randint(0, 70, (), generator=generator)) / 4
            length = int(torch.randint(1, 50, (), generator=generator)) / 4
            rows.append((start, min(21.0, start + length), int(torch.randint(0, 4, (), generator=generator))))
        windows.append(rows)
    out = assign(*(targets_of(*rows) for rows in windows), locations=locations, centre_radius=centre_radius)
    for row, segments in enumerate(windows):
        for m in range(len(locations.centre)):
            slow = slow_assignment(
                segments,
                centre=float(locations.centre[m]),
                stride=float(locations.stride[m]),
                lower=float(locations.lower[m]),
                upper=float(locations.upper[m]),
                centre_radius=centre_radius,
            )
            assert set(out.classes[row, m].nonzero().flatten().tolist()) == slow.classes
            assert bool(out.is_positive[row, m]) == (slow.distances is not None)
            wanted = (1.0, 1.0) if slow.distances is None else slow.distances
            assert out.distances[row, m].tolist() == pytest.approx(wanted)


def test_levels_share_the_lengths_without_gap_or_overlap() -> None:
    locations = locations_of(16, gap=0)
    assert locations.centre[:3].tolist() == [0.5, 1.5, 2.5]
    assert locations.centre[16:19].tolist() == [0.5, 2.5, 4.5]
    bounds = sorted(
        {
            (lower, upper)
            for lower, upper in zip(locations.lower.tolist(), locations.upper.tolist(), strict=True)
        }
    )
    assert bounds == [(0.0, 4.0), (4.0, 8.0), (8.0, float("inf"))]


def test_an_action_in_two_overlapping_ranges_is_learned_on_both_levels() -> None:
    def learning_levels(ranges: list[tuple[float, float]]) -> set[int]:
        locations = locations_of(16, ranges=ranges)
        out = assign(targets_of((4.0, 9.0, 1)), locations=locations)
        is_middle = locations.centre == 6.5
        return set(locations.level[out.is_positive[0] & is_middle].tolist())

    assert learning_levels(DOUBLING) == {0}
    assert learning_levels(OVERLAPPING) == {0, 1}


def test_segments_of_equal_length_share_a_location_and_the_shortest_wins() -> None:
    locations = locations_of(8, ranges=[(0.0, torch.inf)])
    out = assign(targets_of((2.0, 5.0, 0), (2.0, 5.0, 2), (1.0, 7.0, 3)), locations=locations)
    assert out.classes[0, 3].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert out.distances[0, 3].tolist() == [1.5, 1.5]


def test_segment_between_two_locations_is_learned_by_nobody() -> None:
    assert not assign(targets_of((2.6, 3.4, 1)), locations=locations_of(8)).is_positive.any()
