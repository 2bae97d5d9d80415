"""Find actions in any video with a trained run: detections as JSON and CSV, and a page for each video to look at them.

    python launch/predict.py runs/frozen_tiny_actionformer holiday.mp4
    python launch/predict.py runs/frozen_tiny_actionformer clips/ more/*.mkv --output found --min-score 0.1
    python launch/predict.py runs/lofi_s_tiny_actionformer clips/ --annotations annotations.json --encoder-batch 8
    python launch/predict.py runs/frozen_tiny_actionformer clips/ --encoder runs/lofi_s_tiny_actionformer --copy-videos

RUN is a run directory: of a detector that was trained from frames, or of a head on features, whose directory says which
encoder made them (and which adapter changed them); where that is gone, --encoder and --adapter say where it is now, and the
hash of its weights must be the same. Open OUTPUT/index.html in a browser: the pages need no network and no server.

A video is streamed: 32 snippets (--encoder-batch) are decoded and encoded at a time. A video that was predicted already with
the same run is not predicted again; --min-score and --top-k choose what is written of what was found. A video that fails is
named with its reason, the others go on, and the exit code is 1.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = build_parser()
    arguments = parser.parse_args()
    if arguments.copy_videos and not arguments.pages:
        parser.error("--copy-videos has no effect with --no-pages")
    for flag, value, least in (
        ("--encoder-batch", arguments.encoder_batch, 1),
        ("--top-k", arguments.top_k, 1),
        ("--workers", arguments.workers, 0),
    ):
        if value is not None and value < least:
            parser.error(f"{flag} is {value}; it must be at least {least}")
    if not 0 <= arguments.min_score <= 1:
        parser.error(f"--min-score is {arguments.min_score:g}; it must lie between 0 and 1")

    from lofi.command import run_command
    from lofi.config.objectives import OWN_PARTS
    from lofi.progress import say
    from lofi.stages.predict import PredictOptions, run_prediction
    from sola import PARTS as SOLA

    def predict() -> int:
        predicted = run_prediction(PredictOptions(**vars(arguments), parts=OWN_PARTS.joined(SOLA)))
        count = sum(map(len, predicted.predictions.values()))
        say(
            f"{count} detections in {len(predicted.predictions)} videos: {predicted.output / 'predictions.json'}"
        )
        if arguments.pages:
            say(f"open {predicted.output / 'index.html'}")
        if predicted.failures:
            say(f"failed, for the reasons above: {', '.join(sorted(predicted.failures))}")
        return 1 if predicted.failures else 0

    sys.exit(run_command(predict))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEO", help='a file, a folder (and what is below it), or a "pattern*"'
    )
    out = parser.add_argument_group("what is written")
    out.add_argument("--output", type=Path, metavar="DIR", help="default: RUN/predictions")
    out.add_argument(
        "--annotations",
        type=Path,
        metavar="JSON",
        help="ground truth for the pages; a video that it has is predicted under its name and duration there",
    )
    out.add_argument("--min-score", type=float, default=0.0, metavar="X", help="leave out detections below")
    out.add_argument("--top-k", type=int, metavar="N", help="at most the N best of each video")
    out.add_argument("--no-pages", dest="pages", action="store_false", help="JSON and CSV alone")
    out.add_argument(
        "--copy-videos",
        action="store_true",
        help="copy the videos beside their pages, to move DIR as a whole",
    )
    out.add_argument("--restart", action="store_true", help="delete what DIR holds first")
    how = parser.add_argument_group("how it is predicted")
    how.add_argument(
        "--weights",
        choices=("newest", "best"),
        help="of which checkpoint (default: what the run's recipe says)",
    )
    how.add_argument(
        "--encoder",
        metavar="RUN_OR_FILE",
        help="that made the features: a run, a checkpoint, a file of weights, or an extraction recipe (.yaml)",
    )
    how.add_argument("--adapter", metavar="RUN", help="that changed the features")
    how.add_argument(
        "--encoder-batch",
        type=int,
        metavar="N",
        help="snippets decoded and encoded together (default: 32 or fewer)",
    )
    how.add_argument("--workers", type=int, metavar="N", help="processes that decode (default: the recipe's)")
    how.add_argument("--device", help="cpu, cuda or cuda:N (default: the GPU where there is one)")
    return parser


if __name__ == "__main__":
    main()
