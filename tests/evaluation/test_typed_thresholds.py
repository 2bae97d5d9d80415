"""tIoU thresholds as they are typed."""

import pytest

from lofi.evaluation.mean_average_precision import parse_tious


@pytest.mark.parametrize(
    ("text", "tious"),
    [
        ("0.3:0.7:0.1", [0.3, 0.4, 0.5, 0.6, 0.7]),
        ("0.5:0.95:0.05", [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]),
        ("0.5:0.6:0.25", [0.5]),
        ("0.5,0.75", [0.5, 0.75]),
        ("0.5", [0.5]),
    ],
)
def test_thresholds_are_parsed_to_the_digits_that_were_typed(text, tious):
    assert parse_tious(text) == tious


@pytest.mark.parametrize("text", ["", "half", "0.5,", "nan,0.5", "0.3:x:0.1"])
def test_text_that_is_no_numbers_is_refused_with_both_forms(text):
    with pytest.raises(ValueError, match=r"write first:last:step or a list, such as 0\.3:0\.7:0\.1"):
        parse_tious(text)


@pytest.mark.parametrize("text", ["0.3:0.7", "0.7:0.3:0.1", "0.3:0.7:0", "0.3:0.7:-0.1", "0.1:0.2:0.3:0.4"])
def test_a_range_that_gives_nothing_is_refused(text):
    with pytest.raises(ValueError, match="a range is first:last:step"):
        parse_tious(text)
