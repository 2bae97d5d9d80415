"""Evaluate a run, or a prediction file against an annotation file: mAP and AR.

python launch/evaluate.py runs/frozen_tiny_actionformer
python launch/evaluate.py --annotations annotations.json --predictions predictions.json --subset validation
python launch/evaluate.py --annotations A.json --predictions P.json --subset test --tious 0.3:0.7:0.1 --output results.json
"""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", nargs="?", type=Path, help="a run directory; its validation subset is predicted anew"
    )
    parser.add_argument("--annotations", type=Path, help="annotations.json")
    parser.add_argument("--predictions", type=Path, help="predictions.json")
    parser.add_argument("--subset", help="subset of the annotations, such as validation")
    parser.add_argument("--tious", help="first:last:step or a list, such as 0.3:0.7:0.1 or 0.5,0.75,0.95")
    parser.add_argument("--output", type=Path, help="where to write results.json")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    arguments = parser.parse_args()
    files = (arguments.annotations, arguments.predictions, arguments.subset)
    if (arguments.run is None) == (None in files):
        parser.error("name a run directory, or all of --annotations, --predictions and --subset")
    if arguments.run is not None and (any(files) or arguments.tious or arguments.output):
        parser.error("a run directory says its own annotations, subset, tIoUs and output")

    from lofi.command import run_command
    from lofi.engine.deepspeed_engine import end_process
    from lofi.evaluation.mean_average_precision import EvaluationConfig, parse_tious
    from lofi.evaluation.results import write_results
    from lofi.progress import say
    from lofi.stages.evaluate import evaluate_run
    from lofi.stages.score import evaluate_files

    def evaluate() -> None:
        if arguments.run is not None:
            results = evaluate_run(arguments.run).results
        else:
            config = (
                EvaluationConfig(tious=parse_tious(arguments.tious))
                if arguments.tious
                else EvaluationConfig()
            )
            results = evaluate_files(
                annotations=arguments.annotations,
                predictions=arguments.predictions,
                subset=arguments.subset,
                config=config,
            )
            if arguments.output is not None:
                write_results(arguments.output, results)
        say(results.describe())

    end_process(run_command(evaluate))


if __name__ == "__main__":
    main()
