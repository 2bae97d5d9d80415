"""Rows of memory.json -> one line per recipe, in the order of the method table: what was measured, what was predicted.

The two kinds stand side by side and never in one column. Bytes in, bytes out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lofi.report.units import bytes_text

Row = Mapping[str, Any]

KINDS = ("parameters", "gradients", "optimizer", "activations", "inputs", "workspace")
"""Of bytes, in the order of their colours."""

PARTS = ("data", "forward", "backward", "optimizer", "other")
"""Of a step's seconds, in the order of their colours; they sum to the step."""

METHOD_ORDER = (
    "full end-to-end",
    "full, checkpointed",
    "LoFi S",
    "LoFi T",
    "LoFi ST",
    "LoFi cyclic",
    "chunked exact",
    "sampled gradient",
    "frozen features",
    "frozen encoder",
    "SoLa",
)
"""What begins with none of these stands behind them, as it came."""

END_TO_END = METHOD_ORDER[: METHOD_ORDER.index("frozen features")]
"""Methods that train the encoder under the localization loss."""


@dataclass(frozen=True, kw_only=True)
class MemoryLine:
    """One recipe."""

    recipe: str
    method: str
    label: str
    """The method; the recipe where several recipes are of one method."""
    measured: Row | None
    """None where it was not measured, or has no numbers."""
    predicted: Row | None
    failure: str | None
    """Why there is no measurement, where one was tried; says "needs more than" where memory was short."""
    is_out_of_memory: bool


def memory_lines(rows: Sequence[Row]) -> list[MemoryLine]:
    """One line per recipe. Raises ValueError on a row that is not whole, and where a recipe has two rows of one kind."""
    found: dict[str, dict[str, Row]] = {}
    for index, row in enumerate(rows):
        for key in ("kind", "recipe"):
            if key not in row:
                raise ValueError(
                    f"row {index} of memory.json has no {key}; a row needs kind, recipe and bytes."
                )
        if row["kind"] not in ("measured", "predicted"):
            raise ValueError(
                f"row {index} of memory.json is of kind {row['kind']!r}; allowed: measured, predicted."
            )
        kinds = found.setdefault(row["recipe"], {})
        if row["kind"] in kinds:
            raise ValueError(
                f"row {index} of memory.json repeats recipe {row['recipe']} as {row['kind']}; each may stand there "
                "once of a kind."
            )
        kinds[row["kind"]] = row
    methods = {recipe: _method(recipe, kinds) for recipe, kinds in found.items()}
    lines = [_line(recipe, kinds, methods=methods) for recipe, kinds in found.items()]
    return sorted(lines, key=lambda line: _place(line.method))


def is_end_to_end(line: MemoryLine) -> bool:
    """Whether the line's method trains the encoder under the localization loss."""
    return _known_method(line.method) in END_TO_END


def notes(lines: Sequence[MemoryLine]) -> list[str]:
    """What the columns mean, one sentence each."""
    measured = [line.measured for line in lines if line.measured is not None]
    sentences = []
    if measured:
        how = "; ".join(dict.fromkeys(str(row["how"]) for row in measured if row.get("how")))
        sentences.append(f"Peak: the greatest number of bytes alive at once in a training step ({how}).")
        sentences.append(
            "The kinds are those alive at that moment, so gradients are none where the peak lies at the end of the forward "
            "pass; workspace is what is neither weight, state, input nor kept activation, such as gradients of activations."
        )
        steps = sorted({int(row["steps"]) for row in measured if row.get("steps")})
        if steps:
            sentences.append(
                f"Speeds and seconds: means over {' or '.join(map(str, steps))} steps after warm-up. Data is the wait for "
                "the next batch; clipping is part of the optimizer's seconds; the parts sum to the step."
            )
        if any(row.get("transfer_sec") is not None for row in measured):
            sentences.append(
                "Transfer is the copy of one batch to the device by itself; in a step it is part of the forward pass, and a "
                "path that copies ahead hides it."
            )
        if any(row.get("input") == "synthetic" for row in measured):
            sentences.append(
                "Synthetic input: random batches, so nothing was decoded and nothing was waited for."
            )
        assumed = list(dict.fromkeys(each for row in measured for each in row.get("assumptions") or ()))
        if assumed:
            sentences.append(f"Assumed where no data says it: {', '.join(assumed)}.")
        if any(len(row.get("fidelities") or ()) > 1 for row in measured):
            sentences.append(
                "Of a cycle of fidelities: the bytes of the one with the greatest peak, the speed over all of them."
            )
        if any(row.get("average_mAP") is not None for row in measured):
            sentences.append("Average mAP is that of the finished run in the recipe's own output folder.")
    predicted = [line.predicted for line in lines if line.predicted is not None]
    if predicted:
        how = "; ".join(dict.fromkeys(str(row["how"]) for row in predicted if row.get("how")))
        devices = ", ".join(dict.fromkeys(str(row.get("device")) for row in predicted))
        sentences.append(
            f"Predicted for {devices}{f' ({how})' if how else ''}: computed, and no measurement."
        )
    if any(row.get("calibrated") is False and row.get("device") != "cpu" for row in predicted):
        sentences.append(
            "What a GPU holds beyond its tensors is predicted from assumed terms, not yet fitted to measurements."
        )
    assumed = list(dict.fromkeys(each for row in predicted for each in row.get("assumptions") or ()))
    if assumed and not measured:
        sentences.append(f"Assumed where no data says it: {', '.join(assumed)}.")
    return sentences


def _method(recipe: str, kinds: Mapping[str, Row]) -> str:
    return next((str(row["method"]) for row in kinds.values() if row.get("method")), recipe)


def _line(recipe: str, kinds: Mapping[str, Row], *, methods: Mapping[str, str]) -> MemoryLine:
    row, method = kinds.get("measured"), methods[recipe]
    is_short = row is not None and row.get("needs_more_than_bytes") is not None
    failure = None
    if row is not None and row.get("peak_bytes") is None:
        failure = str(row.get("error") or "not measured")
        if is_short:
            failure = f"needs more than {bytes_text(row['needs_more_than_bytes'])}"
            if row.get("held_bytes"):
                failure += f" (held {bytes_text(row['held_bytes'])})"
    return MemoryLine(
        recipe=recipe,
        method=method,
        label=method if list(methods.values()).count(method) == 1 else recipe,
        measured=row if failure is None else None,
        predicted=kinds.get("predicted"),
        failure=failure,
        is_out_of_memory=is_short,
    )


def _place(method: str) -> int:
    """Where a method stands in `METHOD_ORDER`."""
    known = _known_method(method)
    return len(METHOD_ORDER) if known is None else METHOD_ORDER.index(known)


def _known_method(method: str) -> str | None:
    """The entry of `METHOD_ORDER` that a method is: by its whole name, else by what is before its comma."""
    return next((name for name in (method, method.partition(",")[0]) if name in METHOD_ORDER), None)
