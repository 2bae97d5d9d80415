"""Predict any videos with a run: detections as JSON and CSV, and a page for each video.

    OUTPUT/predictions.json     ActivityNet's form, every video of this folder
    OUTPUT/predictions.csv      video,start,end,label,score
    OUTPUT/index.html           the videos, each with its page
    OUTPUT/pages/VIDEO.html     timeline, pictures, the video itself
    OUTPUT/records/VIDEO.json   what was found in one video, all of it: a video whose record is right is not predicted again
    OUTPUT/settings.json        what decides the detections: weights, encoder, precision

`min_score` and `top_k` choose what is written of what was found, so that changing them predicts nothing anew.
"""

import csv
import hashlib
import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from lofi.config.objective_kinds import Parts
from lofi.config.objectives import OWN_PARTS
from lofi.config.recipe import Recipe
from lofi.data.annotations import Annotations, read_annotations
from lofi.data.decode import DecodeError, open_video
from lofi.data.reading_process import ReadingProcess
from lofi.data.video_info import VideoInfo
from lofi.engine.run_directory import package_versions
from lofi.evaluation.predictions import write_predictions
from lofi.files import write_json, write_text
from lofi.progress import say
from lofi.segments import Detection
from lofi.stages.evaluate import recipe_precision
from lofi.stages.predict_files import VideoFile, find_videos
from lofi.stages.predict_pages import PageOptions, write_index, write_page
from lofi.stages.predict_run import VideoDetector, open_run
from lofi.stages.predict_video import predict_video

SETTINGS_NAME = "settings.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What launch/predict.py can be told."""

    run: Path
    """A run directory of objective tal."""
    videos: Sequence[str]
    """Files, folders and patterns."""
    output: Path | None = None
    """None: RUN/predictions."""
    annotations: Path | None = None
    """Ground truth for the pages. A video that it has is predicted under its name and duration, as evaluation does it."""
    min_score: float = 0.0
    """Detections below are not written."""
    top_k: int | None = None
    """At most so many of a video are written, the best; None: all that the recipe keeps."""
    encoder: str | None = None
    """See `predict_run.open_run`, as for the next three."""
    adapter: str | None = None
    encoder_batch: int | None = None
    weights: Literal["newest", "best"] | None = None
    device: str | None = None
    """None: the GPU where there is one."""
    workers: int | None = None
    """Processes that decode; None: the recipe's data.workers."""
    pages: bool = True
    copy_videos: bool = False
    """Copy the videos beside their pages, so that OUTPUT can be moved to another machine."""
    restart: bool = False
    """Delete what OUTPUT holds first."""
    parts: Parts = OWN_PARTS
    """What the run's recipe can name."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a prediction left behind."""

    output: Path
    predictions: dict[str, list[Detection]]
    """As written, of every video in OUTPUT."""
    num_new: int
    """Videos predicted by this call; the others were there."""
    failures: dict[str, str] = field(default_factory=dict)
    """Video -> reason, of those of this call that could not be predicted."""


