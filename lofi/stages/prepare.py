"""Datasets' own files or a CSV -> annotations.json; an annotation file -> one with a validation subset. Says what it did."""

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lofi.data.annotated_video import AnnotatedVideo
from lofi.data.annotations import find_video, read_annotations, write_annotations
from lofi.data.converters.conversion import Conversion, change_lines, convert
from lofi.data.converters.durations import Length, read_durations, with_lengths, without_duration
from lofi.data.converters.official import Official
from lofi.data.converters.table import CONVERTERS
from lofi.data.converters.video_files import with_file_names, with_found_files
from lofi.data.splits import Split, split_videos
from lofi.files import write_json
from lofi.progress import say
from lofi.stages.check_videos import CheckOptions, probe_videos

NUM_NAMES_SHOWN = 5
NUM_CLASSES_SHOWN = 30


def convert_dataset(
    name: str,
    *,
    source: Path,
    output: Path,
    durations: Sequence[Path] = (),
    videos: Path | None = None,
    file_name: str | None = None,
    workers: int = 4,
    options: Mapping[str, Any] | None = None,
) -> Conversion:
    """Read a dataset's own files and write them as annotations.json.

    Args:
        name: of a converter.
        source: its files.
        output: the annotation file to write.
        durations: files that say how long videos are, for those that the source does not.
        videos: the folder of videos: those in folders below it get "file", and those whose duration is still missing are
            opened.
        file_name: how a video's file is called, such as "v_{video}.mp4".
        workers: processes that open videos.
        options: of this converter alone.

    Raises:
        ValueError: the source or the durations are wrong, durations are missing, or videos cannot be opened.
    """
    if not source.exists():
        raise ValueError(f"{source}: there is no such file or folder.")
    if output.is_dir():
        raise ValueError(f"{output} is a folder; name the file to write, such as {output}/annotations.json.")
    if output.resolve() == source.resolve():
        raise ValueError(f"--output {output} would replace the source.")
    say(f"reading {source}")
    official = CONVERTERS[name].read(source, **(options or {}))
    official = with_lengths(official, read_durations(durations))
    if file_name is not None:
        official = with_file_names(official, file_name)
    if videos is not None:
        official = _with_videos(official, videos, workers=workers)
    try:
        conversion = convert(official)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    write_annotations(output, conversion.database, classes=conversion.classes)
    read_annotations(output)  # what is written is what training takes
    return conversion


def say_conversion(conversion: Conversion, output: Path) -> None:
    """The counts, what training does not take as it was published, and the notes."""
    say(f"{'subset':<12}{'videos':>9}{'instances':>11}{'for training':>14}{'classes':>9}")
    for counts in conversion.counts:
        say(
            f"{counts.subset:<12}{counts.num_videos:>9,}{counts.num_instances:>11,}{counts.num_for_training:>14,}"
            f"{counts.num_classes:>9,}"
        )
    for line in (*change_lines(conversion.changes), *conversion.notes):
        say(line)
    if conversion.changes:
        say('evaluation takes all instances as published ("published"), training those of "annotations"')
    say(f"annotations: {output}")


def _with_videos(official: Official, videos: Path, *, workers: int) -> Official:
    """The dataset with the places of its videos, and the durations that only opening them tells.

    Raises:
        ValueError: there is no such folder, or a video whose duration is wanted is not there or cannot be opened.
    """
    if not videos.is_dir():
        raise ValueError(f"--videos {videos}: there is no such folder.")
    official, absent = with_found_files(official, videos)
    if absent:
        shown = ", ".join(absent[:NUM_NAMES_SHOWN]) + (", ..." if len(absent) > NUM_NAMES_SHOWN else "")
        say(f"videos that are not in {videos} ({len(absent)} of {len(official.videos)}): {shown}")
    paths, failures = {}, {}
    missing = without_duration(official)
    for name in missing:
        video = AnnotatedVideo(
            name=name, subset="", duration_sec=0.0, segments=(), file=official.videos[name].file
        )
        try:
            paths[name] = find_video(video, videos)
        except FileNotFoundError as error:
            failures[name] = str(error)
    found = dict(probe_videos(paths, options=CheckOptions(workers=workers, frames_read=0)))
    failures |= {name: f"{name}: {facts['error']}" for name, facts in found.items() if "error" in facts}
    if failures:
        shown = "".join(f"\n  {text}" for text in list(failures.values())[:NUM_NAMES_SHOWN])
        more = f"\n  and {len(failures) - NUM_NAMES_SHOWN} more" if len(failures) > NUM_NAMES_SHOWN else ""
        raise ValueError(
            f"videos whose duration is wanted cannot be opened ({len(failures)} of {len(missing)}); repair them, give "
            f"--durations FILE, or take them out of the source:{shown}{more}"
        )
    lengths = {
        name: Length(duration_sec=facts["duration"], fps=facts["fps"]) for name, facts in found.items()
    }
    return with_lengths(official, lengths)


