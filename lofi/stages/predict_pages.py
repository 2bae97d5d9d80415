"""What the pages of a prediction show: pictures at the detections' middles, ground truth, where the video lies."""

import hashlib
import io
import json
import os
import shutil
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lofi.data.annotated_video import AnnotatedVideo
from lofi.data.decode import VideoReader, open_video
from lofi.data.grid import frame_indices
from lofi.data.reading_process import ReadingProcess, RemoteReader
from lofi.data.video_info import DecodeError, DecoderChoice, VideoInfo
from lofi.files import write_text
from lofi.report.prediction_page import (
    page_url,
    render_prediction_index,
    render_prediction_page,
    stamp_of,
)

MAX_PICTURES = 48
"""Of the best detections of a video."""
PICTURE_HEIGHT = 108
"""Pixels; the width follows."""
JPEG_QUALITY = 75


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """The same for all videos."""

    run: str
    """The run's name."""
    classes: tuple[str, ...]
    """In the run's order: each has its colour."""
    copy_videos: bool
    output: Path
    decoder: DecoderChoice = "auto"
    process: ReadingProcess | None = None
    """Reads the videos; None: this one does."""


def write_page(
    record: Mapping[str, Any],
    *,
    truth: AnnotatedVideo | None,
    options: PageOptions,
    path: Path,
    info: VideoInfo | None = None,
) -> Path:
    """Write a video's page, unless the one that is there shows the same. Returns its path.

    Args:
        record: of the video, with the detections to show.
        truth: its annotations, where there are any.
        options: of all pages.
        path: of the video's file.
        info: what is known of it; None opens it anew where the page needs pictures.
    """
    page = options.output / page_url(str(record["video"]), quoted=False)
    if options.copy_videos:
        sources = [os.path.relpath(_copied(path, options.output), page.parent)]
    else:
        sources = [os.path.relpath(path, page.parent), path.as_uri()]
    content = {
        **record,
        "run": options.run,
        "classes": list(options.classes),
        "sources": sources,
        "truth": None if truth is None else [asdict(segment) for segment in truth.segments],
    }
    stamp = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    if stamp_of(page) != stamp:
        pictures, problem = _pictures(path, record["detections"], options=options, info=info)
        text = render_prediction_page({**content, "pictures": pictures, "problem": problem}, stamp=stamp)
        write_text(page, text)
    return page


def write_index(
    records: Sequence[Mapping[str, Any]], *, failures: Mapping[str, str], options: PageOptions
) -> Path:
    """Write the page of all videos."""
    index = options.output / "index.html"
    with_page = {
        record["video"]
        for record in records
        if (options.output / page_url(str(record["video"]), quoted=False)).is_file()
    }
    text = render_prediction_index(
        records, failures=failures, run=options.run, classes=options.classes, with_page=with_page
    )
    write_text(index, text)
    return index


def _copied(path: Path, output: Path) -> Path:
    """The video's copy in OUTPUT/videos, made where it is not there yet."""
    folder = hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]
    copy = output / "videos" / folder / path.name
    if not copy.is_file() or _stamp(copy) != _stamp(path):
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_name(f".{copy.name}.partial")
        shutil.copy2(path, partial)
        os.replace(partial, copy)
    return copy


def _stamp(path: Path) -> tuple[int, int]:
    """Bytes, and when it was written (in units of two seconds: not every file system tells less)."""
    status = path.stat()
    return status.st_size, int(status.st_mtime) // 2


def _pictures(
    path: Path, detections: Sequence[Mapping[str, Any]], *, options: PageOptions, info: VideoInfo | None
) -> tuple[list[str], str | None]:
    """JPEG data URIs at the middles of the best detections; and what went wrong, where none could be made."""
    middles_sec = np.array([sum(row["segment"]) / 2 for row in detections[:MAX_PICTURES]])
    if not len(middles_sec):
        return [], None
    try:
        if options.process is None:
            reader: VideoReader | RemoteReader = open_video(path, info=info, decoder=options.decoder)
        else:
            reader = options.process.open(path, info=info)
        info = reader.info
        indices = frame_indices(
            middles_sec, num_frames=info.num_frames, fps=info.fps, timestamps_sec=info.timestamps_sec
        )
        height, width = _picture_size(info)
        frames = reader.read(indices, height=height, width=width, resize="stretch")
    except DecodeError as error:
        return [], error.reason
    return [_data_uri(frame) for frame in frames], None


def _picture_size(info: VideoInfo) -> tuple[int, int]:
    """Height and width, even, of the video's shape; no strip wider than three heights."""
    width = round(PICTURE_HEIGHT * min(info.width / info.height, 3.0) / 2) * 2
    return PICTURE_HEIGHT, max(2, width)


def _data_uri(frame: np.ndarray) -> str:
    """frame: (H, W, 3) uint8."""
    jpeg = io.BytesIO()
    Image.fromarray(frame).save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{b64encode(jpeg.getvalue()).decode()}"
