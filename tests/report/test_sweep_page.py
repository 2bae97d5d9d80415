"""sweep.json -> headline, findings, tables and page, as their readers see them."""

import json
from io import StringIO
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from rich.console import Console
from test_report_page import Reader

from lofi.report import sweep_page
from lofi.report.knobs import LABELLED_SHARE
from lofi.report.sweep import cost_point, failure_lines, findings, headline, sweep_points
from lofi.report.sweep_page import (
    print_sweep,
    render_sweep_markdown,
    render_sweep_page,
    write_sweep_report,
)

MIB = 2**20
SEEDS = (0, 3)
AVERAGES = {
    0.0: {"frozen": 0.50, "sola": 0.49, "lofi_cyclic": 0.53},
    0.8: {"frozen": 0.20, "sola": 0.21, "lofi_cyclic": 0.72},
    0.95: {"frozen": 0.30, "sola": 0.31, "lofi_cyclic": 0.61},
}


def one_row(value: float, method: str, seed: int, average: float, **more: Any) -> dict[str, Any]:
    numbers = {
        "average_mAP": average,
        "mAP": {"0.50": average, "0.75": average / 2},
        "peak_bytes": 30 * MIB,
        "snippets_per_sec": 1234.0,
        "seconds": 125.0,
        "trained_parameters": 54321,
    }
    return {
        "scene_correlation": value,
        "method": method,
        "seed": seed,
        "kind": "measured",
        **numbers,
        **more,
    }


def one_sweep(averages: dict[float, dict[str, float]] = AVERAGES, *, seeds: Any = SEEDS) -> dict[str, Any]:
    """Seed 3 is 0.02 above seed 0."""
    rows = [
        one_row(value, method, seed, average + 0.02 * (seed > 0))
        for value, here in averages.items()
        for seed in seeds
        for method, average in here.items()
    ]
    return {
        "title": "sweep",
        "environment": {"device": "cpu", "machine": "Linux", "packages": {"torch": "2.15.0"}},
        "benchmark": {"videos": 80},
        "scene_correlations": list(averages),
        "rows": rows,
    }


def failed(sweep: dict[str, Any], *, value: float, method: str, seeds: Any = SEEDS) -> dict[str, Any]:
    rows = [
        {"scene_correlation": value, "method": method, "seed": row["seed"], "error": f"{method}: no video"}
        if (row["scene_correlation"], row["method"]) == (value, method) and row["seed"] in seeds
        else row
        for row in sweep["rows"]
    ]
    return {**sweep, "rows": rows}


def test_the_headline_names_the_value_where_the_first_method_is_farthest_behind() -> None:
    assert headline(sweep_points(one_sweep()["rows"])) == (
        "frozen is farthest behind at scene correlation 0.8: 52.0 points of average mAP below lofi_cyclic "
        "(21.0 ± 1.4 against 73.0 ± 1.4)"
    )


def test_findings_give_every_method_there_the_narrowest_gap_and_the_first_method_itself() -> None:
    assert findings(sweep_points(one_sweep()["rows"])) == [
        "Points over frozen at scene correlation 0.8: lofi_cyclic +52.0 ± 0.0; sola +1.0 ± 0.0.",
        "The best other method is nearest to frozen at 0: lofi_cyclic +3.0 ± 0.0.",
        "frozen itself has its highest average mAP, 51.0 ± 1.4, at 0 and its lowest, 21.0 ± 1.4, at 0.8.",
    ]


def test_a_gap_within_the_spread_of_the_seeds_is_said_to_be_so() -> None:
    rows = [
        one_row(0.5, method, seed, average)
        for method, per_seed in {"frozen": (0.4, 0.6), "sola": (0.5, 0.52)}.items()
        for seed, average in enumerate(per_seed)
    ]
    rows[3]["average_mAP"] = 0.56
    assert headline(sweep_points(rows)).endswith(", within the spread of the seeds")