def split_annotations(
    annotations: Path,
    *,
    output: Path,
    validation_share: float,
    seed: int = 0,
    subset: str | None = None,
    group: str | None = None,
) -> Split:
    """Write an annotation file whose videos are shared out between training and validation.

    Args:
        annotations: the file to read; all else that it holds is kept.
        output: the file to write.
        validation_share: part of the videos for validation, between 0 and 1.
        seed: of the choice between what is equally good.
        subset: the videos to share out, where the file has several subsets. All others stay as they are.
        group: key of the videos that says what stays together; "group" where videos have it.

    Raises:
        ValueError: the file or an option is wrong, or the file has validation videos already.
    """
    read = read_annotations(annotations)
    if output.resolve() == annotations.resolve():
        raise ValueError(f"--output {output} would replace the file that is read; name another.")
    if subset is None and len(read.subsets) > 1:
        raise ValueError(
            f"{annotations}: has the subsets {', '.join(read.subsets)}; say which to split (--subset)."
        )
    chosen = read.subset(subset or read.subsets[0])
    names = [video.name for video in chosen]
    kept = {video.subset for video in read.videos.values()} - {chosen[0].subset}
    taken = kept & {"training", "validation"}
    if taken:
        raise ValueError(
            f"{annotations}: has a subset {taken.pop()} besides {chosen[0].subset}, so the two would become one."
        )
    document = json.loads(annotations.read_text(encoding="utf-8-sig"))
    database = document["database"]
    groups = _groups(annotations, database, names, key=group)
    labels = {video.name: {segment.label for segment in video.segments} for video in chosen}
    split = split_videos(labels, validation_share=validation_share, seed=seed, groups=groups)
    for name, side in split.subset_of.items():
        database[name]["subset"] = side
    write_json(output, document)
    return split


def _groups(
    annotations: Path, database: Mapping[str, Mapping[str, Any]], names: Sequence[str], *, key: str | None
) -> dict[str, Hashable]:
    """Video -> its group. Raises ValueError where a key was asked for that no video has, or some lack it."""
    groups = {name: database[name].get(key or "group") for name in names}
    known = {name: value for name, value in groups.items() if isinstance(value, str | int)}
    if key is not None and not known:
        raise ValueError(f'{annotations}: no video has "{key}" (--group).')
    if known and len(known) < len(groups):
        lacking = next(name for name in groups if name not in known)
        raise ValueError(
            f'{annotations}: {len(groups) - len(known)} videos have no "{key or "group"}", such as {lacking}, and others have.'
        )
    return dict(known)


def say_split(split: Split, output: Path) -> None:
    """Videos of each side, of each class (of many: the rarest), and what is absent."""
    sides = Counter(split.subset_of.values())
    num_videos = len(split.subset_of)
    grouped = f" in {split.num_groups} groups" if split.num_groups < num_videos else ""
    share = 100 * sides["validation"] / num_videos
    say(
        f"{num_videos} videos{grouped}: {sides['training']} training, {sides['validation']} validation ({share:.1f} %)"
    )
    rarest = sorted(split.videos_of_class.items(), key=lambda row: (sum(row[1]), row[0]))[:NUM_CLASSES_SHOWN]
    width = max((len(label) for label, _ in rarest), default=0)
    say(f"{'videos with':<{max(width, 11)}}  training  validation")
    for label, (training, validation) in rarest:
        say(f"{label:<{max(width, 11)}}  {training:>8}  {validation:>10}")
    if len(split.videos_of_class) > len(rarest):
        num_more = len(split.videos_of_class) - len(rarest)
        say(f"and {num_more} {_classes(num_more)} with more videos")
    for side in ("training", "validation"):
        absent = split.absent(side)
        if absent:
            more = ", ..." if len(absent) > NUM_NAMES_SHOWN else ""
            say(
                f"in no {side} video: {len(absent)} {_classes(len(absent))}: {', '.join(absent[:NUM_NAMES_SHOWN])}{more}"
            )
    say(f"annotations: {output}")


def _classes(count: int) -> str:
    return "classes" if count > 1 else "class"
