"""Measure recipes side by side: peak bytes by kind and phase, seconds by part, throughput; one page of all of them.

    python launch/profile_memory.py configs/synthetic/*_tiny_actionformer.yaml --synthetic-input --steps 2
    python launch/profile_memory.py configs/thumos14/*.yaml --steps 20 --warm-up 5 --output runs/profile_thumos14
    python launch/profile_memory.py RECIPE train.batch_size=1 gradient.name=chunked --snapshot
    python launch/profile_memory.py RECIPE... --predict
    python launch/profile_memory.py RECIPE... --limit 11GiB

Each recipe trains for a few steps in a process of its own, on one device, from untrained weights. A recipe for which
memory is short becomes a row that says so. Started again with the same recipes, it measures only what is missing.
"""

import argparse


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", help="YAML training recipes")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change a value of every recipe")
    parser.add_argument("--steps", type=int, default=10, help="timed steps per fidelity (10)")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before them (2)")
    parser.add_argument(
        "--synthetic-input",
        action="store_true",
        help="random batches: no data need exist, and none is decoded",
    )
    parser.add_argument("--output", default="runs/profile", help="folder of rows and page (runs/profile)")
    parser.add_argument(
        "--snapshot",
        action="store_true",
        help="keep PyTorch's profiler trace, and on CUDA its memory snapshot",
    )
    prediction = parser.add_mutually_exclusive_group()
    prediction.add_argument(
        "--predict", action="store_true", help="predict too, for this device; shown in columns of its own"
    )
    prediction.add_argument(
        "--predicted", metavar="FILE", help="the same from the file of launch/plan_memory.py --json FILE"
    )
    parser.add_argument(
        "--limit", metavar="BYTES", help="such as 11GiB: refuse memory as a smaller GPU would (CUDA alone)"
    )
    parser.add_argument("--restart", action="store_true", help="measure again what was measured before")
    assumed = parser.add_argument_group(
        "with --synthetic-input, where no annotations or features are there to ask"
    )
    assumed.add_argument("--classes", type=int, default=20, help="classes of the head (20)")
    assumed.add_argument(
        "--feature-width",
        type=int,
        help="width of features from disk (that of head.streams together, else 512)",
    )
    assumed.add_argument("--snippets", type=int, default=128, help="snippets of features from disk (128)")
    arguments = parser.parse_intermixed_args()
    files = [each for each in arguments.recipes if "=" not in each]
    overrides = [each for each in arguments.recipes if "=" in each] + arguments.overrides
    if not files:
        parser.error("no recipe is given, only overrides")

    from pathlib import Path

    from lofi.command import run_command
    from lofi.config.objectives import OWN_PARTS
    from lofi.memory.budget import parse_bytes
    from lofi.report.memory_page import read_memory_rows
    from lofi.stages.named_recipes import load_recipes
    from lofi.stages.plan import options_of_this_device, run_plan
    from lofi.stages.profile import run_profile
    from lofi.stages.profile_steps import ProfileOptions
    from lofi.stages.synthetic_input import Assumed
    from sola import PARTS as SOLA

    def profile() -> int:
        output = Path(arguments.output)
        assumed = Assumed(
            classes=arguments.classes, feature_width=arguments.feature_width, num_snippets=arguments.snippets
        )
        options = ProfileOptions(
            steps=arguments.steps,
            warm_up=arguments.warm_up,
            synthetic_input=arguments.synthetic_input,
            limit_bytes=None if arguments.limit is None else parse_bytes(arguments.limit, name="--limit"),
            snapshot=str(output / "snapshots") if arguments.snapshot else None,
            assumed=assumed,
        )
        recipes = load_recipes(files, overrides, parts=OWN_PARTS.joined(SOLA))
        predicted = [] if arguments.predicted is None else read_memory_rows(arguments.predicted)
        not_planned: tuple[str, ...] = ()
        if arguments.predict:
            planned = run_plan(recipes, options=options_of_this_device(assumed=assumed))
            predicted, not_planned = planned.rows, planned.failed
        code = run_profile(
            recipes, options=options, output=output, predicted=predicted, restart=arguments.restart
        )
        return code or (1 if not_planned else 0)

    return run_command(profile)


if __name__ == "__main__":
    raise SystemExit(main())
