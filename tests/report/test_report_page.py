"""report.json -> report.md, report.html and the terminal table, as their readers see them."""

import json
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lofi.report import tables
from lofi.report.comparison import summarise
from lofi.report.page import render_markdown, render_page, write_report
from lofi.report.tables import print_table, terminal_tables

MIB = 2**20
ODD_NAME = 'a|<script>alert("x")</script> $x_1$ [red]&'


def one_row(
    method: str, seed: int, average: float, *, tious: tuple[float, ...] = (0.5, 0.75)
) -> dict[str, Any]:
    return {
        "method": method,
        "seed": seed,
        "kind": "measured",
        "average_mAP": average,
        "mAP": {f"{tiou:.2f}": average * (1.2 - 0.4 * place) for place, tiou in enumerate(tious)},
        "peak_bytes": 30 * MIB,
        "bytes": {"parameters": 2 * MIB, "gradients": 1 * MIB, "optimizer": 4 * MIB, "activations": 23 * MIB},
        "snippets_per_sec": 1234.0,
        "seconds": 125.0,
        "trained_parameters": 54321,
        "stages": [
            {
                "name": "tac_tiny",
                "kind": "train",
                "run": f"seed_{seed}/tac_tiny",
                "shared": True,
                "seconds": 61.0,
                "peak_bytes": 77 * MIB,
                "snippets_per_sec": 456.0,
                "skipped_videos": 3,
            }
        ],
    }


def one_report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "title": "quickstart",
        "command": "launch/compare.py configs/synthetic/quickstart.yaml",
        "environment": {
            "python": "3.11.9",
            "packages": {"torch": "2.15.0"},
            "device": "cpu",
            "machine": "Linux",
        },
        "benchmark": {"videos": 80, "scene_correlation": 1.0},
        "rows": rows,
    }


TWO_METHODS = [
    one_row(method, seed, average + 0.02 * seed)
    for seed in (0, 1)
    for method, average in (("frozen", 0.40), ("lofi_s", 0.80))
]
FAILED = {"method": "lofi_t", "seed": 0, "error": "lofi_t: the loss is not finite at step 7"}


