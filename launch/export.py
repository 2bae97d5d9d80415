"""Write the fine-tuned snippet encoder of a run for other programs.

    python launch/export.py runs/lofi_s_tiny_actionformer --to encoder.safetensors
    python launch/export.py runs/chunked_r2plus1d34_actionformer --to encoder.safetensors --weights best
    python launch/export.py runs/lofi_s_tiny_actionformer --to encoder.pt2
    python launch/export.py runs/lofi_s_tiny_actionformer --to encoder.onnx

The ending tells the format, as does --format:

    safetensors     the weights alone. Where the encoder is an architecture of torchvision or timm they have its names, so that
                    the plain module loads them: model.load_state_dict(load_file(FILE), strict=False), which misses the head
                    alone. encoder.weights=FILE takes them back, in either case.
    torch_export    the whole forward pass (.pt2), for torch.export.load(FILE).module()
    onnx            the whole forward pass; pip install 'lofi-sola[onnx]'

Both programs take (N, 3, T, H, W) uint8 RGB frames at the run's full fidelity, for any N, and give (N, D) features; they are run
once and compared with the encoder before they are kept. Fidelity, normalisation, grid and versions are in the file's
metadata, under "lofi", as JSON. A file that is there is replaced.
"""

import argparse
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory that trained an encoder")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--format",
        choices=("safetensors", "torch_export", "onnx"),
        help="what to write (by the ending of FILE)",
    )
    parser.add_argument(
        "--weights", choices=("newest", "best"), help="of which checkpoint (the one that the run hands on)"
    )
    arguments = parser.parse_args()

    from lofi.command import run_command
    from lofi.config.objectives import OWN_PARTS
    from lofi.progress import say
    from lofi.stages.export import run_export
    from sola import PARTS as SOLA

    def export() -> None:
        exported = run_export(
            arguments.run,
            to=arguments.to,
            file_format=arguments.format,
            weights=arguments.weights,
            parts=OWN_PARTS.joined(SOLA),
        )
        say(
            f"{exported.path}: {exported.num_tensors} tensors of {exported.checkpoint}, names of {exported.names}"
        )
        if exported.difference is not None:
            say(f"run and compared: features differ from the encoder's by up to {exported.difference:.2g}")

    return run_command(export)


if __name__ == "__main__":
    raise SystemExit(main())
