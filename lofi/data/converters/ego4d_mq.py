"""Ego4D moment queries (Grauman et al., CVPR 2022, arXiv:2110.07058): a "video" is a clip, by its clip_uid.

    moments_train.json, moments_val.json, moments_test_unannotated.json
        {"videos": [{"video_uid", "split", "clips": [{"clip_uid", "video_start_sec", "video_end_sec", "video_start_frame",
         "video_end_frame", "annotations": [{"labels": [{"label", "primary", "video_start_time", "video_end_time"}]}]}]}]}

As the benchmark does: the labels of all annotators, those marked primary alone; training and validation clips without any
are left out. Times are counted from the start of the clip. Two annotators often mark the same moment, so near duplicates
are many; they stay.
"""

from pathlib import Path
from typing import Any

from lofi.data.converters.official import Official, OfficialVideo, sorted_classes, subset_named
from lofi.data.converters.source_files import read_object, seconds_of
from lofi.segments import LabelledSegment

FILES = ("moments_train.json", "moments_val.json", "moments_test_unannotated.json")


def read_ego4d_mq(source: Path) -> Official:
    """Read the folder of the official files, or one of them."""
    paths = [source / name for name in FILES if (source / name).is_file()] if source.is_dir() else [source]
    if not paths:
        raise ValueError(f"{source}: holds none of {', '.join(FILES)}.")
    videos: dict[str, OfficialVideo] = {}
    num_empty = 0
    for path in paths:
        for name, clip in _read_clips(path).items():
            if clip.subset != "test" and not clip.segments:
                num_empty += 1
            elif name in videos:
                raise ValueError(f"{path}: the clip {name} is there twice.")
            else:
                videos[name] = clip
    notes = [f"{num_empty} clips without a primary label are left out"] if num_empty else []
    return Official(videos=videos, classes=sorted_classes(videos), notes=tuple(notes))


def _read_clips(path: Path) -> dict[str, OfficialVideo]:
    clips: dict[str, OfficialVideo] = {}
    content = read_object(path)
    if not isinstance(content.get("videos"), list):
        raise ValueError(
            f'{path}: no list "videos" at the top level; the keys are {", ".join(list(content)[:5])}.'
        )
    for number, video in enumerate(content["videos"]):
        where = f"{path}: videos[{number}]"
        try:
            subset = subset_named(video["split"], where=where)
            for clip in video["clips"]:
                clips[clip["clip_uid"]] = _read_clip(clip, video["video_uid"], subset, where=where)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{where}: the key {error} is missing, or something is no list or object."
            ) from None
    return clips


def _read_clip(clip: dict[str, Any], video_uid: str, subset: str, *, where: str) -> OfficialVideo:
    begin_sec = max(seconds_of(clip["video_start_sec"], where=where), 0.0)
    duration_sec = round(seconds_of(clip["video_end_sec"], where=where) - begin_sec, 4)
    if duration_sec <= 0:
        raise ValueError(f"{where}: the clip {clip['clip_uid']} has no length.")
    segments = [
        LabelledSegment(
            start_sec=round(seconds_of(row["video_start_time"], where=where) - begin_sec, 4),
            end_sec=round(seconds_of(row["video_end_time"], where=where) - begin_sec, 4),
            label=row["label"],
        )
        for annotator in clip.get("annotations", ())
        for row in annotator["labels"]
        if row["primary"]
    ]
    num_frames = clip.get("video_end_frame", 0) - max(clip.get("video_start_frame", 0), 0)
    return OfficialVideo(
        subset=subset,
        segments=tuple(segments),
        duration_sec=duration_sec,
        fps=round(num_frames / duration_sec, 3) if num_frames > 0 else None,
        group=video_uid,
    )
