"""Train a recipe: every objective, on one or many GPUs, or on a CPU.

deepspeed launch/train.py configs/synthetic/lofi_s_tiny_actionformer.yaml
deepspeed --num_gpus 2 launch/train.py RECIPE train.epochs=3 encoder.weights=runs/tac_tiny
python launch/train.py RECIPE --resume
python launch/train.py RECIPE memory.budget=11GiB
"""

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recipe", help="a YAML recipe, such as configs/synthetic/lofi_s_tiny_actionformer.yaml"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change a value of the recipe")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the interrupted run in the recipe's output"
    )
    parser.add_argument(
        "--restart", action="store_true", help="delete the run in the recipe's output and begin again"
    )
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    arguments = parser.parse_intermixed_args()
    if arguments.resume and arguments.restart:
        parser.error("--resume and --restart exclude each other")

    from lofi.command import run_command
    from lofi.config.load import load_recipe
    from lofi.config.objectives import OWN_PARTS
    from lofi.engine.deepspeed_engine import end_process
    from lofi.progress import say
    from lofi.stages.budget import apply_budget, choice_of_run
    from lofi.stages.train import run_training
    from sola import PARTS as SOLA

    def train() -> None:
        parts = OWN_PARTS.joined(SOLA)
        recipe = load_recipe(arguments.recipe, arguments.overrides, parts=parts)
        recipe = choice_of_run(recipe, parts=parts) if arguments.resume else apply_budget(recipe)
        run = run_training(recipe, resume=arguments.resume, restart=arguments.restart)
        say(f"run directory: {run.path}")

    end_process(run_command(train, file=arguments.recipe))


if __name__ == "__main__":
    main()
