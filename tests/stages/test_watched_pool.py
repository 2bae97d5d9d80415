"""Work in processes that die, hang and raise: each is one item's fault, and no more."""

import os
import signal
import time
from functools import partial

import pytest

from lofi.stages.watched_pool import Lost, watched_map


def work(item: str) -> str:
    match item:
        case "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "leaves":
            os._exit(3)
        case "hangs":
            time.sleep(1000)
        case "raises":
            raise ValueError("too odd")
    return item.upper()


def add(item: int, *, number: int) -> int:
    return item + number


@pytest.mark.timeout(180)
def test_items_that_end_or_stop_their_process_are_reported_and_the_others_done():
    items = ["a", "dies", "b", "hangs", "leaves", "raises", "c"]
    found = dict(watched_map(work, items, workers=2, timeout_sec=2))
    assert found == {
        0: "A",
        1: Lost(reason="the process that read it was ended by signal SIGSEGV."),
        2: "B",
        3: Lost(reason="no answer within 2 s."),
        4: Lost(reason="the process that read it was ended with exit code 3."),
        5: Lost(reason="ValueError: too odd"),
        6: "C",
    }


@pytest.mark.timeout(120)
def test_functions_may_carry_values_and_there_may_be_fewer_items_than_workers():
    assert sorted(watched_map(partial(add, number=10), [1, 2], workers=3, timeout_sec=60)) == [
        (0, 11),
        (1, 12),
    ]
    assert list(watched_map(work, [], workers=3, timeout_sec=60)) == []


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="workers is 0"):
        next(watched_map(work, ["a"], workers=0, timeout_sec=1))
