"""Numbers as they are printed."""

import pytest

from lofi.report.units import bytes_text, count_text, duration_text, percent, points, rate_text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (12.3 * 2**20, "12.3 MiB"),
        (2**30, "1.0 GiB"),
        (3 * 2**40, "3.0 TiB"),
    ],
)
def test_bytes_take_the_largest_unit_that_leaves_one(num_bytes: float | None, text: str) -> None:
    assert bytes_text(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (3.14, "3.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (3725, "1 h 02 min"),
    ],
)
def test_durations_carry_over(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


def test_fractions_are_shown_in_percent() -> None:
    assert percent(0.9124) == "91.2"
    assert percent(0.9124, 0.03) == "91.2 ± 3.0"
    assert percent(None) == "-"


def test_differences_carry_their_sign() -> None:
    assert points(0.485, 0.021) == "+48.5 ± 2.1"
    assert points(-0.013) == "-1.3"


def test_rates_and_counts_have_thousands_apart() -> None:
    assert (rate_text(1234.4), rate_text(12.34), count_text(1234567)) == ("1,234", "12.3", "1,234,567")