@pytest.mark.parametrize(
    ("averages", "expected"),
    [
        (
            {0.0: {"frozen": 0.5, "sola": 0.4}, 1.0: {"frozen": 0.3, "sola": 0.2}},
            "frozen: no other method is above it at scene correlation 0 and 1",
        ),
        ({0.0: {"frozen": 0.5}}, "frozen: no other method gave numbers to set beside it"),
        (
            {0.8: {"frozen": 0.5, "sola": 0.6}},
            "frozen at scene correlation 0.8: 10.0 points of average mAP below sola (50.0 against 60.0)",
        ),
        ({}, "No method gave numbers."),
    ],
)
def test_the_headline_claims_no_more_than_the_numbers_give(averages: Any, expected: str) -> None:
    report = one_sweep(averages, seeds=(0,))
    assert headline(sweep_points(report["rows"])) == expected
    assert expected.partition(": ")[2].split(" (")[0] in Reader(render_sweep_page(report)).text


def test_a_sweep_without_numbers_says_so_and_lists_why() -> None:
    report = failed(one_sweep({0.5: {"frozen": 0.2}}), value=0.5, method="frozen")
    read = Reader(render_sweep_page(report))
    assert "No method gave numbers." in read.text
    assert "frozen at 0.5, seed 3, failed: frozen: no video" in read.text
    assert "svg" not in read.tags


def test_a_value_where_the_first_method_failed_gives_no_gap() -> None:
    report = failed(one_sweep(), value=0.8, method="frozen")
    assert "farthest behind at scene correlation 0.95" in headline(sweep_points(report["rows"]))


def test_costs_are_of_the_greatest_value_at_which_most_methods_gave_numbers() -> None:
    report = one_sweep()
    assert cost_point(sweep_points(report["rows"])).value == 0.95  # type: ignore[union-attr]
    report = failed(report, value=0.95, method="sola")
    assert cost_point(sweep_points(report["rows"])).value == 0.8  # type: ignore[union-attr]


def test_page_shows_a_row_per_method_and_a_column_per_value() -> None:
    read = Reader(render_sweep_page(one_sweep()))
    assert ["method", "0", "0.8", "0.95"] in read.rows
    assert ["sola", "50.0 ± 1.4", "22.0 ± 1.4", "32.0 ± 1.4"] in read.rows
    assert ["sola", "30.0 MiB", "1,234", "2 min 05 s", "54,321"] in read.rows
    assert "Memory, speed and time at scene correlation 0.95" in read.text
    assert "Every number on this page is measured, on cpu on Linux." in read.text


def test_page_stands_alone() -> None:
    page = render_sweep_page(one_sweep())
    read = Reader(page)
    assert not [link for link in read.links if not link.startswith("#")]
    assert "script" not in read.tags
    assert page.count("<svg") == 2
    assert len(read.ids) == len(set(read.ids))
    assert "#0102" not in page, "a stand-in colour is left"


@pytest.mark.parametrize("seeds", [(0,), SEEDS])
def test_chains_that_failed_are_listed_with_their_reason(seeds: Any) -> None:
    report = failed(one_sweep(), value=0.8, method="lofi_cyclic", seeds=seeds)
    lines = failure_lines(sweep_points(report["rows"]))
    assert lines == [
        f"lofi_cyclic at 0.8, seed {seed}, failed: lofi_cyclic: no video" for seed in sorted(seeds)
    ]
    read = Reader(render_sweep_page(report))
    (cells,) = [row for row in read.rows if row[0] == "lofi_cyclic" and len(row) == 4]
    assert cells[2] == ("74.0" if len(seeds) == 1 else "failed")
    markdown = render_sweep_markdown(report).replace("\\_", "_")
    assert all(line in read.text and line in markdown for line in lines)


def test_names_are_shown_as_they_are_written() -> None:
    odd = 'a|<script>alert("x")</script> $x_1$ [red]&'
    report = one_sweep({0.5: {"frozen": 0.2, odd: 0.4}})
    read = Reader(render_sweep_page(report))
    assert odd in [row[0] for row in read.rows]
    assert "script" not in read.tags
    assert "\\|\\<script\\>" in render_sweep_markdown(report)


