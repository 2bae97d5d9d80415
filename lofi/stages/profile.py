"""Profile: recipes -> measured bytes and speed, side by side, on one page.

Every recipe runs in a process of its own, so that no allocator, no library's workspace and no peak of one recipe is seen by
the next, and so that one which is killed for its memory is a row and not the end. On a CPU these processes are forked from
a server that has imported the libraries once; on CUDA they are started anew.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from lofi.config.load import recipe_to_yaml
from lofi.config.recipe import Recipe
from lofi.data.decode import DecodeError
from lofi.engine import deepspeed_engine
from lofi.engine.run_directory import RunDirectory, environment
from lofi.files import write_json
from lofi.memory.limits import available_bytes, check_can_limit, is_out_of_memory
from lofi.progress import Advance, say, track
from lofi.report.memory_page import write_memory_report
from lofi.report.memory_tables import print_memory_table
from lofi.stages.method_names import method_name
from lofi.stages.named_recipes import NamedRecipe
from lofi.stages.profile_steps import ProfileOptions, measure_recipe, num_steps

RANK_KEYS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher or an earlier run in this process says of its ranks; a child is a rank of its own."""


def run_profile(
    recipes: Sequence[NamedRecipe],
    *,
    options: ProfileOptions,
    output: Path,
    predicted: Sequence[dict[str, Any]] = (),
    restart: bool = False,
    measure: Callable[[NamedRecipe, ProfileOptions, Advance], dict[str, Any]] | None = None,
) -> int:
    """Measure every recipe that the output does not hold yet, save its row, and write the page.

    Args:
        recipes: from `load_recipes`.
        options: how to measure.
        output: folder of rows/NAME.json, memory.json, memory.md, memory.html.
        predicted: rows of kind "predicted", shown beside and never in the same column.
        restart: measure again what is there.
        measure: one recipe -> its row; by default `measure_in_process`.

    Returns:
        0, or 1 where a recipe could not be measured for another reason than its memory.
    """
    if options.limit_bytes is not None:
        check_can_limit()
    device = environment()["device"]
    rows = []
    total = sum(num_steps(each.recipe, options) for each in recipes)
    with track("profiling", total=total) as advance:
        for each in recipes:
            file = output / "rows" / f"{each.name.replace('/', '__')}.json"
            key = _key(each.recipe, options, device=device)
            row = None if restart else _read_row(file, key=key)
            if row is None:
                row = (measure or measure_in_process)(each, _own_snapshot(options, file.stem), advance)
                row = {"recipe": each.name, "key": key, **row}
                write_json(file, row)
            else:
                advance(num_steps(each.recipe, options), note=f"{each.name}: measured before")
            rows.append({**row, "average_mAP": _average_map(each.recipe)})
    write_json(output / "memory.json", [*rows, *predicted])
    paths = write_memory_report(output, title=output.name, date=time.strftime("%Y-%m-%d"))
    print_memory_table([*rows, *predicted])
    say("report: " + ", ".join(str(path) for path in [*paths, output / "memory.json"]))
    return 1 if any("error" in row for row in rows) else 0


def measure_in_process(each: NamedRecipe, options: ProfileOptions, advance: Advance) -> dict[str, Any]:
    """One recipe's row, from a process of its own; a process that ends without one gives a row that says why.

    It sends ("step", what it does) after every step and ("row", the row) at its end.
    """
    is_cuda = torch.cuda.is_available()
    context: Any = multiprocessing.get_context("spawn" if is_cuda else "forkserver")
    if not is_cuda:
        context.set_forkserver_preload([__name__])
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(there, each, options), name=f"profile {each.name}")
    child.start()
    there.close()
    row: dict[str, Any] | None = None
    steps = 0
    try:
        while True:
            what, value = here.recv()
            if what == "step":
                steps += 1
                advance(note=f"{each.name}: {value}")
            else:
                row = value
    except EOFError:
        child.join()
    finally:
        if child.is_alive():
            child.kill()
            child.join()
    advance(max(0, num_steps(each.recipe, options) - steps), note=each.name)
    return row if row is not None else {**_stub(each), **_ending(child.exitcode)}


def measure_or_explain(
    each: NamedRecipe, options: ProfileOptions, *, advance: Callable[[str], None] = lambda note: None
) -> dict[str, Any]:
    """One recipe's row, measured in this process; where that fails for data, recipe or memory, a row that says why."""
    try:
        return measure_recipe(each.recipe, options=options, advance=advance)
    except (ValueError, OSError, DecodeError) as error:
        needs_no_data = "" if options.synthetic_input else " (--synthetic-input needs no data.)"
        return {**_stub(each), "error": f"{error}{needs_no_data}"}
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {**_stub(each), **_shortage(options)}


def _child(connection: Connection, each: NamedRecipe, options: ProfileOptions) -> None:
    """Measure, send the row, end. In a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, by ending this process
    _prefer_as_victim()
    for key in RANK_KEYS:
        os.environ.pop(key, None)
    row = measure_or_explain(each, options, advance=lambda note: connection.send(("step", note)))
    connection.send(("row", row))
    connection.close()
    deepspeed_engine.end_process(0)


def _prefer_as_victim() -> None:
    """Where memory runs out, the kernel shall end this process and not the one that waits for it."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return


def _ending(exitcode: int | None) -> dict[str, Any]:
    """Why a process ended without a row. Killed outright is what the kernel does where memory runs out."""
    if exitcode == -signal.SIGKILL:
        return {"needs_more_than_bytes": available_bytes()}
    return {"error": f"its process ended with exit code {exitcode}; the lines above say why"}


def _shortage(options: ProfileOptions) -> dict[str, Any]:
    """What a row says where memory was short, while the failed step's tensors are still held."""
    if options.limit_bytes is not None:
        return {"needs_more_than_bytes": options.limit_bytes, "held_bytes": torch.cuda.max_memory_allocated()}
    held = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {"needs_more_than_bytes": available_bytes(), "held_bytes": held}


def _stub(each: NamedRecipe) -> dict[str, Any]:
    """What a row says when nothing was measured."""
    return {
        "kind": "measured",
        "method": method_name(each.recipe),
        "device": environment()["device"],
        "peak_bytes": None,
        "bytes": None,
    }


def _own_snapshot(options: ProfileOptions, name: str) -> ProfileOptions:
    """The options with a folder for this recipe's snapshot alone."""
    return options if options.snapshot is None else replace(options, snapshot=f"{options.snapshot}/{name}")


def _average_map(recipe: Recipe) -> float | None:
    """Of the finished run in the recipe's own output folder; None where there is none."""
    results = RunDirectory(path=Path(recipe.output)).results
    if not results.is_file():
        return None
    average: float | None = json.loads(results.read_text()).get("average_mAP")
    return average


def _key(recipe: Recipe, options: ProfileOptions, *, device: str) -> str:
    """Changes with anything that a row depends on; `output` and the options that measure nothing apart."""
    plain = {**asdict(options), "snapshot": options.snapshot is not None}
    text = "\n".join(line for line in recipe_to_yaml(recipe).splitlines() if not line.startswith("output:"))
    parts = [
        text,
        json.dumps(plain, sort_keys=True),
        device,
        torch.__version__,
        os.environ.get("OMP_NUM_THREADS", ""),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _read_row(file: Path, *, key: str) -> dict[str, Any] | None:
    """The row of an earlier profile of the same recipe, options and device; None where it is missing, was made
    otherwise, or says of an error that may be mended by now."""
    if not file.is_file():
        return None
    row: dict[str, Any] = json.loads(file.read_text())
    return row if row.get("key") == key and "error" not in row else None
