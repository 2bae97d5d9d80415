"""Probe features without training a head: which classes, and which action from background, does a linear layer see in them?

    python launch/probe.py runs/features_tac runs/features_tsp --annotations data/synthetic/untrimmed/annotations.json
    python launch/probe.py FEATURES --annotations FILE --json probe.json

The layer is fitted on the training subset's snippets and measured on the validation subset's, by balanced accuracy: the class of
snippets inside actions, and action against background over all. Beside it the mean cosine similarity of adjacent snippets and of
snippets half a video apart: equal ones tell of features that are blind to when. Minutes at most; features are made by
launch/extract.py.
"""

import argparse


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("features", nargs="+", metavar="FEATURES", help="feature directories")
    parser.add_argument(
        "--annotations", required=True, metavar="FILE", help="annotations.json of their videos"
    )
    parser.add_argument("--training-subset", default="training", metavar="NAME", help="to fit on (training)")
    parser.add_argument(
        "--validation-subset", default="validation", metavar="NAME", help="to measure on (validation)"
    )
    parser.add_argument(
        "--max-snippets", type=int, default=100_000, metavar="N", help="of each subset, drawn (100000)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of that draw (0)")
    parser.add_argument("--json", metavar="FILE", help="also write the rows")
    arguments = parser.parse_args()

    from lofi.command import run_command
    from lofi.stages.probe import ProbeOptions, run_probe

    def probe() -> None:
        options = ProbeOptions(
            training_subset=arguments.training_subset,
            validation_subset=arguments.validation_subset,
            max_snippets=arguments.max_snippets,
            seed=arguments.seed,
        )
        run_probe(
            arguments.features, annotations=arguments.annotations, options=options, output=arguments.json
        )

    return run_command(probe)


if __name__ == "__main__":
    raise SystemExit(main())
