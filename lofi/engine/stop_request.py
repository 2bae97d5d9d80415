"""SIGTERM, a scheduler's warning, as a question that the loop can ask between two steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def watch_stop_request() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come (a scheduler's warning), without dying of it."""
    requested = False

    def request(number: int, frame: Any) -> None:
        nonlocal requested
        requested = True

    try:
        before = signal.signal(signal.SIGTERM, request)
    except ValueError:  # not the main thread, as in some notebooks
        yield lambda: False
        return
    try:
        yield lambda: requested
    finally:
        signal.signal(signal.SIGTERM, before)
