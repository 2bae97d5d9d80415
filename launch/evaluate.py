"""Evaluate a prediction file against an annotation file, or a run: mAP, AR, and why.

    python launch/evaluate.py --annotations annotations.json --predictions predictions.json --subset validation
    python launch/evaluate.py --annotations A.json --predictions P.json --subset test --tious 0.3:0.7:0.1 --output results.json
    python launch/evaluate.py --annotations A.json --predictions P.json --subset test --protocol opentad --plots plots/
    python launch/evaluate.py runs/frozen_tiny_actionformer
    python launch/evaluate.py runs/frozen_tiny_actionformer --no-predict --tious 0.3:0.7:0.1 --plots plots/

A run's validation subset is predicted anew; --no-predict scores the predictions.json that is there.
"""

import argparse
import sys
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path, help="a run directory, instead of the three files below")
    parser.add_argument("--annotations", type=Path, help="annotations in ActivityNet's JSON form")
    parser.add_argument("--predictions", type=Path, help="predictions in ActivityNet's JSON form")
    parser.add_argument("--subset", help="subset of the annotations, such as validation")
    parser.add_argument(
        "--tious",
        help="first:last:step or a list, such as 0.3:0.7:0.1 or 0.5,0.75,0.95 (default 0.5:0.95:0.05)",
    )
    parser.add_argument(
        "--protocol",
        default="default",
        help="whose rules: default, activitynet, opentad or thumos14 (see lofi/evaluation/protocols.py)",
    )
    parser.add_argument("--output", type=Path, help="where to write results.json")
    parser.add_argument(
        "--plots", type=Path, help="folder for the figures, a page with all of them, and their numbers"
    )
    parser.add_argument(
        "--no-predict", action="store_true", help="of a run: score its predictions.json as it is"
    )
    parser.add_argument(
        "--weights",
        choices=("newest", "best"),
        help="of a run: the checkpoint to predict with (default: its recipe's)",
    )
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    return parser


def main() -> None:
    parser = build_parser()
    arguments = parser.parse_args()
    files = (arguments.annotations, arguments.predictions, arguments.subset)
    if arguments.run is None and None in files:
        parser.error("name a run directory, or all of --annotations, --predictions and --subset")
    if arguments.run is not None and any(files):
        parser.error("a run directory says its own annotations, predictions and subset")
    if arguments.no_predict and arguments.run is None:
        parser.error("--no-predict goes with a run directory; files are never predicted")

    if arguments.weights is not None and (arguments.run is None or arguments.no_predict):
        parser.error("--weights goes with a run directory that is predicted anew")

    from lofi.command import run_command
    from lofi.evaluation.mean_average_precision import ACTIVITYNET_TIOUS, parse_tious
    from lofi.evaluation.results import write_results
    from lofi.progress import is_main_rank, say
    from lofi.report.evaluation_tables import print_evaluation
    from lofi.stages.score import Scoring, score_files

    def evaluate() -> None:
        annotations, predictions, subset = files
        tious = list(ACTIVITYNET_TIOUS)
        if arguments.run is not None:
            from lofi.stages.score_run import predicted_run  # brings torch, which files do not need

            run = predicted_run(arguments.run, predict=not arguments.no_predict, weights=arguments.weights)
            annotations, predictions, subset, tious = run.annotations, run.predictions, run.subset, run.tious
        if not is_main_rank():
            return
        scoring = Scoring(
            tious=parse_tious(arguments.tious) if arguments.tious else tious, protocol=arguments.protocol
        )
        scored = score_files(annotations=annotations, predictions=predictions, subset=subset, scoring=scoring)
        print_evaluation(scored.results.to_plain())
        if arguments.output is not None:
            write_results(arguments.output, scored.results)
            say(f"results: {arguments.output}")

    code = run_command(evaluate)
    if arguments.run is None:
        sys.exit(code)
    from lofi.engine.deepspeed_engine import end_process

    end_process(code)


if __name__ == "__main__":
    main()