class Reader(HTMLParser):
    """Collects the text, the cells of every table, and every attribute that could load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self._in_cell = False
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action", "srcset") and value:
                self.links.append(value)
            if name == "id" and value:
                self.ids.append(value)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._in_cell:
            self.rows[-1][-1] += data.strip()


def printed(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    out = StringIO()
    monkeypatch.setattr(tables, "console", Console(file=out))
    print_table(report)
    return out.getvalue()


def test_write_report_leaves_both_files_and_no_partial_one(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(one_report(TWO_METHODS)))
    markdown, page = write_report(tmp_path)
    assert (markdown, page) == (tmp_path / "report.md", tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]


def test_page_shows_the_numbers_of_the_rows_in_percent_and_units(tmp_path: Path) -> None:
    read = Reader(render_page(one_report(TWO_METHODS), folder=tmp_path))
    expected = ["81.0 ± 1.4", "+40.0 ± 0.0", "97.2", "64.8", "30.0 MiB", "1,234", "2 min 05 s"]
    assert ["lofi_s", *expected] in read.rows
    assert ["tac_tiny", "shared", "train", "2", "1 min 01 s", "77.0 MiB", "456", "6"] in read.rows
    assert ["lofi_s", "1", "82.0", "30.0 MiB", "1,234", "2 min 05 s", "-", "54,321"] in read.rows


def test_page_says_the_result_and_how_it_was_made(tmp_path: Path) -> None:
    text = Reader(render_page(one_report(TWO_METHODS), folder=tmp_path)).text
    assert "lofi_s : 81.0 ± 1.4 average mAP, 40.0 points above frozen" in text
    assert "Every number on this page is measured, on cpu on Linux." in text
    for words in (
        "launch/compare.py configs/synthetic/quickstart.yaml",
        "torch 2.15.0",
        "scene_correlation 1.0",
    ):
        assert words in text
    assert "2 (0, 1)" in text


def test_page_loads_and_runs_nothing(tmp_path: Path) -> None:
    page = render_page(one_report(TWO_METHODS), folder=tmp_path)
    read = Reader(page)
    assert not re.search(r"https?:|@import|//\w", page)
    assert not {"script", "link", "iframe", "img"} & set(read.tags)
    assert all(link.startswith("#") for link in read.links)
    assert not re.search(r"url\((?!#)", page)


def test_figures_share_no_id_and_find_what_they_refer_to(tmp_path: Path) -> None:
    page = render_page(one_report(TWO_METHODS), folder=tmp_path)
    read = Reader(page)
    assert len(read.ids) == len(set(read.ids))
    referred = {link[1:] for link in read.links} | set(re.findall(r"url\(#([^)]+)\)", page))
    assert referred <= set(read.ids)


def test_figures_take_their_colours_from_the_page(tmp_path: Path) -> None:
    page = render_page(one_report(TWO_METHODS), folder=tmp_path)
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(figures) == 4
    for figure in figures:
        assert "var(--" in figure
        assert not re.search(r"#010[123]", figure)
    defined = set(re.findall(r"(--[\w-]+):", page))
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= defined


def test_the_page_of_the_same_rows_is_the_same_page(tmp_path: Path) -> None:
    report = one_report(TWO_METHODS)
    assert render_page(report, folder=tmp_path) == render_page(report, folder=tmp_path)


def test_odd_method_names_stay_text(tmp_path: Path) -> None:
    rows = [one_row("frozen", 0, 0.4), one_row(ODD_NAME, 0, 0.5)]
    page = render_page(one_report(rows), folder=tmp_path)
    assert "<script" not in page
    assert any(cells and cells[0] == ODD_NAME for cells in Reader(page).rows)
    line = next(
        line for line in render_markdown(one_report(rows)).splitlines() if "alert" in line and "|" in line
    )
    assert r"a\|\<script\>" in line


def test_markup_in_a_method_name_reaches_the_terminal_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "[red]" in printed(one_report([one_row("x[red]y", 0, 0.4)]), monkeypatch)


def test_a_failed_row_shows_its_reason_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = one_report([*TWO_METHODS, FAILED])
    cells = next(cells for cells in Reader(render_page(report, folder=tmp_path)).rows if cells[0] == "lofi_t")
    assert cells[1] == "failed: lofi_t: the loss is not finite at step 7 (seed 0)"
    assert r"| lofi\_t | failed, seed 0: lofi\_t: the loss is not finite at step 7 |" in render_markdown(
        report
    )
    assert "lofi_t, seed 0, failed: lofi_t: the loss is not finite at step 7" in printed(report, monkeypatch)


def test_a_comparison_in_which_all_failed_still_gives_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = one_report([FAILED])
    page = render_page(report, folder=tmp_path)
    assert "No method gave numbers." in page
    assert "<svg" not in page
    assert "No method gave numbers." in printed(report, monkeypatch)
    assert "failed, seed 0" in render_markdown(report)


def test_a_single_seed_is_shown_without_spread(tmp_path: Path) -> None:
    rows = [one_row("frozen", 0, 0.4), one_row("lofi_s", 0, 0.8)]
    read = Reader(render_page(one_report(rows), folder=tmp_path))
    assert next(cells for cells in read.rows if cells[0] == "lofi_s")[1:3] == ["80.0", "+40.0"]
    assert "one seed, so no spread" in read.text
    assert "Dot: one seed" not in read.text


def test_numbers_that_were_not_measured_are_dashes_and_leave_their_figures_out(tmp_path: Path) -> None:
    bare = {"method": "lofi_s", "seed": 0, "average_mAP": 0.8, "mAP": {"0.50": 0.8}, "bytes": None}
    page = render_page({"rows": [bare]}, folder=tmp_path)
    assert ["lofi_s", "80.0", "80.0", "-", "-", "-"] in Reader(page).rows
    assert page.count("<svg") == 1


def test_numbers_of_several_kinds_get_a_column_that_says_so(tmp_path: Path) -> None:
    rows = [one_row("frozen", 0, 0.4), {**one_row("lofi_s", 0, 0.8), "kind": "from a paper"}]
    read = Reader(render_page(one_report(rows), folder=tmp_path))
    assert next(cells for cells in read.rows if cells[0] == "lofi_s")[-1] == "from a paper"
    assert "several kinds (measured, from a paper)" in read.text


TEN_TIOUS = tuple(0.5 + 0.05 * place for place in range(10))


def test_all_tious_are_in_the_page(tmp_path: Path) -> None:
    report = one_report([one_row("frozen", 0, 0.2, tious=TEN_TIOUS)])
    cells = ["method", *(f"{tiou:.2f}" for tiou in TEN_TIOUS)]
    assert cells in Reader(render_page(report, folder=tmp_path)).rows


@pytest.mark.parametrize(("width", "num_tables"), [(60, 3), (80, 2), (100, 2), (200, 1)])
def test_all_tious_are_in_the_terminal_at_every_width(width: int, num_tables: int) -> None:
    names = ("frozen", "lofi_s")
    rows = [one_row(name, seed, 0.5, tious=TEN_TIOUS) for name in names for seed in (0, 1)]
    for row in rows:
        row["mAP"] = {f"{tiou:.2f}": 1.0 - 0.1 * place for place, tiou in enumerate(TEN_TIOUS)}
    out = StringIO()
    console = Console(file=out, width=width)
    found = terminal_tables(summarise([*rows, FAILED]), console=console)
    assert len(found) == num_tables
    for table in found:
        console.print(table)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in out.getvalue()
    headers = " ".join(line for line in lines if "@" in line).split()
    assert [word for word in headers if "@" in word] == [
        f"@{tiou:.2f}".replace("0", "", 1) for tiou in TEN_TIOUS
    ]
    for name in names:
        cells = " ".join(line for line in lines if name in line).split()
        for place in range(10):
            assert f"{100 - 10 * place:.1f}" in cells


def test_few_tious_stay_in_one_table_of_100_columns() -> None:
    rows = [one_row("lofi_s", 0, 0.4, tious=(0.3, 0.4, 0.5, 0.6, 0.7))]
    assert len(terminal_tables(summarise(rows), console=Console(file=StringIO(), width=100))) == 1


def test_piped_table_fits_into_100_columns_without_cutting_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    tious = (0.3, 0.4, 0.5, 0.6, 0.7)
    rows = [one_row(name, seed, 0.4, tious=tious) for name in ("frozen", "lofi_cyclic") for seed in (0, 1)]
    text = printed(one_report(rows), monkeypatch)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "…" not in text
    for number in ("40.0 ± 0.0", "30.0 MiB", "1,234", "2 min 05 s"):
        assert sum(number in line for line in text.splitlines()[2:]) == 2


def test_terminal_table_has_one_line_per_method() -> None:
    (table,) = terminal_tables(summarise([*TWO_METHODS, FAILED]), console=Console(width=100))
    assert table.row_count == 3


def test_other_ranks_print_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert printed(one_report(TWO_METHODS), monkeypatch) == ""


def test_markdown_table_has_as_many_cells_in_every_line() -> None:
    lines = render_markdown(one_report([*TWO_METHODS, FAILED])).splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("| method"))) :][:5]
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert (
        "| 81.0 ± 1.4 | +40.0 ± 0.0 | 97.2 | 64.8 | 30.0 MiB | 1,234 | 2 min 05 s | 2 | measured |"
        in table[3]
    )


def test_loss_curves_appear_for_runs_that_left_a_log(tmp_path: Path) -> None:
    log = tmp_path / "seed_0" / "tac_tiny" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    whole = "".join(json.dumps({"step": step, "loss": 1 / (step + 1)}) + "\n" for step in range(500))
    log.write_text(whole + '{"step": 500, "loss": NaN}\n{"step": 501, "lo')
    page = render_page(one_report(TWO_METHODS), folder=tmp_path)
    assert "shared: tac_tiny" in page
    assert page.count("<svg") == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"report.json does not exist; a report needs"),
        ("{", r"report.json is not valid JSON"),
        ('{"rows": 3}', r'report.json has no list "rows"'),
        ('{"rows": [{"seed": 0}]}', r"row 0 of the comparison has no method, average_mAP"),
    ],
)
def test_a_bad_report_is_refused_with_its_reason(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        write_report(tmp_path)


def test_memory_curves_appear_for_methods_whose_runs_counted_a_step(tmp_path: Path) -> None:
    run = tmp_path / "seed_0" / "lofi_s"
    run.mkdir(parents=True)
    curve = {
        "operations": [0, 5], "live_bytes": {"parameters": [3, 3], "activations": [0, 7]},
        "phases": [{"name": "forward", "start": 0}], "num_operations": 6,
    }  # fmt: skip
    (run / "memory.json").write_text(json.dumps([{"curve": curve, "peak_bytes": 10}]))
    rows = [one_row("frozen", 0, 0.4), {**one_row("lofi_s", 0, 0.8), "memory_run": "seed_0/lofi_s"}]
    page = render_page(one_report(rows), folder=tmp_path)
    assert "Memory over one step" in page
    assert "lofi_s: 10 B" in page
    assert page.count("<svg") == 5
