"""Extract features: an encoder and videos -> a feature directory (one VIDEO.npy each and manifest.json).

Started again, it goes on where it stopped; other settings need another output.

    python launch/extract.py configs/synthetic/extract_tiny.yaml encoder.weights=runs/tac_tiny output=runs/features/tac
    deepspeed --num_gpus 2 launch/extract.py RECIPE
"""

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recipe", help="a YAML extraction recipe, such as configs/synthetic/extract_tiny.yaml"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change a value of the recipe")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    arguments = parser.parse_args()

    from lofi.command import run_command
    from lofi.config.load import load_extraction_recipe
    from lofi.engine.deepspeed_engine import end_process
    from lofi.progress import say
    from lofi.stages.extract import run_extraction

    def extract() -> int:
        recipe = load_extraction_recipe(arguments.recipe, arguments.overrides)
        extracted = run_extraction(recipe)
        for video, reason in sorted(extracted.failures.items()):
            say(f"failed: {video}: {reason}")
        say(f"feature directory: {extracted.path}, {extracted.num_videos} videos")
        return 1 if extracted.failures else 0

    end_process(run_command(extract, file=arguments.recipe))


if __name__ == "__main__":
    main()
