"""The pages of a prediction: one of each video, with its timeline and the video itself, and one that lists them.

A page needs nothing but the video's file: no network, no server. Without JavaScript it still shows everything; with it, a
click on a detection moves the video there. Where the browser cannot play the video, the pictures and times stay.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lofi.report.units import bytes_text, count_text, duration_text

FOLDER = Path(__file__).parent
NUM_COLOURS = 7
"""method-1 to method-7 of the style sheet."""
LEAST_SHOWN = 0.1
"""The score from which a page shows detections at first, where any reaches it; its slider shows the others."""
TICK_STEPS_SEC = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
MOST_TICKS = 8
MOST_ROWS = 4
"""Of a lane: detections that overlap lie under one another, the best on top; further ones share the last row."""


def page_url(video: str, *, quoted: bool = True) -> str:
    """Where a video's page lies below OUTPUT; quoted: as a link."""
    return f"pages/{quote(video, safe='') if quoted else video}.html"


def stamp_of(page: Path) -> str | None:
    """The stamp that a page was rendered with; None where there is no such page."""
    marker = '<meta name="stamp" content="'
    try:
        with page.open(encoding="utf-8") as stream:
            head = stream.read(1000)
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return head.split(marker, 1)[1].split('"', 1)[0] if marker in head else None


def render_prediction_page(content: Mapping[str, Any], *, stamp: str) -> str:
    """One video's page.

    Args:
        content: a record of `stages.predict` (video, file, duration_sec, fps, height, width, detections best first, num_found),
            with run, classes, sources (URLs or relative paths of the video, the first that plays counts), truth (segments of
            the annotations or None), pictures (data URIs of the first detections) and problem (why there are none, or None).
        stamp: any text; `stamp_of` finds it.
    """
    duration_sec = float(content["duration_sec"])
    rows = [
        {
            "index": index,
            "label": row["label"],
            "score": row["score"],
            "segment": row["segment"],
            **_place(*row["segment"], duration_sec=duration_sec),
            "colour": _colour(row["label"], content["classes"]),
            "picture": Markup(content["pictures"][index]) if index < len(content["pictures"]) else None,
        }
        for index, row in enumerate(content["detections"])
    ]
    best = max((row["score"] for row in rows), default=0.0)
    least_shown = LEAST_SHOWN if best >= LEAST_SHOWN else best / 2
    lanes = _lanes(
        rows,
        content["truth"],
        classes=content["classes"],
        duration_sec=duration_sec,
        least_shown=least_shown,
    )
    sources = [source if source.startswith("file:") else quote(source) for source in content["sources"]]
    return _environment().get_template("prediction_page.html.j2").render(
        stamp=stamp,
        content=content,
        rows=rows,
        lanes=lanes,
        best=best,
        least_shown=least_shown,
        num_shown=sum(row["score"] >= least_shown for row in rows),
        ticks=_ticks(duration_sec),
        sources=sources,
        made=[
            ("run", content["run"]),
            ("file", content["file"]),
            ("duration", duration_text(duration_sec)),
            ("frames", f"{content['width']} x {content['height']} at {content['fps']:.2f} per second"),
            ("encoded", f"{count_text(content['num_snippets'])} snippets in {content['num_windows']} window{'' if content['num_windows'] == 1 else 's'}"),
            ("took", f"{duration_text(content['seconds'])}, {bytes_text(content['feature_bytes'])} of features"),
        ],
    )  # fmt: skip


def render_prediction_index(
    records: Sequence[Mapping[str, Any]],
    *,
    failures: Mapping[str, str],
    run: str,
    classes: Sequence[str],
    with_page: set[str],
) -> str:
    """The page that lists the videos, with those that failed and why."""
    videos = [
        {
            "name": record["video"],
            "url": page_url(record["video"]) if record["video"] in with_page else None,
            "duration": clock_text(record["duration_sec"]),
            "count": len(record["detections"]),
            "best": record["detections"][0] if record["detections"] else None,
            "strip": [
                {
                    **_place(*row["segment"], duration_sec=record["duration_sec"]),
                    "colour": _colour(row["label"], classes),
                    "opacity": _opacity(row["score"], best=record["detections"][0]["score"]),
                }
                for row, place in zip(record["detections"], _rows(record["detections"]), strict=True)
                if place == 0
            ],
        }
        for record in records
    ]
    found = sorted({row["label"] for record in records for row in record["detections"]})
    return _environment().get_template("prediction_index.html.j2").render(
        run=run,
        videos=videos,
        failures=failures,
        legend=[(label, _colour(label, classes)) for label in found],
    )  # fmt: skip


