"""Small files beside the annotations: videos to leave out, and THUMOS14's Ambiguous stretches."""

import json
import math
from pathlib import Path


def read_video_names(path: str | Path) -> tuple[str, ...]:
    """Names of videos: a JSON list of strings, or text with one name per line. OpenTAD's blocked.json and
    missing_files.txt are such files.

    Raises:
        ValueError: the file cannot be read or holds something else.
    """
    text = _read_text(path)
    if text.lstrip().startswith(("[", "{")):
        try:
            names = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}: not JSON: {error.msg}, line {error.lineno} column {error.colno}."
            ) from None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path}: must be a list of names of videos, as JSON or one per line.")
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{path}: names no video.")
    return tuple(dict.fromkeys(names))


def read_ambiguous(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    """Video -> start and end in seconds, from lines `VIDEO START END`: THUMOS14's Ambiguous_test.txt.

    Raises:
        ValueError: the file cannot be read or holds nothing, or a line is something else: names file and line.
    """
    stretches: dict[str, list[tuple[float, float]]] = {}
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        video, *times = line.split()
        try:
            seconds = [float(time) for time in times]
        except ValueError:
            seconds = []
        if len(seconds) != 2 or not all(math.isfinite(time) for time in seconds) or seconds[1] < seconds[0]:
            raise ValueError(
                f"{path}, line {number} is {line.strip()[:80]!r}; it must be VIDEO START END, in seconds."
            )
        stretches.setdefault(video, []).append((seconds[0], seconds[1]))
    if not stretches:
        raise ValueError(f"{path}: holds no line VIDEO START END.")
    return stretches


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start}).") from None
