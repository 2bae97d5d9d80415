"""Fit the terms of a GPU (`gpu_terms.json`) to measurements: predicted parts against what the allocator said.

    python launch/profile_memory.py RECIPE... --predict --synthetic-input --output runs/profile
    python -m lofi.memory.calibrate runs/profile/memory.json --output lofi/memory/gpu_terms.json

Block size and cuBLAS workspace stay as PyTorch has them. Of the other three each is the value whose greatest relative error
over the recipes is least: cuDNN's workspace against max_memory_allocated, the fragmentation against max_memory_reserved given
what was allocated, and the context against what the device lost outside of the allocator (no other process may use it).
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from lofi.files import write_json
from lofi.memory.gpu_terms import TERMS_FILE, GpuTerms, gpu_bytes, read_gpu_terms
from lofi.progress import say

LEAST_RECIPES = 3
"""With fewer, a fit says nothing of other recipes."""
MUST_AGREE = ("fidelity", "precision")
"""What the two rows of a recipe have in common, else they tell of different steps."""
MOST_WORKSPACE_BYTES = 16 * 2**30


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One recipe, predicted and measured."""

    recipe: str
    rounded_bytes: int
    """Predicted: the peak of live tensors, each rounded to the allocator's blocks."""
    allocated_bytes: int
    reserved_bytes: int
    outside_bytes: int
    """Measured on the device outside the allocator."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fitted terms, and how far off they are."""

    terms: GpuTerms
    allocated_error: float
    """Greatest relative error over the recipes."""
    reserved_error: float


def read_pairs(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Pair], Mapping[str, Any]]:
    """Rows of memory.json -> the recipes that are there as both kinds, and one measured row, for device and versions.

    Raises:
        ValueError: fewer than `LEAST_RECIPES` of them, rows of several devices, or of a step that is not the predicted one.
    """
    measured = {row["recipe"]: row for row in rows if row["kind"] == "measured" and row.get("reserved_bytes")}
    predicted = {
        row["recipe"]: row for row in rows if row["kind"] == "predicted" and row.get("rounded_bytes")
    }
    both = [recipe for recipe in measured if recipe in predicted]
    if len(both) < LEAST_RECIPES:
        raise ValueError(
            f"only {len(both)} recipes are there both measured on a GPU and predicted for one; at least {LEAST_RECIPES} are "
            "needed (launch/profile_memory.py RECIPE... --predict)."
        )
    devices = sorted({measured[recipe]["device"] for recipe in both})
    if len(devices) > 1:
        raise ValueError(f"the rows were measured on {', '.join(devices)}; give those of one device.")
    for recipe in both:
        for key in MUST_AGREE:
            ours, theirs = predicted[recipe].get(key), measured[recipe].get(key)
            if ours != theirs:
                raise ValueError(
                    f"{recipe}: {key} is {ours} where it was predicted and {theirs} where measured."
                )
    pairs = [
        Pair(
            recipe=recipe,
            rounded_bytes=predicted[recipe]["rounded_bytes"],
            allocated_bytes=measured[recipe]["peak_bytes"],
            reserved_bytes=measured[recipe]["reserved_bytes"],
            outside_bytes=measured[recipe]["outside_allocator_bytes"],
        )
        for recipe in both
    ]
    return pairs, measured[both[0]]


def fit_terms(pairs: Sequence[Pair], *, terms: GpuTerms, source: str) -> Fit:
    """The terms with workspace, fragmentation and context fitted. Args: terms: of the measured device's capability."""

    def allocated_error(cudnn_bytes: float) -> float:
        return max(
            abs(pair.rounded_bytes + terms.cublas_workspace_bytes + cudnn_bytes - pair.allocated_bytes)
            / pair.allocated_bytes
            for pair in pairs
        )

    def reserved_error(share: float) -> float:
        return max(
            abs(pair.allocated_bytes * (1 + share) - pair.reserved_bytes) / pair.reserved_bytes
            for pair in pairs
        )

    fitted = replace(
        terms,
        calibrated=True,
        source=source,
        cudnn_workspace_bytes=round(_least(allocated_error, low=0, high=MOST_WORKSPACE_BYTES)),
        fragmentation_share=round(_least(reserved_error, low=0, high=4), 4),
        cuda_context_bytes=round(median(pair.outside_bytes for pair in pairs)),
    )
    return Fit(
        terms=fitted,
        allocated_error=allocated_error(fitted.cudnn_workspace_bytes),
        reserved_error=max(
            abs(gpu_bytes(pair.rounded_bytes, fitted).reserved - pair.reserved_bytes) / pair.reserved_bytes
            for pair in pairs
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lofi.memory.calibrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "rows", type=Path, metavar="memory.json", help="of launch/profile_memory.py --predict"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the fitted gpu_terms.json")
    options = parser.parse_args(arguments)
    try:
        pairs, row = read_pairs(json.loads(options.rows.read_text()))
    except (ValueError, OSError) as error:
        sys.exit(f"{options.rows}: {error}")
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    fit = fit_terms(
        pairs,
        terms=read_gpu_terms(tuple(row["capability"])),
        source=f"fitted to {len(pairs)} recipes measured on {row['device']} ({versions})",
    )
    for pair in pairs:
        bytes_now = gpu_bytes(pair.rounded_bytes, fit.terms)
        say(
            f"{pair.recipe}: allocated {bytes_now.allocated} predicted, {pair.allocated_bytes} measured; reserved "
            f"{bytes_now.reserved} predicted, {pair.reserved_bytes} measured"
        )
    say(f"greatest error: allocated {fit.allocated_error:.1%}, reserved {fit.reserved_error:.1%}")
    plain = {
        **asdict(fit.terms),
        "cublas_workspace_bytes": json.loads(TERMS_FILE.read_text())["cublas_workspace_bytes"],
    }
    if options.output is None:
        say(json.dumps(plain, indent=1))
    else:
        write_json(options.output, plain)
        say(f"written: {options.output}")
    return 0


def _least(error: Callable[[float], float], *, low: float, high: float) -> float:
    """Where a convex function is least, by thirds."""
    for _ in range(200):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if error(left) <= error(right):
            high = right
        else:
            low = left
    return (low + high) / 2


if __name__ == "__main__":
    raise SystemExit(main())
