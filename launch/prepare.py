"""Make annotations and videos ready for training.

    python launch/prepare.py thumos14 --source TH14_Temporal_annotations --durations video_info.json --output data/thumos14/annotations.json
    python launch/prepare.py activitynet13 --source activity_net.v1-3.min.json --file-name 'v_{video}.mp4' --output data/activitynet13/annotations.json
    python launch/prepare.py epic_kitchens100 --source epic-kitchens-100-annotations --label noun --output data/epic/nouns.json
    python launch/prepare.py csv --source mine.csv --videos my_videos --output data/mine/annotations.json
    python launch/prepare.py check --annotations data/mine/annotations.json --videos my_videos --output data/mine/check.json
    python launch/prepare.py split --annotations data/mine/annotations.json --validation-share 0.2 --output data/mine/split.json
    python launch/prepare.py videos --source my_videos --output data/mine/unlabelled.json
    python launch/prepare.py synthetic --output data/synthetic
    python launch/prepare.py synthetic --output data/synthetic_p08 --scene-correlation 0.8 --seed 1
    python launch/prepare.py synthetic --output data/synthetic_moving --drift
    python launch/prepare.py features --source i3d_features --annotations data/thumos14/annotations.json \\
        --stride-frames 4 --frames 16 --name i3d --output data/thumos14/features_i3d
    python launch/prepare.py features --source tsp.h5 --annotations data/activitynet13/annotations.json --rescale \\
        --snippets 100 --name tsp --output data/activitynet13/features_tsp

A dataset's name (activitynet12, activitynet13, thumos14, multithumos, hacs, fineaction, epic_kitchens100, charades, ego4d_mq)
or `csv`, a table of one's own, writes annotations.json; `check` and `split` take it from there. Each command has its own
`--help`.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lofi.command import run_command
from lofi.data.synthetic import SyntheticConfig, write_benchmark
from lofi.progress import say

Subcommands = Any
"""argparse's own type of them is private."""

CONVERTED = """{what}

It prints the counts of each subset, and everything that training will not take as it was published; evaluation takes it all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the result is the exit code."""
    options = build_parser().parse_args(arguments)
    return run_command(lambda: options.run(options))


def build_parser() -> argparse.ArgumentParser:
    """One subcommand per source of data, and those for annotations that are there; each sets `run`, the function to call."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subcommands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_converters(subcommands)
    _add_check(subcommands)
    _add_split(subcommands)
    _add_videos(subcommands)
    _add_synthetic(subcommands)
    _add_features(subcommands)
    return parser


def _subparser(
    subcommands: Subcommands,
    name: str,
    *,
    run: Callable[[argparse.Namespace], int | None],
    help: str,
    description: str,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subcommands.add_parser(
        name,
        help=help,
        description=f"{description}\n\n{_examples(name)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _examples(name: str) -> str:
    """The commands of this name at the top of this file; where there is none, how a dataset is converted."""
    found: list[str] = []
    is_of_name = False
    for line in (__doc__ or "").splitlines():
        if not line.startswith("    python launch/prepare.py "):
            is_of_name = is_of_name and line.startswith("        ")  # the second line of a command
        else:
            is_of_name = line.split()[2] == name
        if is_of_name:
            found.append(line)
    usual = f"    python launch/prepare.py {name} --source PATH --output data/{name}/annotations.json"
    return "\n".join(found or [usual])


def _add_converters(subcommands: Subcommands) -> None:
    from lofi.data.converters import own_table
    from lofi.data.converters.table import CONVERTERS

    for name, converter in CONVERTERS.items():
        what = own_table.__doc__ if name == "csv" else f"Write annotations.json from {converter.source}."
        parser = _subparser(
            subcommands,
            name,
            run=_run_converter,
            help=f"from {converter.source}",
            description=CONVERTED.format(what=(what or "").rstrip()),
        )
        parser.set_defaults(name=name, own_options=())
        add = parser.add_argument
        add("--source", required=True, type=Path, metavar="PATH", help=converter.source)
        add("--output", required=True, type=Path, metavar="FILE", help="annotations.json to write")
        add(
            "--durations",
            nargs="+",
            type=Path,
            default=(),
            metavar="FILE",
            help="CSV or JSON: how long videos are",
        )
        add(
            "--videos",
            type=Path,
            metavar="DIR",
            help="find them here, and open those whose duration is missing",
        )
        add(
            "--file-name",
            metavar="NAME",
            help="of a video's file below the folder of videos: 'v_{video}.mp4'",
        )
        add("--workers", type=int, default=4, metavar="N", help="processes that open videos (default 4)")
    _add_own_options(subcommands.choices)


def _add_own_options(parsers: dict[str, argparse.ArgumentParser]) -> None:
    """Options of one converter: each is an argument of its function."""
    parsers["thumos14"].add_argument(
        "--test-set",
        type=int,
        default=212,
        choices=(213, 212, 211, 210),
        help="test videos: 213 all annotated, 212 as ActionFormer (default), 211 as OpenTAD, 210 as SSN, G-TAD and AFSD",
    )
    parsers["thumos14"].set_defaults(own_options=("test_set",))
    parsers["epic_kitchens100"].add_argument(
        "--label",
        choices=("verb", "noun", "action"),
        default="verb",
        help="what a class is: a verb (default), a noun, or the pair of both by number, as the official evaluation wants",
    )
    parsers["epic_kitchens100"].set_defaults(own_options=("label",))
    parsers["csv"].add_argument(
        "--fps", type=float, metavar="R", help="start and end are frames at this rate"
    )
    parsers["csv"].add_argument(
        "--group",
        default="group",
        metavar="COLUMN",
        help="column of what a split keeps together (default group)",
    )
    parsers["csv"].set_defaults(own_options=("fps", "group"))


def _run_converter(options: argparse.Namespace) -> None:
    from lofi.stages.prepare import convert_dataset, say_conversion

    own = {name: getattr(options, name) for name in options.own_options}
    if options.name == "csv":
        own["videos"] = options.videos
    conversion = convert_dataset(
        options.name,
        source=options.source,
        output=options.output,
        durations=options.durations,
        videos=options.videos,
        file_name=options.file_name,
        workers=options.workers,
        options=own,
    )
    say_conversion(conversion, options.output)


def _add_check(subcommands: Subcommands) -> None:
    parser = _subparser(
        subcommands,
        "check",
        run=_run_check,
        help="open every video and hold it against its annotations",
        description="""Open every video and hold it against its annotations; the exit code is 1 where one is missing, broken or shorter.