def run_prediction(options: PredictOptions) -> Predicted:
    """Predict every video that has no record yet, and write what OUTPUT holds.

    Raises:
        ValueError: before any work: an option, a run, an encoder or an OUTPUT that cannot be used; no video.
    """
    annotations = None if options.annotations is None else _read_truth(options.annotations)
    files = find_videos(options.videos, annotations=annotations)
    if annotations is not None and not any(file.annotated for file in files):
        say(f"none of the {len(files)} videos is in {options.annotations}: no ground truth on the pages")
    detector = open_run(
        options.run,
        device=_device(options.device),
        parts=options.parts,
        weights=options.weights,
        encoder=options.encoder,
        adapter=options.adapter,
        chunk=options.encoder_batch,
    )
    _check_shown(options, detector.recipe)
    output = options.output or options.run / "predictions"
    _open_output(output, settings=_settings(detector), restart=options.restart)
    data = detector.recipe.data
    process = None
    if data.decode_timeout_sec is not None:
        process = ReadingProcess(timeout_sec=data.decode_timeout_sec, decoder=data.decoder)
    page_options = PageOptions(
        run=options.run.name,
        classes=detector.classes,
        copy_videos=options.copy_videos,
        output=output,
        decoder=data.decoder,
        process=process,
    )
    failures: dict[str, str] = {}
    num_new = 0
    for file in files:
        record_path, info = _record_path(output, file.name), None
        try:
            record = _whole_record(record_path, file)
            if record is None:
                record_path.unlink(missing_ok=True)
                info = (
                    open_video(file.path, decoder=data.decoder).info
                    if process is None
                    else process.open(file.path).info
                )
                record = _predict(detector, file, info=info, workers=options.workers, process=process)
                write_json(record_path, record)
                num_new += 1
                say(_described(record))
            if options.pages:
                write_page(
                    _as_shown(record, options),
                    truth=file.annotated,
                    options=page_options,
                    path=file.path,
                    info=info,
                )
        except (DecodeError, OSError, ValueError) as error:
            reason = error.reason if isinstance(error, DecodeError) else str(error)
            failures[file.name] = reason
            say(f"failed: {file.name}: {reason}" + ("" if str(file.path) in reason else f" ({file.path})"))
    if process is not None:
        process.close()
    if num_new + len(failures) < len(files):
        say(f"{len(files) - num_new - len(failures)} videos were predicted already")
    records = [_as_shown(record, options) for record in _all_records(output)]
    predictions = {record["video"]: _detections(record) for record in records}
    write_predictions(output / "predictions.json", predictions)
    write_text(output / "predictions.csv", _csv(predictions))
    if options.pages:
        write_index(records, failures=failures, options=page_options)
    return Predicted(output=output, predictions=predictions, num_new=num_new, failures=failures)


def _read_truth(path: Path) -> Annotations:
    return read_annotations(path, as_published=True)


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {name} cannot be used ({reason}); allowed here: cpu, cuda, cuda:N."
        ) from None
    return device


def _check_shown(options: PredictOptions, recipe: Recipe) -> None:
    """An option that could have no effect is refused: the recipe's post-processing comes first."""
    assert recipe.postprocess is not None
    kept, least = recipe.postprocess.max_detections, recipe.postprocess.min_score
    if options.top_k is not None and options.top_k > kept:
        raise ValueError(
            f"--top-k is {options.top_k}, but {options.run} keeps {kept} detections of a video "
            "(postprocess.max_detections); name fewer, or leave it out."
        )
    if 0 < options.min_score < least:
        raise ValueError(
            f"--min-score is {options.min_score:g}, but {options.run} drops what scores below {least:g} "
            "(postprocess.min_score); name a higher one, or leave it out."
        )


def _settings(detector: VideoDetector) -> dict[str, Any]:
    """What decides the detections of a video, apart from its file."""
    recipe, making = detector.recipe, detector.making
    assert recipe.postprocess is not None
    digest = hashlib.sha256()
    with detector.weights.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    settings = {
        "format_version": FORMAT_VERSION,
        "weights": f"{detector.weights.parent.name}/{detector.weights.name}",
        "weights_sha256": digest.hexdigest(),
        "features_sha256": None if making is None else list(making.sha256),
        "grid": asdict(recipe.grid),
        "fidelity": asdict(detector.fidelity),
        "frame_grid": asdict(detector.frame_grid),
        "resize": detector.resize,
        "postprocess": asdict(recipe.postprocess),
        "precision": recipe_precision(recipe, detector.device),
        "device": detector.device.type,
        "versions": package_versions(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))  # tuples as the lists that come back
    return plain


