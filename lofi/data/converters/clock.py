"""Times as people and datasets write them: 12.5, 1:02.5, 01:02:03.45."""

import math
import re

CLOCK = re.compile(r"(?:(\d+):)?(\d{1,3}):(\d{1,2}(?:\.\d*)?)")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def seconds_of_clock(text: str) -> float:
    """Seconds from `hh:mm:ss(.ms)`, `mm:ss(.ms)` or plain seconds. Hours may go beyond 23.

    Raises:
        ValueError: it is something else, or minutes or seconds are 60 or more where a larger unit stands before them.
    """
    text = text.strip()
    if NUMBER.fullmatch(text):
        seconds = float(text)
        if math.isfinite(seconds):
            return seconds
    found = CLOCK.fullmatch(text)
    if found is None:
        hint = "; write 13:05:10 for 1:05:10 PM" if text[-2:].upper() in ("AM", "PM") else ""
        raise ValueError(f'the time "{text}" is neither seconds nor hh:mm:ss nor mm:ss{hint}.')
    hours, minutes, seconds = int(found[1] or 0), int(found[2]), float(found[3])
    if seconds >= 60 or (found[1] is not None and minutes >= 60):
        raise ValueError(f'the time "{text}" has 60 or more minutes or seconds.')
    return hours * 3600 + minutes * 60 + seconds
