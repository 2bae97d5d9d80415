"""Compare methods: make the benchmark's data, run whole pipelines over several seeds, and write one report.

    python launch/compare.py configs/synthetic/quickstart.yaml
    python launch/compare.py configs/synthetic/quickstart.yaml seeds=[0] output=runs/one_seed
    python launch/compare.py configs/synthetic/quickstart.yaml synthetic.scene_correlation=0.8 data_output=data/p08 output=runs/p08
    python launch/compare.py configs/synthetic/sweep.yaml
    python launch/compare.py configs/synthetic/compare.yaml "scene_correlations=[0.5,1.0]"
    python launch/compare.py configs/synthetic/quickstart.yaml "labelled_shares=[0.25,1.0]" output=runs/labels
    python launch/compare.py configs/synthetic/quickstart.yaml probe=true
    python launch/compare.py configs/synthetic/quickstart.yaml --restart

With scene_correlations the comparison is run once for each of them: how often the scene tells the class. With labelled_shares
every chain is run at each of these shares of the labelled training videos, with equal steps; stages without labels run once.
With probe: true linear probes of every chain's features stand beside its mAP. Started again, it does not redo what is finished.
"""

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", help="a YAML file, such as configs/synthetic/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="change a value of that file")
    parser.add_argument("--restart", action="store_true", help="delete the output and begin again")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    arguments = parser.parse_intermixed_args()

    from lofi.command import run_command
    from lofi.config.objectives import OWN_PARTS
    from lofi.engine.deepspeed_engine import end_process
    from lofi.stages.chains import load_comparison
    from lofi.stages.compare import run_comparison
    from lofi.stages.sweep import run_sweep
    from sola import PARTS as SOLA

    def compare() -> int:
        parts = OWN_PARTS.joined(SOLA)
        comparison = load_comparison(arguments.comparison, arguments.overrides, parts=parts)
        is_sweep = comparison.scene_correlations or comparison.labelled_shares
        run = run_sweep if is_sweep else run_comparison
        return run(comparison, restart=arguments.restart, parts=parts)

    end_process(run_command(compare, file=arguments.comparison))


if __name__ == "__main__":
    main()
