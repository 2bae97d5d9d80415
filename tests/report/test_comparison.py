"""Rows -> summaries: means, spreads, paired gains, failures, and what a row must hold."""

from statistics import stdev
from typing import Any

import pytest

from lofi.report.comparison import (
    headline,
    notes,
    shown_tious,
    summarise,
    summarise_stages,
    tiou_keys,
)


def row(method: str, seed: int, average: float | None, **more: Any) -> dict[str, Any]:
    return {"method": method, "seed": seed, "average_mAP": average, "mAP": {}, **more}


def test_a_method_is_the_mean_of_its_seeds() -> None:
    rows = [
        row("frozen", 0, 0.4, mAP={"0.50": 0.6, "0.70": 0.2}, peak_bytes=100, snippets_per_sec=10, seconds=3),
        row("frozen", 1, 0.5, mAP={"0.50": 0.7, "0.70": 0.3}, peak_bytes=300, snippets_per_sec=40, seconds=5),
    ]
    (summary,) = summarise(rows)
    assert summary.average_mAP == pytest.approx(0.45)
    assert summary.deviation == pytest.approx(stdev([0.4, 0.5]))
    assert summary.mAP == pytest.approx({"0.50": 0.65, "0.70": 0.25})
    assert summary.mAP_range["0.70"] == (0.2, 0.3)
    assert (summary.peak_bytes, summary.snippets_per_sec, summary.seconds) == (200, 25, 4)


def test_methods_stand_in_the_order_of_first_appearance() -> None:
    rows = [row("z", 0, 0.1), row("a", 0, 0.2), row("z", 1, 0.3), row("m", 0, 0.4)]
    assert [summary.method for summary in summarise(rows)] == ["z", "a", "m"]


def test_one_seed_has_no_spread() -> None:
    first, second = summarise([row("frozen", 0, 0.4), row("lofi_s", 0, 0.9)])
    assert first.deviation is None
    assert second.gain is not None
    assert second.gain.mean == pytest.approx(0.5)
    assert second.gain.deviation is None


def test_gain_is_paired_by_seed() -> None:
    rows = [row("frozen", 0, 0.2), row("lofi_s", 0, 0.6), row("frozen", 1, 0.5), row("lofi_s", 1, 0.9)]
    rows += [row("lofi_s", 2, 0.1)]
    gain = summarise(rows)[1].gain
    assert gain is not None
    assert gain.num_seeds == 2, "seed 2 has no partner"
    assert gain.mean == pytest.approx(0.4)
    assert gain.deviation == pytest.approx(0.0, abs=1e-12)


def test_first_method_has_no_gain() -> None:
    assert summarise([row("frozen", 0, 0.2), row("lofi_s", 0, 0.6)])[0].gain is None


def test_gain_is_absent_where_the_first_method_failed() -> None:
    rows = [{"method": "frozen", "seed": 0, "error": "no video"}, row("lofi_s", 0, 0.6)]
    first, second = summarise(rows)
    assert first.average_mAP is None
    assert second.gain is None
    assert headline([first, second]) == "lofi_s: 60.0 average mAP"


def test_a_failed_seed_is_listed_and_not_averaged() -> None:
    rows = [row("lofi_s", 0, 0.6), {"method": "lofi_s", "seed": 3, "error": "loss not finite"}]
    (summary,) = summarise(rows)
    assert summary.average_mAP == pytest.approx(0.6)
    assert [(failure.seed, failure.reason) for failure in summary.failures] == [(3, "loss not finite")]


def test_a_chain_without_evaluation_counts_as_failed() -> None:
    (summary,) = summarise([row("lofi_s", 0, None)])
    assert "was not evaluated" in summary.failures[0].reason


def test_bytes_by_kind_are_averaged_over_the_seeds_that_have_them() -> None:
    rows = [
        row("lofi_s", 0, 0.6, bytes={"parameters": 2, "activations": 10}),
        row("lofi_s", 1, 0.6, bytes=None),
        row("lofi_s", 2, 0.6, bytes={"parameters": 4, "activations": 30}),
    ]
    assert summarise(rows)[0].bytes_by_kind == {"parameters": 3, "activations": 20}


def test_headline_names_the_best_method_and_its_distance_to_the_first() -> None:
    rows = [row("frozen", 0, 0.4), row("lofi_s", 0, 0.9), row("lofi_t", 0, 0.8)]
    assert headline(summarise(rows)) == "lofi_s: 90.0 average mAP, 50.0 points above frozen"


