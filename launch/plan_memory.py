"""Predict the peak memory of training steps, without a GPU, without data and without allocating it.

    python launch/plan_memory.py configs/synthetic/*_tiny_actionformer.yaml
    python launch/plan_memory.py configs/activitynet13/chunked_tsm_resnet18_actionformer.yaml --world-size 8
    python launch/plan_memory.py RECIPE train.batch_size=1 gradient.name=chunked gradient.chunk_size=4 --json plan.json
    python launch/plan_memory.py RECIPE --budget 11GiB

One step of every recipe runs on fake tensors: forward, backward, clipping, optimizer. Printed are its peak bytes on one rank
by kind, where in the step the peak lies, and the modules that hold most. With --budget: for every gradient path the largest
fidelity, batch and chunk that fit, in the order of their predicted cost, each with the overrides to paste. Of several recipes
one that cannot be planned is named at the end, with the reason; the exit code is then 1.
"""

import argparse
import gc
from importlib import import_module


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", help="YAML training recipes")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change a value of every recipe")
    parser.add_argument("--world-size", type=int, default=1, help="ranks that share the batch (1)")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="where the run will train (cuda)"
    )
    parser.add_argument(
        "--no-bf16",
        action="store_true",
        help="the GPU has no bf16 (before Ampere, such as a V100): train.precision: auto is fp16",
    )
    parser.add_argument("--budget", metavar="BYTES", help="such as 11GiB: what of the recipe fits one device")
    parser.add_argument("--json", metavar="FILE", help="also write the rows, as memory.json has them")
    assumed = parser.add_argument_group("where no annotations or features are there to ask")
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

    gc.disable()  # imports make a million objects that stay: searching them for garbage takes seconds
    import_module("torch._dynamo")  # what optimizers and checkpoints import when they are first used
    from lofi.command import run_command
    from lofi.config.objectives import OWN_PARTS
    from lofi.stages.budget import run_budget
    from lofi.stages.named_recipes import load_recipes
    from lofi.stages.plan import PlanOptions, run_plan, training_files
    from lofi.stages.synthetic_input import Assumed
    from sola import PARTS as SOLA

    gc.freeze()
    gc.enable()

    def plan() -> int:
        options = PlanOptions(
            device=arguments.device,
            has_bf16=not arguments.no_bf16,
            world_size=arguments.world_size,
            assumed=Assumed(
                classes=arguments.classes,
                feature_width=arguments.feature_width,
                num_snippets=arguments.snippets,
            ),
        )
        recipes = load_recipes(training_files(files), overrides, parts=OWN_PARTS.joined(SOLA))
        if arguments.budget is None:
            planned = run_plan(recipes, options=options, output=arguments.json)
            return 1 if planned.failed else 0
        run_budget(recipes, budget=arguments.budget, options=options, output=arguments.json)
        return 0

    try:
        return run_command(plan)
    finally:
        gc.unfreeze()  # else triton reports what it still holds when Python ends


if __name__ == "__main__":
    raise SystemExit(main())
