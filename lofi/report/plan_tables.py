"""Predicted memory in the terminal: bytes by kind, where the peak lies and who holds it. Reads rows of memory.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lofi.progress import console
from lofi.report.units import bytes_text

KINDS = ("parameters", "gradients", "optimizer", "activations", "inputs", "workspace")
PIPED_COLUMNS = 110
"""Width where the output is no terminal."""


def print_plan(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print one line per recipe, and what stands behind each below."""
    out = console if console.is_terminal else Console(file=console.file, width=PIPED_COLUMNS)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("method (recipe)", overflow="fold", min_width=16, max_width=36)
    is_gpu = any(row["device"] == "cuda" for row in rows)
    for name in ("peak", *KINDS, *(("must fit",) if is_gpu else ())):
        table.add_column(name, justify="right")
    for row in rows:
        cells = [bytes_text(row["peak_bytes"]), *(bytes_text(row["bytes"][kind]) for kind in KINDS)]
        if is_gpu:
            cells.append(bytes_text(row["needed_bytes"]))
        table.add_row(Text(f"{row['method']} ({row['recipe']})"), *cells)
    out.print()
    out.print(table, soft_wrap=False)
    for row in rows:
        for line in plan_lines(row):
            out.print(Text(line), soft_wrap=False)
    for line in plan_notes(rows):
        out.print(Text(line, style="dim"), soft_wrap=False)


def print_budget(rows: Sequence[Mapping[str, Any]], *, recipe: str, budget: str) -> None:
    """Print the ways to train one recipe within a budget, in the rows' order, and the overrides of each."""
    out = console if console.is_terminal else Console(file=console.file, width=PIPED_COLUMNS)
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title=f"{recipe} within {budget}", title_justify="left"
    )
    for name in (
        "",
        "method",
        "windows x fidelity",
        "needs",
        "encoder cost per window",
        "overrides to paste",
    ):
        is_number = name in ("needs", "encoder cost per window")
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(
            "best" if row["is_best"] else "",
            row["method"],
            f"{row['batch_size_per_rank']} x {', '.join(row['fidelities'])}",
            bytes_text(row["needed_bytes"]),
            f"{row['flops_per_window'] / 1e12:.3g} TFLOP",
            " ".join(row["overrides"]),
        )
    out.print()
    out.print(table, soft_wrap=False)
    note = (
        "Predicted. Cost: operations of the encoder per window and step, a backward pass counted as two forward passes, "
        "recomputation included. Best: full fidelity first, then the full gradient, then the least cost."
    )
    out.print(Text(" ".join([note, *plan_notes(rows)[1:]]), style="dim"), soft_wrap=True)


def plan_lines(row: Mapping[str, Any]) -> list[str]:
    """What stands behind one prediction."""
    ranks = "1 rank" if row["world_size"] == 1 else f"{row['world_size']} ranks"
    held = ", ".join(f"{each['name']} {bytes_text(each['num_bytes'])}" for each in row["modules"])
    lines = [
        f"{row['recipe']}: {row['batch_size_per_rank']} x {row['fidelity']}, {row['precision']} on {row['device']}, "
        f"ZeRO {row['zero_stage']}, {ranks}",
        f"  peak in {row['peak_phase']}, at {row['peak_module']}; held most by {held}",
    ]
    if len(row["steps"]) > 1:
        each = ", ".join(f"{step['fidelity']} {bytes_text(step['peak_bytes'])}" for step in row["steps"])
        lines.append(f"  fidelities in turn: {each}")
    if row["deepspeed_estimate_bytes"] is not None:
        estimate = bytes_text(row["deepspeed_estimate_bytes"])
        lines.append(f"  DeepSpeed's own estimate of model states, for 16-bit weights: {estimate}")
    if row["assumptions"]:
        lines.append(f"  assumed, since no file says it: {'; '.join(row['assumptions'])}")
    return lines


def plan_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What all of them have in common."""
    notes = ["Predicted: one step on fake tensors; bytes of one rank at its peak, by kind."]
    if any(row["device"] == "cuda" for row in rows):
        fitted = (
            "calibrated against measurements"
            if all(row["calibrated"] for row in rows)
            else "not calibrated yet: assumptions, see lofi/memory/gpu_terms.json"
        )
        notes.append(
            "Must fit: the peak, with rounding to the allocator's blocks, libraries' workspaces, fragmentation and the CUDA "
            f"context ({fitted})."
        )
    if any(row["zero_stage"] > 0 for row in rows):
        notes.append(
            "ZeRO holds a bucket of deepspeed.zero_optimization.reduce_bucket_size elements (as many as there are gradients, "
            "unless the recipe says less) while the backward pass runs."
        )
    return notes