def test_headline_admits_a_difference_within_the_spread() -> None:
    rows = [row("frozen", 0, 0.4), row("lofi_s", 0, 0.3), row("frozen", 1, 0.4), row("lofi_s", 1, 0.6)]
    assert headline(summarise(rows)).endswith("5.0 points above frozen, within the spread of the seeds")


def test_headline_claims_nothing_where_the_first_method_is_best() -> None:
    rows = [row("frozen", 0, 0.9), row("lofi_s", 0, 0.3)]
    assert headline(summarise(rows)) == "frozen: 90.0 average mAP, no other method is above it"


def test_headline_without_numbers() -> None:
    assert headline(summarise([{"method": "a", "seed": 0, "error": "x"}])) == "No method gave numbers."
    assert headline(summarise([])) == "No method gave numbers."


def test_a_shared_stage_stands_once_for_all_methods() -> None:
    def stages(method: str, seed: int, seconds: float) -> list[dict[str, Any]]:
        shared = {
            "name": "tac",
            "kind": "train",
            "run": f"seed_{seed}/tac",
            "shared": True,
            "seconds": seconds,
        }
        own = {
            "name": method,
            "kind": "train",
            "run": f"seed_{seed}/{method}",
            "shared": False,
            "seconds": 1.0,
        }
        return [
            {**shared, "peak_bytes": None, "skipped_videos": 2},
            {**own, "peak_bytes": 7, "skipped_videos": 0},
        ]

    rows = [
        row(method, seed, 0.5, stages=stages(method, seed, 10.0 + seed))
        for seed in (0, 1)
        for method in ("frozen", "lofi_s")
    ]
    tac, frozen, lofi = summarise_stages(rows)
    assert (tac.method, tac.num_runs, tac.seconds, tac.peak_bytes) == (None, 2, 10.5, None)
    assert tac.skipped_videos == 4, "two runs, not four"
    assert (frozen.method, lofi.method, lofi.peak_bytes) == ("frozen", "lofi_s", 7)
    assert lofi.runs == ("seed_0/lofi_s", "seed_1/lofi_s")
    assert any("a stage that methods share" in note for note in notes(rows))


def test_shared_stages_of_one_recipe_stay_apart_by_what_came_before_them() -> None:
    def stages(*names: str) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "kind": "train",
                "run": "seed_0/" + "__".join(names[: index + 1]),
                "shared": name != "head",
                "seconds": 10.0 * (index + 1),
            }
            for index, name in enumerate(names)
        ]

    rows = [
        row(method, 0, 0.5, stages=stages(*names, "head"))
        for method, names in {
            "a": ("tac", "extract"),
            "b": ("tac", "extract"),
            "c": ("tac", "lofi", "extract"),
            "d": ("tac", "lofi", "extract"),
        }.items()
    ]
    assert [(each.method, each.name, each.seconds, each.num_runs) for each in summarise_stages(rows)] == [
        (None, "tac", 10.0, 1),
        (None, "tac -> extract", 20.0, 1),
        (None, "tac -> lofi", 20.0, 1),
        (None, "tac -> lofi -> extract", 30.0, 1),
        ("a", "head", 30.0, 1),
        ("b", "head", 30.0, 1),
        ("c", "head", 40.0, 1),
        ("d", "head", 40.0, 1),
    ]


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        (["0.50"], ["0.50"]),
        (["0.30", "0.40", "0.50", "0.60", "0.70"], ["0.30", "0.40", "0.50", "0.60", "0.70"]),
        ([f"{0.5 + 0.05 * place:.2f}" for place in range(10)], ["0.50", "0.75", "0.95"]),
        (["0.10", "0.20", "0.30", "0.40", "0.50", "0.60", "0.70"], ["0.10", "0.40", "0.70"]),
    ],
)
def test_narrow_tables_show_at_most_five_tious(keys: list[str], shown: list[str]) -> None:
    assert shown_tious(keys) == shown


def test_tious_are_sorted_as_numbers() -> None:
    assert tiou_keys(summarise([row("a", 0, 0.1, mAP={"0.95": 0.1, "0.5": 0.3})])) == ["0.5", "0.95"]


def test_a_row_without_its_keys_is_refused() -> None:
    with pytest.raises(ValueError, match=r"row 1 of the comparison has no seed, average_mAP; a row needs"):
        summarise([row("a", 0, 0.1), {"method": "b"}])


def test_a_repeated_row_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 of the comparison repeats method 'a' with seed 0"):
        summarise([row("a", 0, 0.1), row("a", 0, 0.2)])
