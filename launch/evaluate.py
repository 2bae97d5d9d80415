"""Evaluate a prediction file against an annotation file, or a run: mAP, recall, and why.

    python launch/evaluate.py --annotations annotations.json --predictions predictions.json --subset validation
    python launch/evaluate.py --annotations A.json --predictions P.json --subset test --tious 0.3:0.7:0.1 --output results.json
    python launch/evaluate.py --annotations A.json --predictions P.json --dataset thumos14 --plots plots/ --bootstrap
    python launch/evaluate.py --annotations A.json --predictions P.json --dataset thumos14 --against baseline.json
    python launch/evaluate.py --annotations A.json --predictions P.json --dataset thumos14 --protocol thumos14 --ambiguous Ambiguous_test.txt
    python launch/evaluate.py runs/frozen_tiny_actionformer
    python launch/evaluate.py runs/frozen_tiny_actionformer --no-predict --plots plots/ --against runs/other/predictions.json

Both files are in ActivityNet's JSON form. A run's validation subset is predicted anew and its predictions.json and
results.json are written; --no-predict scores the predictions.json that is there. Options that change what is computed change
what is printed and written by --output and --plots; a run's own results.json always holds its recipe's.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = build_parser()
    arguments = parser.parse_args()
    check_arguments(parser, arguments)

    from lofi.command import run_command
    from lofi.evaluation.dataset_rules import CUSTOM_RULES
    from lofi.evaluation.mean_average_precision import parse_tious
    from lofi.evaluation.results import write_results
    from lofi.files import write_json
    from lofi.progress import is_main_rank, say
    from lofi.report.evaluation_tables import print_evaluation
    from lofi.stages.score import Scoring
    from lofi.stages.score_files import Sources, check_sources, rules_named, score_files

    def evaluate() -> None:
        rules = rules_named(arguments.dataset) if arguments.dataset else CUSTOM_RULES
        tious = parse_tious(arguments.tious) if arguments.tious is not None else list(rules.tious)
        scoring = Scoring(
            tious=tious,
            rules=rules,
            protocol=arguments.protocol,
            errors=arguments.errors or arguments.plots is not None,
            curves=arguments.plots is not None,
            bootstrap=arguments.bootstrap,
            seed=arguments.seed or 0,
        )
        sources = Sources(
            annotations=arguments.annotations or Path(),
            predictions=arguments.predictions or Path(),
            subset=arguments.subset,
            ambiguous=arguments.ambiguous,
            exclude=arguments.exclude,
            against=arguments.against,
        )
        if arguments.run is not None:
            from lofi.config.objectives import OWN_PARTS
            from lofi.stages.score_run import predict_run, run_files, with_run  # brings torch
            from sola import PARTS as SOLA

            parts = OWN_PARTS.joined(SOLA)
            keeps_tious = arguments.tious is not None or arguments.dataset is not None
            sources, scoring = with_run(
                run_files(arguments.run, parts=parts),
                sources=sources,
                scoring=scoring,
                keeps_tious=keeps_tious,
            )
            check_sources(sources, scoring=scoring)  # before what may take hours
            predict_run(arguments.run, anew=not arguments.no_predict, weights=arguments.weights, parts=parts)
        if not is_main_rank():
            return
        scored = score_files(sources, scoring=scoring)
        if arguments.output is not None:  # first: a pipe may close while the tables are printed
            write_results(arguments.output, scored.results)
        print_evaluation(scored.results.to_plain(), notes=scored.notes)
        if arguments.output is not None:
            say(f"results: {arguments.output}")
        if arguments.plots is not None:
            say("drawing the figures")
            from lofi.report.evaluation_page import write_evaluation_page  # brings matplotlib

            whole = {**scored.results.to_plain(), "curves": scored.curves, "notes": scored.notes}
            write_json(arguments.plots / "evaluation.json", whole)
            say(f"figures: {write_evaluation_page(arguments.plots)}")

    code = run_command(evaluate)
    if arguments.run is None:
        sys.exit(code)
    from lofi.engine.deepspeed_engine import end_process

    end_process(code)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path, help="a run directory, instead of the two files")
    what = parser.add_argument_group("what is scored")
    what.add_argument("--annotations", type=Path, metavar="JSON", help="annotations")
    what.add_argument("--predictions", type=Path, metavar="JSON", help="predictions")
    what.add_argument(
        "--subset", help="subset of the annotations, such as validation (default: the dataset's)"
    )
    what.add_argument(
        "--exclude", type=Path, metavar="FILE", help="names of videos to leave out, one per line or JSON"
    )
    what.add_argument(
        "--ambiguous",
        type=Path,
        metavar="FILE",
        help="lines VIDEO START END: stretches that count neither way",
    )
    how = parser.add_argument_group("how it is scored")
    how.add_argument(
        "--dataset",
        metavar="NAME",
        help="its thresholds, subset and rules: thumos14, multithumos, activitynet13, activitynet12, hacs, fineaction, "
        "epic_kitchens100, epic_kitchens100_verb, epic_kitchens100_noun, ego4d_mq or charades (an option given beside it "
        "wins)",
    )
    how.add_argument(
        "--tious", help="first:last:step or a list: 0.3:0.7:0.1, 0.5,0.75,0.95 (default 0.5:0.95:0.05)"
    )
    how.add_argument(
        "--protocol",
        default="default",
        metavar="NAME",
        help="default, activitynet, opentad or thumos14: whose rules where evaluators differ",
    )
    more = parser.add_argument_group("what else is computed")
    more.add_argument(
        "--errors", action="store_true", help="analyse errors: types, what each costs, what is missed"
    )
    more.add_argument(
        "--bootstrap",
        type=int,
        nargs="?",
        const=1000,
        default=0,
        metavar="N",
        help="interval of average mAP by N resamples of the videos (1000)",
    )
    more.add_argument(
        "--against", type=Path, metavar="JSON", help="other predictions: difference and paired test"
    )
    more.add_argument("--seed", type=int, help="of the resampling (default 0)")
    out = parser.add_argument_group("what is written")
    out.add_argument("--output", type=Path, metavar="JSON", help="results.json")
    out.add_argument(
        "--plots",
        type=Path,
        metavar="FOLDER",
        help="a page with figures, the figures, and their numbers; --errors included",
    )
    of_run = parser.add_argument_group("of a run directory")
    of_run.add_argument("--no-predict", action="store_true", help="score its predictions.json as it is")
    of_run.add_argument(
        "--weights",
        choices=("newest", "best"),
        help="checkpoint to predict with (default: what its recipe says)",
    )
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    return parser


def check_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse what does not go together."""
    if arguments.run is not None:
        if arguments.annotations or arguments.predictions or arguments.subset:
            parser.error("a run directory says its own annotations, predictions and subset")
    elif None in (arguments.annotations, arguments.predictions) or not (
        arguments.subset or arguments.dataset
    ):
        parser.error(
            "name a run directory, or --annotations, --predictions and --subset (or a --dataset that says the subset)"
        )
    if arguments.no_predict and arguments.run is None:
        parser.error("--no-predict goes with a run directory; files are never predicted")
    if arguments.weights is not None and (arguments.run is None or arguments.no_predict):
        parser.error("--weights goes with a run directory that is predicted anew")
    if arguments.seed is not None and not (arguments.bootstrap or arguments.against):
        parser.error("--seed goes with --bootstrap or --against; nothing else is drawn")
    if arguments.output is not None and arguments.output.is_dir():
        parser.error(f"--output {arguments.output} is a folder; name a file in it, such as results.json")
    if arguments.plots is not None and arguments.plots.exists() and not arguments.plots.is_dir():
        parser.error(f"--plots {arguments.plots} is a file; name a folder")
    read = (arguments.annotations, arguments.predictions, arguments.against)
    if arguments.output is not None and arguments.output in read:
        parser.error(f"--output {arguments.output} would replace a file that is read")


if __name__ == "__main__":
    main()
