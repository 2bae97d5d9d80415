"""memory.json -> memory.md, memory.html and the terminal table, as their readers see them."""

import json
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lofi.report import memory_tables
from lofi.report.memory_page import (
    headline,
    read_memory_rows,
    render_memory_markdown,
    render_memory_page,
    write_memory_report,
)
from lofi.report.memory_rows import KINDS, memory_lines, notes
from lofi.report.memory_tables import print_memory_table, seconds_table, summary_table

MIB = 2**20
ODD_NAME = 'a|<script>alert("x")</script>_[red]&'


class Reader(HTMLParser):
    """The rows of the page's tables, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.text = ""
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data


def curve() -> dict[str, Any]:
    live = {kind: [place, 2 * place + 1, place] for place, kind in enumerate(KINDS)}
    phases = [{"name": "forward", "start": 0}, {"name": "backward", "start": 4}]
    return {"operations": [0, 3, 9], "live_bytes": live, "phases": phases, "num_operations": 11}


def measured(recipe: str, method: str, peak_mib: int, **more: Any) -> dict[str, Any]:
    return {
        "kind": "measured",
        "how": "counted",
        "recipe": recipe,
        "method": method,
        "device": "cpu",
        "bytes": {"parameters": 2 * MIB, "activations": (peak_mib - 2) * MIB},
        "peak_bytes": peak_mib * MIB,
        "phase_peak_bytes": {"forward": peak_mib * MIB, "backward": MIB},
        "resident_bytes": 500 * MIB,
        "snippets_per_sec": 1234.0,
        "videos_per_sec": 4.5,
        "sec_per_step": 0.25,
        "seconds": {"data": 0.05, "forward": 0.06, "backward": 0.1, "optimizer": 0.03, "other": 0.01},
        "data_share": 0.2,
        "steps": 7,
        "curve": curve(),
        "versions": {"torch": "2.15.0"},
        **more,
    }


def predicted(recipe: str, method: str, peak_mib: int) -> dict[str, Any]:
    by_kind = {"parameters": 2 * MIB, "activations": (peak_mib - 2) * MIB}
    return {
        "kind": "predicted",
        "how": "fake tensors",
        "recipe": recipe,
        "method": method,
        "device": "cuda",
        "bytes": by_kind,
        "peak_bytes": peak_mib * MIB,
        "calibrated": False,
    }


ROWS = [
    measured("tac_tiny", "TAC", 20),
    measured("frozen", "frozen features", 5, average_mAP=0.123),
    measured("chunked", "chunked exact", 70),
    measured("s_checkpointed", "LoFi S, checkpointed", 30),
    measured("st", "LoFi ST", 41),
    measured("full", "full end-to-end", 140),
]
SHORT = {
    "kind": "measured", "recipe": "big", "method": "full, checkpointed", "peak_bytes": None, "bytes": None,
    "needs_more_than_bytes": 16 * 2**30,
}  # fmt: skip


def summary_row(page: str, method: str) -> list[str]:
    return next(cells for cells in Reader(page).rows if cells[0].startswith(method))


def test_rows_stand_in_the_order_of_the_method_table() -> None:
    lines = memory_lines([*ROWS, SHORT])
    assert [line.recipe for line in lines] == [
        "full", "big", "s_checkpointed", "st", "chunked", "frozen", "tac_tiny"
    ]  # fmt: skip


def test_predicted_and_measured_never_share_a_column() -> None:
    rows = [*ROWS, predicted("full", "full end-to-end", 150), predicted("st", "LoFi ST", 44)]
    page = render_memory_page(rows, title="profile")
    full = summary_row(page, "full end-to-end")
    assert full[1] == "140.0 MiB"
    assert full[-3:] == ["-", "150.0 MiB", "cuda"], "no mAP, then what was predicted"
    assert summary_row(page, "chunked exact")[-2:] == ["-", "-"]
    assert "150.0 MiB" not in full[1:-2]
    headers = [cells for cells in Reader(page).rows if cells[1:] == ["measured", "predicted"]]
    assert len(headers) == 2, "the table of peaks and that of kinds"
    line = next(
        line for line in render_memory_markdown(rows, title="profile").splitlines() if "recipe" in line
    )
    assert "peak (measured)" in line
    assert "peak (predicted)" in line
    assert "not yet fitted to measurements" in Reader(page).text


def test_figures_of_the_two_kinds_are_apart() -> None:
    page = render_memory_page([*ROWS, predicted("full", "full end-to-end", 150)], title="profile")
    assert "What the peak consists of, measured" in page
    assert "What the peak consists of, predicted" in page
    measured_bars, predicted_bars = re.findall(
        r"<svg(?:(?!</svg>).)*bytes at the peak, .*?</svg>", page, flags=re.DOTALL
    )
    assert "140.0 MiB" in measured_bars
    assert "150.0 MiB" not in measured_bars
    assert "150.0 MiB" in predicted_bars


def test_page_shows_every_number_of_a_row() -> None:
    page = render_memory_page(ROWS, title="profile", date="2026-01-02")
    assert summary_row(page, "LoFi ST")[1:] == [
        "41.0 MiB", "500.0 MiB", "1,234", "4.50", "250.0 ms", "20 %", "-"
    ]  # fmt: skip
    assert summary_row(page, "frozen features")[-1] == "12.3"
    assert page.count("<svg") == 3 + len(ROWS), "bars, scatter, seconds, and a curve for each"
    assert "frozen features 12.3" in page, "the point carries its mAP"
    assert "7 steps after warm-up" in page


def test_the_page_stands_alone_and_follows_light_and_dark() -> None:
    page = render_memory_page(ROWS, title="profile")
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page
    defined = set(re.findall(r"(--[\w-]+):", page))
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= defined
    assert not re.search(r"#010[123]", page)
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))


def test_short_memory_is_said_in_the_table() -> None:
    page = render_memory_page([*ROWS, SHORT], title="profile")
    assert summary_row(page, "full, checkpointed")[1] == "needs more than 16.0 GiB"
    assert "needs more than 16.0 GiB" in render_memory_markdown([*ROWS, SHORT], title="profile")


def test_a_failed_recipe_shows_its_reason() -> None:
    failed = {
        "kind": "measured",
        "recipe": "gone",
        "method": "LoFi T",
        "peak_bytes": None,
        "error": "no file | x",
    }
    page = render_memory_page([*ROWS, failed], title="profile")
    assert summary_row(page, "LoFi T")[1] == "failed"
    assert "gone: no file | x" in Reader(page).text
    assert r"gone: no file \| x" in render_memory_markdown([*ROWS, failed], title="profile")


def test_only_predictions_make_a_page_too() -> None:
    page = render_memory_page([predicted("full", "full end-to-end", 150)], title="plan")
    assert "Every number is predicted." in page
    assert "Seconds of a step" not in page
    assert summary_row(page, "full end-to-end")[1:] == ["150.0 MiB", "cuda"]


def test_nothing_measured_still_makes_a_page() -> None:
    page = render_memory_page([SHORT], title="profile")
    assert "No recipe gave numbers." in page
    assert "<svg" not in page


def test_recipes_of_one_method_are_called_by_their_recipe() -> None:
    lines = memory_lines(
        [measured("one", "LoFi S", 3), measured("two", "LoFi S", 4), measured("t", "LoFi T", 5)]
    )
    assert [line.label for line in lines] == ["one", "two", "LoFi T"]


def test_headline_compares_what_trains_end_to_end() -> None:
    assert headline(memory_lines(ROWS)) == (
        "LoFi S, checkpointed: 30.0 MiB at the peak, 4.7 times less than full end-to-end (140.0 MiB), measured"
    )
    assert headline(memory_lines(ROWS[:1])) == "TAC: 20.0 MiB at the peak, measured"


def test_parts_of_a_step_stand_beside_it() -> None:
    table = seconds_table(memory_lines(ROWS[:1]))
    assert table.columns == ("data", "forward", "backward", "optimizer", "other", "step")
    assert table.lines[0][1] == ("50.0 ms", "60.0 ms", "100.0 ms", "30.0 ms", "10.0 ms", "250.0 ms")


def test_columns_that_nothing_fills_are_left_out() -> None:
    columns = summary_table(memory_lines([measured("full", "full end-to-end", 3, data_share=None)])).columns
    assert columns == ("peak", "resident", "snippets/s", "videos/s", "step")


def test_a_row_of_a_gpu_says_what_is_reserved_and_copied() -> None:
    row = measured("full", "full end-to-end", 3, device="H200", reserved_bytes=5 * MIB, transfer_sec=0.004)
    lines = memory_lines([row])
    assert summary_table(lines).columns[:3] == ("peak", "reserved", "snippets/s")
    assert "4.0 ms" in seconds_table(lines).lines[0][1]
    assert any("Transfer" in note for note in notes(lines))


def test_odd_names_stay_text(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [measured(ODD_NAME, "LoFi S", 3), measured("two", "LoFi S", 4)]
    page = render_memory_page(rows, title=ODD_NAME)
    assert "<script" not in page
    assert ODD_NAME in Reader(page).text
    out = StringIO()
    monkeypatch.setattr(memory_tables, "console", Console(file=out, width=110))
    print_memory_table(rows)
    assert "[red]" in out.getvalue().replace("\n", "").replace(" ", "")


def test_files_are_written_beside_the_rows(tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_text(json.dumps(ROWS))
    markdown, page = write_memory_report(tmp_path, title="profile")
    assert (markdown.name, page.name) == ("memory.md", "memory.html")
    lines = markdown.read_text().splitlines()
    table = [line for line in lines if line.startswith("|")][: 2 + len(ROWS)]
    assert {line.count("|") for line in table} == {table[0].count("|")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"does not exist; it must be a memory.json"),
        ("{", r"is not valid JSON"),
        ('{"rows": []}', r"it must be a list with one row"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "memory.json").write_text(text)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        read_memory_rows(tmp_path / "memory.json")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"kind": "measured"}, r"row 1 of memory.json has no recipe"),
        ({"kind": "guessed", "recipe": "full"}, r"kind 'guessed'; allowed: measured, predicted"),
        (ROWS[0], r"repeats recipe tac_tiny as measured"),
    ],
)
def test_a_row_that_is_not_whole_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        memory_lines([ROWS[0], row])
