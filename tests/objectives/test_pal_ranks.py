"""PAL on two ranks: one queue, one scale, and the loss of one rank with both halves of the batch."""

import json
import zlib
from pathlib import Path

import pal_worker
import pytest
import torch
from engine.ranks import run_on_ranks

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def two_ranks():
    script = Path(__file__).with_name("pal_worker.py")
    output = run_on_ranks(script, world_size=2, timeout_sec=240)
    (line,) = [json.loads(line) for line in output.splitlines() if line.startswith('{"ranks"')]
    return line["ranks"]


def test_both_ranks_hold_the_same_queue_and_scale_after_a_step(two_ranks):
    first, second = two_ranks
    for key in ("keys", "owners", "next_place", "moments"):
        assert first[key] == second[key]
    before = pal_worker.build().queue
    num_new = 2 * pal_worker.NUM_WINDOWS * pal_worker.BINS
    assert first["next_place"] == num_new
    keys = torch.tensor(first["keys"], dtype=torch.float64)
    assert not (keys[:num_new] == before.keys[:num_new]).all(dim=1).any()
    assert torch.equal(keys[num_new:], before.keys[num_new:])


def test_the_queue_takes_the_keys_of_every_rank_in_order(two_ranks):
    videos = [f"{rank}-{index}" for rank in (0, 1) for index in range(pal_worker.NUM_WINDOWS)]
    owners = [zlib.crc32(video.encode()) for video in videos for _ in range(pal_worker.BINS)]
    assert two_ranks[0]["owners"][: len(owners)] == owners


def test_the_mean_of_both_losses_is_the_loss_over_all_windows_that_count(two_ranks):
    """Draws are each rank's own, so that one rank is given them one half after the other."""
    num_valid = [4, 3]
    alone = [pal_worker.loss_of(pal_worker.build(), rank) for rank in (0, 1)]
    expected = sum(loss * count for loss, count in zip(alone, num_valid, strict=True)) / sum(num_valid)
    found = sum(rank["loss"] for rank in two_ranks) / 2
    assert found == pytest.approx(expected, rel=1e-9)
    assert two_ranks[0]["loss"] != pytest.approx(alone[0], rel=1e-3)
