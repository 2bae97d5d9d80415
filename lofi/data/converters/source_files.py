"""Read the text, JSON and CSV files that datasets come in; every error names the file and the place."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str:
    """UTF-8 text. Raises ValueError where the file cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start}).") from None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError where the file holds something else."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not JSON: {error.msg}, line {error.lineno} column {error.colno}."
        ) from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: the top level must be an object that is not empty.")
    return content


def read_rows(path: Path, *, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file with a header, each with its place for messages ("file, line 3").

    Raises:
        ValueError: a column is missing, or a row has more or fewer cells than the header.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), restval="", restkey="")
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        found = ", ".join(reader.fieldnames or ()) or "nothing"
        raise ValueError(f"{path}: the column {missing[0]} is missing; the first line has {found[:200]}.")
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if "" in row:
            raise ValueError(f"{where}: has more cells than the header.")
        yield where, row


def read_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The words of each line that is not empty, each with its place for messages."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.split()


def read_numbered_names(path: Path) -> dict[str, str]:
    """Number or code -> name, from lines `12 Name of the class`: Charades' classes and MultiTHUMOS' class_list.txt."""
    names: dict[str, str] = {}
    for where, words in read_lines(path):
        if len(words) < 2 or words[0] in names:
            raise ValueError(f"{where} is {' '.join(words)!r}; it must be a number of its own and a name.")
        names[words[0]] = " ".join(words[1:])
    repeated = [name for name in names.values() if list(names.values()).count(name) > 1]
    if not names or repeated:
        raise ValueError(f"{path}: " + (f'names "{repeated[0]}" twice.' if repeated else "names no class."))
    return names


def seconds_of(value: Any, *, where: str) -> float:
    """A finite number, also written as text. Raises ValueError with the place."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where} is {value!r}; it must be a number of seconds.")
    return number


def positive_or_none(value: Any) -> float | None:
    """A positive finite number, also written as text, or None for anything else: a duration that is not known."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def one_file(source: Path, names: Sequence[str]) -> Path:
    """The source itself, or the one of `names` that it holds where it is a folder. Raises ValueError where it has none."""
    if not source.is_dir():
        return source
    for name in names:
        if (source / name).is_file():
            return source / name
    raise ValueError(f"{source}: holds none of {', '.join(names)}; give the file itself.")


def beside(source: Path, name: str) -> Path | None:
    """The file of this name in the folder `source`, or beside the file `source`, where it is there."""
    path = (source if source.is_dir() else source.parent) / name
    return path if path.is_file() else None
