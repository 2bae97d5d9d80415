"""Terms of a GPU are found again from rows that were made by them."""

import json
from dataclasses import replace

import pytest
import torch

from lofi.memory.calibrate import fit_terms, main, read_pairs
from lofi.memory.gpu_terms import gpu_bytes, read_gpu_terms
from lofi.memory.limits import check_can_limit

MIB = 2**20
TRUE = replace(
    read_gpu_terms((9, 0)),
    cudnn_workspace_bytes=40 * MIB,
    fragmentation_share=0.11,
    cuda_context_bytes=500 * MIB,
)


def made_rows(**changed):
    rows = []
    for recipe, rounded in {"full": 900 * MIB, "lofi_s": 300 * MIB, "chunked": 2000 * MIB}.items():
        on_gpu = gpu_bytes(rounded, TRUE)
        same = {"recipe": recipe, "fidelity": "8x4x20x22", "precision": "bf16"}
        rows.append({**same, "kind": "predicted", "rounded_bytes": rounded})
        rows.append(
            {
                **same,
                "kind": "measured",
                "device": "a GPU",
                "capability": [9, 0],
                "peak_bytes": on_gpu.allocated,
                "reserved_bytes": on_gpu.reserved,
                "outside_allocator_bytes": TRUE.cuda_context_bytes,
                "versions": {"torch": "2"},
                **(changed if recipe == "full" else {}),
            }
        )
    return rows


def test_the_terms_that_made_the_rows_are_found_again():
    pairs, _ = read_pairs(made_rows())
    fit = fit_terms(pairs, terms=read_gpu_terms((9, 0)), source="made")
    assert fit.terms.calibrated
    assert fit.terms.cudnn_workspace_bytes == pytest.approx(40 * MIB, abs=2)
    assert fit.terms.fragmentation_share == pytest.approx(0.11, abs=1e-4)
    assert fit.terms.cuda_context_bytes == 500 * MIB
    assert fit.allocated_error < 1e-6
    assert fit.reserved_error < 1e-3


def test_a_row_off_by_a_tenth_shows_in_the_error():
    pairs, _ = read_pairs(made_rows(peak_bytes=1100 * MIB))
    fit = fit_terms(pairs, terms=read_gpu_terms((9, 0)), source="made")
    assert 0.02 < fit.allocated_error < 0.15


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (made_rows()[:4], "only 2 recipes"),
        (made_rows(device="another"), "a GPU, another"),
        (made_rows(precision="fp32"), "full: precision is bf16"),
    ],
)
def test_rows_that_cannot_be_fitted_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        read_pairs(rows)


def test_the_command_writes_terms_that_the_planner_can_read(tmp_path, monkeypatch):
    (tmp_path / "memory.json").write_text(json.dumps(made_rows()))
    assert main([str(tmp_path / "memory.json"), "--output", str(tmp_path / "terms.json")]) == 0
    monkeypatch.setattr("lofi.memory.gpu_terms.TERMS_FILE", tmp_path / "terms.json")
    terms = read_gpu_terms.__wrapped__((9, 0))
    assert terms.calibrated
    assert "3 recipes measured on a GPU" in terms.source
    assert terms.cublas_workspace_bytes == 32 * MIB
    assert read_gpu_terms.__wrapped__((8, 6)).cublas_workspace_bytes == 8_519_680


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to limit")
def test_a_cpu_takes_no_limit():
    with pytest.raises(ValueError, match=r"--limit caps the memory of a GPU"):
        check_can_limit()
