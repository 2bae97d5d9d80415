"""The text of a CSV as spreadsheets write it -> its rows of cells: UTF-8 or UTF-16, one of four separators, Excel's `sep=;`."""

import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

SEPARATORS = (",", ";", "\t", "|")
SAYS_SEPARATOR = re.compile(rf'"?sep=([{"".join(SEPARATORS)}])"?\r?\n', re.IGNORECASE)
"""A first line that Excel writes and reads."""


@dataclass(frozen=True, kw_only=True)
class TableText:
    """A table, not yet understood."""

    separator: str
    header_line: int
    """Its number, from 1."""
    header: list[str]
    rows: Iterator[tuple[int, list[str]]]
    """(number of the first line, cells without the blanks around them) of each row below the header. Raises ValueError where
    the table ends within a quoted cell."""


def read_table_text(path: Path, *, columns: Collection[str]) -> TableText:
    """Read a table.

    Args:
        path: the file.
        columns: names, in lower case, of which the first line has some; the separator is found by them.

    Raises:
        ValueError: the file cannot be read, or is neither UTF-8 nor UTF-16 with its mark.
    """
    text = _decode(path)
    said = SAYS_SEPARATOR.match(text)
    separator = said[1] if said else _separator(text, columns)
    rows = _read_cells(path, text, separator)
    if said:
        next(rows)
    header_line, header = next(rows, (1, []))
    return TableText(separator=separator, header_line=header_line, header=header, rows=rows)


def _separator(text: str, columns: Collection[str]) -> str:
    """The mark that makes the most of the columns out of the first line."""
    first = text.lstrip().partition("\n")[0].lower()

    def num_found(mark: str) -> int:
        return len(set(columns) & {cell.strip(' "\r') for cell in first.split(mark)})

    return max(SEPARATORS, key=num_found)


def _read_cells(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{path}, line {line}: {error}; is a double quote not closed?") from None
        yield line, cells
        line = reader.line_num + 1


def _decode(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: is not UTF-8; save the table as UTF-8.") from None