def clock_text(seconds: float, *, tenths: bool = False) -> str:
    """1:02:03, 0:07; with tenths 0:07.5."""
    units = round(seconds * 10) if tenths else round(seconds) * 10
    whole, tenth = divmod(units, 10)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    text = f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"
    return f"{text}.{tenth}" if tenths else text


def _lanes(
    rows: Sequence[Mapping[str, Any]],
    truth: Sequence[Mapping[str, Any]] | None,
    *,
    classes: Sequence[str],
    duration_sec: float,
    least_shown: float,
) -> list[dict[str, Any]]:
    """One of each class that was found or annotated, the best score first."""
    annotated = truth or []
    lanes = []
    labels = dict.fromkeys([*(row["label"] for row in rows), *(segment["label"] for segment in annotated)])
    for label in labels:
        of_label = [row for row in rows if row["label"] == label]
        found = [{**row, "row": place} for row, place in zip(of_label, _rows(of_label), strict=True)]
        shown = [row["row"] for row in found if row["score"] >= least_shown]
        lanes.append(
            {
                "label": label,
                "colour": _colour(label, classes),
                "found": found[::-1],  # the best last, so that it lies on top
                "num_rows": 1 + max(shown, default=0),
                "truth": [
                    _place(segment["start_sec"], segment["end_sec"], duration_sec=duration_sec)
                    for segment in annotated
                    if segment["label"] == label
                ],
            }
        )
    return lanes


def _rows(detections: Sequence[Mapping[str, Any]]) -> list[int]:
    """Best first, each in the first row where it overlaps none before it, at most the last."""
    rows: list[list[tuple[float, float]]] = [[] for _ in range(MOST_ROWS)]
    places = []
    for detection in detections:
        start, end = detection["segment"]
        free = (
            index
            for index, row in enumerate(rows)
            if all(end <= other_start or start >= other_end for other_start, other_end in row)
        )
        place = next(free, MOST_ROWS - 1)
        rows[place].append((start, end))
        places.append(place)
    return places


def _place(start_sec: float, end_sec: float, *, duration_sec: float) -> dict[str, Any]:
    """Where a segment lies, in percent of the timeline, clipped to it, and its times as text."""
    left, right = (100 * min(max(time, 0.0), duration_sec) / duration_sec for time in (start_sec, end_sec))
    return {
        "start": start_sec,
        "end": end_sec,
        "left": f"{min(left, right):.4f}",
        "width": f"{abs(right - left):.4f}",
        "times": f"{clock_text(start_sec, tenths=True)} to {clock_text(end_sec, tenths=True)}",
    }


def _ticks(duration_sec: float) -> list[tuple[str, str]]:
    """(left in percent, text) of the marks on the axis."""
    step = next((step for step in TICK_STEPS_SEC if duration_sec / step <= MOST_TICKS), TICK_STEPS_SEC[-1])
    times = [index * step for index in range(int(duration_sec / step) + 1)]
    return [(f"{100 * time / duration_sec:.4f}", clock_text(time, tenths=step < 1)) for time in times]


def _colour(label: str, classes: Sequence[str]) -> str:
    """A class has the same colour on every page of a run."""
    index = list(classes).index(label) if label in classes else len(classes)
    return f"var(--method-{1 + index % NUM_COLOURS})"


def _opacity(score: float, *, best: float) -> str:
    """A lower score is paler; the best of its video is solid."""
    return f"{0.15 + 0.85 * score / best if best > 0 else 1:.3f}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(opacity=_opacity)
    environment.globals.update(
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        own_style=Markup((FOLDER / "prediction_page.css").read_text(encoding="utf-8")),
        script=Markup((FOLDER / "prediction_page.js").read_text(encoding="utf-8")),
    )
    return environment
