"""Make annotations and videos ready for training.

    python launch/prepare.py synthetic --output data/synthetic
    python launch/prepare.py synthetic --output data/synthetic_p08 --scene-correlation 0.8 --seed 1
    python launch/prepare.py synthetic --output data/synthetic_moving --drift

`synthetic` writes the benchmark of `lofi/data/synthetic.py`: OUTPUT/{trimmed,untrimmed}/{annotations.json,videos/}. Run
again, it does nothing; interrupted, it continues.
"""

import argparse
import sys
from collections.abc import Sequence

from lofi.data.synthetic import SyntheticConfig, write_benchmark
from lofi.progress import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the result is the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """One subcommand per source of data; each sets `run`, the function to call."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subcommands = parser.add_subparsers(required=True, metavar="SOURCE")
    _add_synthetic(subcommands)
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


if __name__ == "__main__":
    sys.exit(main())