Run again with the same --output, it opens only what has changed, and what gave no answer.""",
    )
    add = parser.add_argument
    add("--annotations", required=True, type=Path, metavar="FILE", help="annotations.json")
    add("--videos", required=True, type=Path, metavar="DIR", help="the folder of videos")
    add("--output", type=Path, metavar="FILE", help="check.json: what was found; read again by the next run")
    add("--workers", type=int, default=4, metavar="N", help="processes (default 4)")
    add(
        "--frames",
        type=int,
        default=5,
        metavar="N",
        help="frames decoded of each video (default 5; 0: only open it)",
    )
    add(
        "--timeout",
        type=float,
        default=120.0,
        metavar="S",
        help="seconds after which a video is broken (default 120)",
    )
    add("--restart", action="store_true", help="open every video again")


def _run_check(options: argparse.Namespace) -> int:
    from lofi.report.check_table import print_check
    from lofi.stages.check_videos import CheckOptions, check_videos, num_faulty

    document = check_videos(
        options.annotations,
        videos=options.videos,
        output=options.output,
        options=CheckOptions(
            workers=options.workers, frames_read=options.frames, timeout_sec=options.timeout
        ),
        restart=options.restart,
    )
    print_check(document)
    if options.output is not None:
        say(f"check: {options.output}")
    return 1 if num_faulty(document) else 0


def _add_split(subcommands: Subcommands) -> None:
    parser = _subparser(
        subcommands,
        "split",
        run=_run_split,
        help="share videos out between training and validation",
        description="""Share the videos out between training and validation: each class in its share, videos of one group together, the same for
a seed whatever the order of the file.""",
    )
    add = parser.add_argument
    add("--annotations", required=True, type=Path, metavar="FILE", help="annotations.json to read")
    add("--output", required=True, type=Path, metavar="FILE", help="annotations.json to write")
    add("--validation-share", required=True, type=float, metavar="P", help="part for validation, such as 0.2")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the choice between what is equally good (default 0)",
    )
    add("--subset", metavar="NAME", help="the videos to share out, where there are several subsets")
    add(
        "--group",
        metavar="KEY",
        help='key of the videos that says what stays together (default "group", if there is one)',
    )


def _run_split(options: argparse.Namespace) -> None:
    from lofi.stages.prepare import say_split, split_annotations

    split = split_annotations(
        options.annotations,
        output=options.output,
        validation_share=options.validation_share,
        seed=options.seed,
        subset=options.subset,
        group=options.group,
    )
    say_split(split, options.output)


def _add_videos(subcommands: Subcommands) -> None:
    parser = _subparser(
        subcommands,
        "videos",
        run=_run_videos,
        help="list a folder of videos without labels",
        description="""List a folder of videos without any label, for pretexts that need none (objective: pal). Videos that cannot be read are
