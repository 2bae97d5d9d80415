"""Make annotations and videos ready for training.

    python launch/prepare.py synthetic --output data/synthetic
    python launch/prepare.py synthetic --output data/synthetic_p08 --scene-correlation 0.8 --seed 1
    python launch/prepare.py synthetic --output data/synthetic_moving --drift
    python launch/prepare.py features --source i3d_features --annotations data/thumos14/annotations.json \\
        --stride-frames 4 --frames 16 --name i3d --output data/thumos14/features_i3d
    python launch/prepare.py features --source tsp.h5 --annotations data/activitynet13/annotations.json --rescale \\
        --snippets 100 --name tsp --output data/activitynet13/features_tsp

`synthetic` writes the benchmark of `lofi/data/synthetic.py`: OUTPUT/{trimmed,untrimmed}/{annotations.json,videos/}. Run
again, it does nothing; interrupted, it continues.

`features` reads the feature files of other tools (a folder of .npy, .npz, .pt or .h5, or one .h5, .npz or .pt of all videos),
checks them against the annotations, and writes a feature directory. What is wrong is left out and listed; the exit code is
then 1. Without --output it only checks.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from lofi.data.synthetic import SyntheticConfig, write_benchmark
from lofi.progress import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the result is the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """One subcommand per source of data; each sets `run`, the function to call."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subcommands = parser.add_subparsers(required=True, metavar="SOURCE")
    _add_synthetic(subcommands)
    _add_features(subcommands)
    return parser


def _add_synthetic(subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subcommands.add_parser(
        "synthetic",
        help="write the synthetic benchmark: real videos whose scene may stand for the class",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    parser.set_defaults(run=_run_synthetic)


def _run_synthetic(options: argparse.Namespace) -> None:
    values = {name: value for name, value in vars(options).items() if name not in ("run", "output")}
    paths = write_benchmark(SyntheticConfig(**values), options.output)
    say(f"annotations: {paths.trimmed_annotations} and {paths.untrimmed_annotations}")


def _add_features(subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subcommands.add_parser(
        "features",
        help="check and convert feature files of other tools",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    parser.set_defaults(run=_run_features)


def _run_features(options: argparse.Namespace) -> int:
    from lofi.data.annotations import read_annotations
    from lofi.data.feature_conversion import convert_features
    from lofi.data.feature_files import open_feature_files
    from lofi.data.feature_times import RowTimes, read_frame_rates, row_times_of_frames

    by_frames = options.stride_frames is not None
    if by_frames and options.frames is None:
        raise ValueError("--stride-frames needs --frames, to know what time a row stands for.")
    if not by_frames and options.fps is not None:
        raise ValueError(f"--fps is {options.fps:g} but has no effect without --stride-frames; remove it.")
    if by_frames and options.first_row_sec is not None:
        raise ValueError(
            "--first-row-sec has no effect with --stride-frames, whose rows stand for the middle of --frames."
        )
    annotations = read_annotations(options.annotations)
    own_times = {}
    if by_frames:
        if options.fps is None:
            rates = read_frame_rates(annotations)
        else:
            rates = dict.fromkeys(annotations.videos, options.fps)
        own_times = {
            video: row_times_of_frames(stride_frames=options.stride_frames, fps=rate, frames=options.frames)
            for video, rate in rates.items()
        }
        times = Counter(own_times.values()).most_common(1)[0][0]
    else:
        times = RowTimes(stride_sec=options.stride_sec, frames=options.frames)
    if options.first_row_sec is not None:
        times = replace(times, first_row_sec=options.first_row_sec)
    if times.stride_sec is not None:
        first_row_sec = times.stride_sec / 2 if times.first_row_sec is None else times.first_row_sec
        say(f"a row every {times.stride_sec:g} s, the first at {first_row_sec:g} s")
    conversion = convert_features(
        open_feature_files(options.source, key=options.key),
        annotations,
        times=times,
        own_times=own_times,
        name=options.name,
        output=options.output,
        layout=options.layout,
        width=options.width,
        num_snippets=options.snippets,
        file_name=options.file_name,
        dtype=options.dtype,
    )
    for line in conversion.lines():
        say(line)
    if options.output is not None:
        say(f"feature directory: {options.output}")
    return 1 if conversion.num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