def test_the_terminal_shows_headline_and_table(monkeypatch: pytest.MonkeyPatch) -> None:
    out = StringIO()
    monkeypatch.setattr(sweep_page, "console", Console(file=out))
    print_sweep(one_sweep())
    text = out.getvalue()
    assert "frozen is farthest behind at scene correlation 0.8" in text
    assert text.index("51.0 ± 1.4") < text.index("73.0 ± 1.4", text.index("lofi_cyclic  "))


def test_write_sweep_report_leaves_page_tables_and_a_figure_with_names(tmp_path: Any) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps(one_sweep()))
    written = [tmp_path / name for name in ("sweep.md", "sweep.html", "sweep.svg")]
    assert write_sweep_report(tmp_path) == written
    figure = fromstring((tmp_path / "sweep.svg").read_text())
    assert {"frozen", "lofi_cyclic"} <= {
        text.text for text in figure.iter("{http://www.w3.org/2000/svg}text")
    }
    without = [
        {key: row[key] for key in ("scene_correlation", "method", "seed")} for row in one_sweep()["rows"]
    ]
    (tmp_path / "sweep.json").write_text(
        json.dumps({**one_sweep(), "rows": [row | {"error": "no video"} for row in without]})
    )
    assert write_sweep_report(tmp_path) == written[:2]
    assert not written[2].exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda rows: [{**rows[0], "scene_correlation": None}],
            "row 0 of the sweep has scene_correlation None",
        ),
        (
            lambda rows: [*rows[:-1], {**rows[-1], "scene_correlation": 1.0}],
            r"no row of frozen, sola at scene correlation 1; every method needs one",
        ),
    ],
)
def test_rows_that_are_not_whole_are_refused(change: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        sweep_points(change(one_sweep()["rows"]))


SHARES = {
    0.1: {"tac": 0.10, "pal_lofi": 0.30},
    0.25: {"tac": 0.20, "pal_lofi": 0.60},
    1.0: {"tac": 0.30, "pal_lofi": 0.65},
}


def probe_of(number: float) -> dict[str, Any]:
    return {
        "class": {"balanced_accuracy": number, "chance": 0.25},
        "region": {"balanced_accuracy": number / 2},
        "temporal_sensitivity": {"adjacent": 0.9, "distant": 0.8},
    }


def shares_report() -> dict[str, Any]:
    report = one_sweep(SHARES)
    rows = [
        {**row, "labelled_share": row["scene_correlation"], "probe": probe_of(0.9 + 0.02 * (row["seed"] > 0))}
        for row in report["rows"]
    ]
    rows[-1]["probe"] = None
    return {**report, "knob": "labelled_share", "labelled_shares": list(SHARES), "rows": rows}


def test_a_sweep_over_labels_speaks_of_labels() -> None:
    report = shares_report()
    points = sweep_points(report["rows"], knob=LABELLED_SHARE)
    assert headline(points) == (
        "tac is farthest behind with 25 % of the labels: 40.0 points of average mAP below pal_lofi "
        "(21.0 ± 1.4 against 61.0 ± 1.4)"
    )
    page = render_sweep_page(report)
    read = Reader(page)
    assert ["method", "10 %", "25 %", "100 %"] in read.rows
    assert ["pal_lofi", "31.0 ± 1.4", "61.0 ± 1.4", "66.0 ± 1.4"] in read.rows
    assert "scene correlation" not in read.text.lower()
    assert "sample standard deviation" in read.text
    assert len(read.ids) == len(set(read.ids))
    markdown = render_sweep_markdown(report).replace("\\_", "_")
    assert "| pal_lofi | 31.0 ± 1.4 | 61.0 ± 1.4 | 66.0 ± 1.4 |" in markdown


def test_probes_are_means_over_the_seeds_that_have_them() -> None:
    read = Reader(render_sweep_page(shares_report()))
    assert "What the features hold with 10 % of the labels" in read.text
    assert ["tac", "11.0 ± 1.4", "91.0 ± 1.4", "25.0", "45.5 ± 0.7", "0.900", "0.800"] in read.rows
    assert ["pal_lofi", "66.0 ± 1.4", "90.0", "25.0", "45.0", "0.900", "0.800"] in read.rows
