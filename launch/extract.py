"""Extract features: an encoder and videos -> a feature directory (one VIDEO.npy each and manifest.json).

Or features and a trained adapter -> the adapted features. Killed at any moment and started again, it goes on where it
stopped; other settings need another output. By default a video gives fidelity.num_snippets rows; with extraction.stride_sec,
or extraction.stride_frames at grid.frame_rate, one row each stride, and snippets may overlap.

A video that cannot be decoded ends the extraction by name; with data.on_decode_error=skip it is listed at the end and in
failures.json, also of features that are adapted from those. Either way the exit code is 1: not every video has features.

    python launch/extract.py configs/synthetic/extract_tiny.yaml encoder.weights=runs/tac_tiny output=runs/features_tac
    python launch/extract.py configs/synthetic/extract_tiny.yaml grid.frame_rate=16 extraction.stride_frames=4 output=runs/dense
    deepspeed --num_gpus 2 launch/extract.py RECIPE
    python launch/extract.py --features runs/features_tac --adapter runs/sola_tiny --output runs/features_sola
"""

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recipe", nargs="?", help="a YAML extraction recipe, such as configs/synthetic/extract_tiny.yaml"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change a value of the recipe")
    parser.add_argument(
        "--features", metavar="DIR", help="a feature directory to adapt, in place of a recipe"
    )
    parser.add_argument("--adapter", metavar="RUN", help="the run that trained the adapter")
    parser.add_argument("--output", metavar="DIR", help="where the adapted features go")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    arguments = parser.parse_args()
    adapting = (arguments.features, arguments.adapter, arguments.output)
    if arguments.recipe is not None and any(adapting):
        parser.error("--features, --adapter and --output take no recipe; a recipe says its own output")
    if arguments.recipe is None and not all(adapting):
        parser.error("name an extraction recipe, or all of --features, --adapter and --output")

    from lofi.command import run_command
    from lofi.config.load import load_extraction_recipe
    from lofi.engine.deepspeed_engine import end_process
    from lofi.progress import say
    from lofi.stages.extract import run_extraction
    from sola.apply import apply_adapter

    def extract() -> int:
        if arguments.recipe is None:
            applied = apply_adapter(
                features=arguments.features, run=arguments.adapter, output=arguments.output
            )
            path, num_videos, failures = applied.path, applied.num_videos, applied.failures
        else:
            recipe = load_extraction_recipe(arguments.recipe, arguments.overrides)
            extracted = run_extraction(recipe)
            path, num_videos, failures = extracted.path, extracted.num_videos, extracted.failures
        for video, reason in sorted(failures.items()):
            say(f"skipped: {video}: {reason}")
        say(f"feature directory: {path}, {num_videos} videos")
        return 1 if failures else 0

    end_process(run_command(extract, file=arguments.recipe))


if __name__ == "__main__":
    main()