def _open_output(output: Path, *, settings: Mapping[str, Any], restart: bool) -> None:
    """Make OUTPUT, or go on in one of the same settings. Raises ValueError."""
    file = output / SETTINGS_NAME
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output} is a file; name a folder.")
    holds_files = output.is_dir() and any(output.iterdir())
    if holds_files and not file.is_file():
        raise ValueError(f"--output {output} is not empty and holds no {SETTINGS_NAME}; name another folder.")
    if holds_files and restart:
        shutil.rmtree(output)
        holds_files = False
    if holds_files:
        there = json.loads(file.read_text(encoding="utf-8"))
        differing = [
            f"{key} ({_brief(there.get(key))} there, {_brief(value)} now)"
            for key, value in settings.items()
            if key != "versions" and there.get(key) != value
        ]
        if differing:
            raise ValueError(
                f"{output} holds predictions that were made otherwise: {'; '.join(differing)}. --restart deletes them and "
                "begins again; or name another --output."
            )
        return
    write_json(file, settings)


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _predict(
    detector: VideoDetector,
    file: VideoFile,
    *,
    info: VideoInfo,
    workers: int | None,
    process: ReadingProcess | None,
) -> dict[str, Any]:
    """A video's record."""
    begin = time.perf_counter()
    predicted = predict_video(
        detector,
        file,
        info=info,
        duration_sec=_duration_sec(file) or info.duration_sec,
        workers=detector.recipe.data.workers if workers is None else workers,
        process=process,
    )
    return {
        "video": file.name,
        **_identity(file),
        "duration_sec": _duration_sec(file) or info.duration_sec,
        "fps": info.fps,
        "num_frames": info.num_frames,
        "height": info.height,
        "width": info.width,
        "num_windows": predicted.num_windows,
        "num_snippets": predicted.num_snippets,
        "feature_bytes": predicted.feature_bytes,
        "seconds": time.perf_counter() - begin,
        "detections": [
            {"segment": [each.start_sec, each.end_sec], "label": each.label, "score": each.score}
            for each in predicted.detections
        ],
    }


def _duration_sec(file: VideoFile) -> float | None:
    """As annotated, where that is a number."""
    duration_sec = None if file.annotated is None else file.annotated.duration_sec
    return duration_sec if duration_sec is not None and duration_sec > 0 else None


def _identity(file: VideoFile) -> dict[str, Any]:
    """What tells one video file from another, or from an older one."""
    status = file.path.stat()
    return {
        "file": str(file.path),
        "size_bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "annotated_sec": _duration_sec(file),
    }


def _record_path(output: Path, video: str) -> Path:
    return output / "records" / f"{video}.json"


def _whole_record(path: Path, file: VideoFile) -> dict[str, Any] | None:
    """The record of this very file, as it is now; None where there is none."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    is_same = all(record.get(key) == value for key, value in _identity(file).items())
    return record if is_same else None


def _all_records(output: Path) -> list[dict[str, Any]]:
    files = sorted((output / "records").glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _as_shown(record: Mapping[str, Any], options: PredictOptions) -> dict[str, Any]:
    """The record with the detections that were asked for, best first, and how many there are in all."""
    rows = [row for row in record["detections"] if row["score"] >= options.min_score]
    return {**record, "detections": rows[: options.top_k], "num_found": len(record["detections"])}


def _detections(record: Mapping[str, Any]) -> list[Detection]:
    return [
        Detection(
            start_sec=row["segment"][0], end_sec=row["segment"][1], label=row["label"], score=row["score"]
        )
        for row in record["detections"]
    ]


def _described(record: Mapping[str, Any]) -> str:
    """One line: what was found, best first, and what it took."""
    rows = record["detections"]
    best = ""
    if rows:
        start, end = rows[0]["segment"]
        best = f", best: {rows[0]['label']} {rows[0]['score']:.2f} at {start:.1f} to {end:.1f} s"
    return (
        f"{record['video']}: {len(rows)} detections{best}; {record['num_snippets']} snippets in "
        f"{record['seconds']:.1f} s, {record['feature_bytes'] / 2**20:.2f} MiB of features"
    )


def _csv(predictions: Mapping[str, Sequence[Detection]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "start", "end", "label", "score"])
    for video, rows in predictions.items():
        writer.writerows(
            [video, f"{row.start_sec:.3f}", f"{row.end_sec:.3f}", row.label, f"{row.score:.6f}"]
            for row in rows
        )
    return text.getvalue()
