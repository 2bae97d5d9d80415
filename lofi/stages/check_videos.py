"""Every video of an annotation file found, opened and held against what its annotations say of it.

    check.json   {"annotations", "videos", "frames_read", "version", "counts": {KIND: VIDEOS},
                  "database": {VIDEO: {"subset", "file", "bytes", "modified", "annotated_duration", FACTS of `data.probe`,
                                       "faults": [{"kind", "text"}], "remarks": [{"kind", "text"}]}}}

Faults: missing, broken, shorter. Remarks, which need no repair: longer, variable frame rate, other frame rate, no times.
What is known of a file is kept while its size and time of change stay the same, so a second run opens new files alone, and
those whose reader died or did not answer ("lost"): that may be the machine's doing.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from time import monotonic
from typing import Any

from lofi.data.annotated_video import SEGMENT_TOLERANCE_SEC, AnnotatedVideo
from lofi.data.annotations import Annotations, find_video, read_annotations
from lofi.data.probe import probe_video
from lofi.files import write_json
from lofi.progress import say, track
from lofi.stages.watched_pool import Lost, watched_map

FAULTS = ("missing", "broken", "shorter")
REMARKS = ("longer", "variable frame rate", "other frame rate", "no times")
FRAMES_READ = 5
TIMEOUT_SEC = 120.0
SAVE_EVERY_SEC = 10.0
DURATION_TOLERANCE_SEC = 1.0
DURATION_TOLERANCE = 0.02
"""A video may differ this much from its annotated duration, the larger of the two (seconds, and part of the duration)."""
FPS_TOLERANCE = 0.01
"""Part of the annotated frame rate that the real one may differ by."""

Facts = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How files are opened."""

    workers: int = 4
    """Processes."""
    frames_read: int = FRAMES_READ
    """Frames decoded of each video, spread over it; 0 only opens it."""
    timeout_sec: float = TIMEOUT_SEC
    """A video that takes longer is broken."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.frames_read < 0 or not self.timeout_sec > 0:
            raise ValueError(
                f"workers is {self.workers}, frames {self.frames_read} and timeout {self.timeout_sec:g}; workers must be at "
                "least 1, frames 0 or more, and the timeout positive."
            )


def check_videos(
    annotations: Path,
    *,
    videos: Path,
    output: Path | None = None,
    options: CheckOptions | None = None,
    restart: bool = False,
) -> dict[str, Any]:
    """Check them all; the result is check.json's content, written to `output` now and then and at the end.

    Args:
        annotations: annotation file, as training reads it.
        videos: the folder of videos.
        output: check.json; of an earlier run, it saves opening what has not changed.
        options: how files are opened.
        restart: open every file, whatever `output` holds.

    Raises:
        ValueError: the annotation file is wrong, or `output` is something else than a check.json.
        OSError: the folder does not exist.
    """
    options = options or CheckOptions()
    read = read_annotations(annotations)
    rates = _annotated_rates(read)
    if not videos.is_dir():
        raise FileNotFoundError(f"the folder of videos {videos} does not exist.")
    facts = {name: _facts_of_file(video, videos) for name, video in read.videos.items()}
    earlier = {} if output is None or restart else _earlier(output, options)
    reused = [name for name in facts if _is_same_file(facts[name], earlier.get(name))]
    facts.update({name: {**facts[name], **_probed(earlier[name])} for name in reused})
    if reused:
        say(f"{len(reused)} of {len(facts)} files have not changed since {output} was written")

    about = {
        "annotations": str(annotations),
        "videos": str(videos),
        "frames_read": options.frames_read,
        "version": metadata.version("lofi-sola"),
        "num_videos": len(facts),
    }
    paths = {name: videos / of_one["file"] for name, of_one in facts.items() if not _is_known(of_one)}
    saved = monotonic()
    try:
        for name, found in probe_videos(paths, options=options, total=len(facts)):
            facts[name] |= found
            if output is not None and monotonic() - saved > SAVE_EVERY_SEC:
                write_json(output, about | _judged(read, facts, rates))
                saved = monotonic()
    finally:  # interrupted, the next run goes on from here
        result = about | _judged(read, facts, rates)
        if output is not None:
            write_json(output, result)
    return result


def probe_videos(
    paths: Mapping[str, Path], *, options: CheckOptions, total: int | None = None
) -> Iterator[tuple[str, Facts]]:
    """Yield (video, its facts as of `data.probe`) in the order in which they get done, with progress.

    A video whose reader dies or does not answer has "error", as one that cannot be decoded, and "lost".
    """
    if not paths:
        return
    names = list(paths)
    total = len(names) if total is None else total
    workers = min(options.workers, len(names))
    probe = partial(probe_video, num_frames=options.frames_read)
    with track("videos opened", total=total, done=total - len(names)) as advance:
        found = watched_map(probe, list(paths.values()), workers=workers, timeout_sec=options.timeout_sec)
        for index, facts in found:
            advance(1, note=names[index])
            yield names[index], {"error": facts.reason, "lost": True} if isinstance(facts, Lost) else facts


def num_faulty(document: Mapping[str, Any]) -> int:
    """Videos with a fault."""
    return sum(bool(entry["faults"]) for entry in document["database"].values())


def _is_known(facts: Facts) -> bool:
    """Whether a file has been opened, or cannot be."""
    return "error" in facts or "frames" in facts


def _judged(
    annotations: Annotations, facts: Mapping[str, Facts], rates: Mapping[str, float]
) -> dict[str, Any]:
    """counts and database of check.json, of the files that are known by now."""
    entries = {
        name: _entry(annotations.videos[name], of_one, annotated_fps=rates.get(name))
        for name, of_one in facts.items()
        if _is_known(of_one)
    }
    kinds = Counter(
        kind
        for entry in entries.values()
        for kind in {row["kind"] for row in entry["faults"] + entry["remarks"]}
    )
    return {"counts": {kind: kinds[kind] for kind in (*FAULTS, *REMARKS)}, "database": entries}


def _facts_of_file(video: AnnotatedVideo, folder: Path) -> Facts:
    """Where the file is, how large, and when it changed; or that it is missing."""
    try:
        path = find_video(video, folder)
        status = path.stat()
    except OSError as error:
        return {"file": None, "error": str(error)}
    return {"file": str(path.relative_to(folder)), "bytes": status.st_size, "modified": status.st_mtime_ns}


def _earlier(output: Path, options: CheckOptions) -> Mapping[str, Facts]:
    """The videos of an earlier check.json, where its files were read the same way."""
    if not output.exists():
        return {}
    try:
        document = json.loads(output.read_text(encoding="utf-8"))
        database: Mapping[str, Facts] = document["database"]
        entries_are_ours = all("faults" in entry for entry in database.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        entries_are_ours = False
    if not entries_are_ours:
        raise ValueError(f"{output} is no check.json of an earlier run; name another file, or remove it.")
    same = document["frames_read"] == options.frames_read and document["version"] == metadata.version(
        "lofi-sola"
    )
    return database if same else {}


def _is_same_file(now: Facts, before: Facts | None) -> bool:
    if before is None or before.get("lost") or now["file"] is None:
        return False
    return all(now[key] == before.get(key) for key in ("file", "bytes", "modified"))


def _probed(entry: Facts) -> Facts:
    return {
        key: entry[key]
        for key in ("error", "duration", "fps", "frames", "height", "width", "drift")
        if key in entry
    }


def _annotated_rates(annotations: Annotations) -> dict[str, float]:
    """Video -> "fps" of the annotation file, where it is a number."""
    database = json.loads(annotations.path.read_text(encoding="utf-8-sig"))["database"]
    rates = {name: database[name].get("fps") for name in annotations.videos}
    return {name: rate for name, rate in rates.items() if isinstance(rate, int | float)}


def _entry(video: AnnotatedVideo, facts: Facts, *, annotated_fps: float | None) -> dict[str, Any]:
    faults, remarks = judge(video, facts, annotated_fps=annotated_fps)
    return {
        "subset": video.subset,
        "annotated_duration": video.duration_sec,
        **facts,
        "faults": [{"kind": kind, "text": text} for kind, text in faults],
        "remarks": [{"kind": kind, "text": text} for kind, text in remarks],
    }


def judge(
    video: AnnotatedVideo, facts: Facts, *, annotated_fps: float | None
) -> tuple[Sequence[tuple[str, str]], Sequence[tuple[str, str]]]:
    """Hold a file against its annotations: (faults, remarks), each a kind and a text."""
    if "error" in facts:
        return [("missing" if facts["file"] is None else "broken", facts["error"])], []
    faults, remarks = [], []
    seconds, annotated = facts["duration"], video.duration_sec
    allowed_sec = max(DURATION_TOLERANCE_SEC, DURATION_TOLERANCE * annotated)
    last_sec = max((segment.end_sec for segment in video.segments), default=0.0)
    if facts["drift"] is None:
        remarks.append(("no times", "its frames have no sane times, so its duration is not checked"))
    elif last_sec > seconds + SEGMENT_TOLERANCE_SEC:
        beyond = sum(segment.end_sec > seconds + SEGMENT_TOLERANCE_SEC for segment in video.segments)
        faults.append(
            (
                "shorter",
                f"ends at {seconds:.2f} s, before the end of {beyond} of its instances (the last at {last_sec:.2f} s)",
            )
        )
    elif seconds < annotated - allowed_sec:
        faults.append(("shorter", f"ends at {seconds:.2f} s, annotated to last {annotated:.2f} s"))
    elif seconds > annotated + allowed_sec:
        remarks.append(("longer", f"ends at {seconds:.2f} s, annotated to last {annotated:.2f} s"))
    if facts["drift"] is not None and facts["drift"] * facts["fps"] > 1:
        remarks.append(
            (
                "variable frame rate",
                f"counting frames at {facts['fps']:.3f} per second errs by up to {facts['drift']:.2f} s",
            )
        )
    if annotated_fps is not None and abs(facts["fps"] - annotated_fps) > FPS_TOLERANCE * annotated_fps:
        remarks.append(
            ("other frame rate", f"{facts['fps']:.3f} frames per second, annotated {annotated_fps:.3f}")
        )
    return faults, remarks