named and left out; the exit code is then 1.""",
    )
    add = parser.add_argument
    add("--source", required=True, type=Path, metavar="DIR", help="folder of videos; folders below it too")
    add("--output", required=True, type=Path, metavar="FILE", help="annotations.json to write")
    add("--validation-share", type=float, default=0.0, metavar="P", help="part for validation (default 0)")
    add("--seed", type=int, default=0, metavar="N", help="of the draw of that part (default 0)")
    add("--workers", type=int, default=4, metavar="N", help="processes that open videos (default 4)")


def _run_videos(options: argparse.Namespace) -> int:
    from lofi.stages.list_videos import list_videos

    failures = list_videos(
        options.source,
        output=options.output,
        validation_share=options.validation_share,
        seed=options.seed,
        workers=options.workers,
    )
    return 1 if failures else 0


def _add_synthetic(subcommands: Subcommands) -> None:
    help_text = "write the synthetic benchmark: real videos whose scene may stand for the class"
    parser = _subparser(
        subcommands,
        "synthetic",
        run=_run_synthetic,
        help=help_text,
        description="""Write the benchmark of `lofi/data/synthetic.py`: OUTPUT/{trimmed,untrimmed}/{annotations.json,videos/}. Run again, it
does nothing; interrupted, it continues.""",
    )
    default = SyntheticConfig()
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write")
    for flag, kind, meaning in (
        ("--videos", int, "untrimmed training videos; 3/4 as many for validation"),
        ("--trimmed-videos", int, "trimmed training clips; 1/5 as many for validation"),
        ("--classes", int, "classes and scenes, 2 to 8"),
        ("--size", int, "height and width, pixels"),
        ("--fps", float, "frames per second"),
        ("--duration-sec", float, "length of an untrimmed video, seconds"),
        ("--clip-sec", float, "length of a trimmed clip, seconds"),
        ("--seed", int, "seed of the whole benchmark"),
        ("--scene-correlation", float, "share of videos whose scene is the class's own, 0 to 1"),
    ):
        value = getattr(default, flag.removeprefix("--").replace("-", "_"))
        parser.add_argument(flag, type=kind, default=value, metavar="N", help=f"{meaning} (default {value})")
    parser.add_argument("--drift", action="store_true", help="slow camera pan and light change")


def _run_synthetic(options: argparse.Namespace) -> None:
    values = {name: value for name, value in vars(options).items() if name not in ("run", "output")}
    paths = write_benchmark(SyntheticConfig(**values), options.output)
    say(f"annotations: {paths.trimmed_annotations} and {paths.untrimmed_annotations}")


def _add_features(subcommands: Subcommands) -> None:
    parser = _subparser(
        subcommands,
        "features",
        run=_run_features,
        help="check and convert feature files of other tools",
        description="""Read the feature files of other tools (a folder of .npy, .npz, .pt or .h5, or one .h5, .npz or .pt of all videos), check
them against the annotations, and write a feature directory. What is wrong is left out and listed; the exit code is then 1.
Without --output it only checks.""",
    )
    add = parser.add_argument
    add("--source", required=True, metavar="PATH", help="a folder of one file per video, or one file of all")
    add("--annotations", required=True, metavar="FILE", help="annotations.json of the videos")
    add("--output", metavar="DIR", help="the feature directory to write; left out: only check")
    add("--name", default="unknown", help="what made the features, for the manifest")
    rows = parser.add_mutually_exclusive_group(required=True)
    rows.add_argument("--rescale", action="store_true", help="the rows of a video are spread evenly over it")
    rows.add_argument("--stride-sec", type=float, metavar="S", help="seconds from row to row")
    rows.add_argument("--stride-frames", type=int, metavar="N", help="frames from row to row; needs --frames")
    add(
        "--fps",
        type=float,
        metavar="R",
        help='frames per second of all videos (default: each video\'s own "fps" in the annotations)',
    )
    add("--frames", type=int, metavar="T", help="frames of a snippet")
    add(
        "--first-row-sec",
        type=float,
        metavar="S",
        help="the time that row 0 stands for (default: half a stride). With --stride-frames it is the middle of the first T",
    )
    add("--snippets", type=int, metavar="L", help="rows of a window (default: as many as every video has)")
    add("--layout", choices=("LD", "DL"), help="LD: time is the first axis (default: found from the shapes)")
    add("--width", type=int, metavar="D", help="the feature width (default: the most common)")
    add("--key", help="of the array, where a video has several")
    add("--file-name", default="{video}", metavar="NAME", help="of a video, such as v_{video}")
    add("--dtype", choices=("float32", "float16"), default="float32", help="of the new files")


def _run_features(options: argparse.Namespace) -> int:
    from lofi.stages.convert_features import RowOptions, convert_feature_files

    num_wrong = convert_feature_files(
        options.source,
        annotations=options.annotations,
        rows=RowOptions(
            stride_sec=options.stride_sec,
            stride_frames=options.stride_frames,
            frames=options.frames,
            fps=options.fps,
            first_row_sec=options.first_row_sec,
        ),
        name=options.name,
        output=options.output,
        key=options.key,
        layout=options.layout,
        width=options.width,
        num_snippets=options.snippets,
        file_name=options.file_name,
        dtype=options.dtype,
    )
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
