import json
from pathlib import Path

import pytest
from ranks import run_on_ranks

CASES = ("stage_0", "stage_1", "stage_2", "stage_3", "stage_2_offload")


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """One launch of two ranks for all cases of this file."""
    script = Path(__file__).with_name("stages_worker.py")
    output = run_on_ranks(script, tmp_path_factory.mktemp("stages"), world_size=2, timeout_sec=400)
    found = [json.loads(line) for line in output.splitlines() if line.startswith('{"case"')]
    return {line["case"]: line for line in found}


@pytest.mark.ranks
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_give_the_parameters_of_plain_pytorch(case, lines):
    assert lines[case]["names"]
    assert lines[case]["moved"] > 1e-3
    assert lines[case]["difference"] < 2e-6


@pytest.mark.ranks
@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_resumes_bit_for_bit(case, lines):
    assert lines[case]["position"] == {"epoch": 1, "batch": 0, "step": 2}
    assert lines[case]["resumed_loss_equal"]
    assert lines[case]["resumed_difference"] == 0.0
