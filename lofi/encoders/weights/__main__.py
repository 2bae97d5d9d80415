"""Say what a file of weights is, which encoder takes it, and the recipe's lines for it.

    python -m lofi.encoders.weights r2plus1d_34-tsp_on_activitynet.pth
    python -m lofi.encoders.weights checkpoint.pth --encoder videomae size=large
    python -m lofi.encoders.weights runs/lofi_s_tiny_actionformer
    python -m lofi.encoders.weights torchvision:R2Plus1D_18_Weights.KINETICS400_V1
    python -m lofi.encoders.weights hf:MCG-NJU/videomae-base-finetuned-kinetics
    python -m lofi.encoders.weights model.pth --encoder tsm network=resnet50 'allow_unmatched=[layer3.*.nl.*]'

Known are weights of torchvision and timm (by name or as a file), of the repositories of TSM, TSP, VideoMAE (V1, V2)
and Video Swin, of MMAction2 (TSM, R(2+1)D, Swin, VideoMAE), of Hugging Face's VideoMAE, and of this program. Nothing
is written.

Exit code: 0 where the weights fit an encoder (the named one), 1 where they do not, 2 where they cannot be read.
"""

import argparse
import ast
import sys
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lofi.encoders.weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "weights",
        help="a file, a run or checkpoint directory, torchvision:NAME, timm:NAME, hf:OWNER/REPOSITORY[/FILE]",
    )
    parser.add_argument("--encoder", metavar="NAME", help="hold them against this encoder alone (all)")
    parser.add_argument(
        "options", nargs="*", metavar="key=value", help="options of --encoder, as in a recipe"
    )
    arguments = parser.parse_intermixed_args()
    if arguments.options and arguments.encoder is None:
        parser.error("key=value are options of an encoder; name it with --encoder")

    from lofi.encoders.weights.describe import candidates, describe, meet, open_bare
    from lofi.encoders.weights.sources import TIMM_PREFIX, read_source

    try:
        options = dict(_option(text) for text in arguments.options)
        torchvision_name = None
        if arguments.encoder is not None:
            torchvision_name = getattr(open_bare(arguments.encoder, options)[1], "torchvision_name", None)
        source = read_source(arguments.weights, torchvision_name=torchvision_name)
        if arguments.encoder is not None:
            found = [meet(arguments.encoder, options, source.state)]
        else:
            is_timm = arguments.weights.startswith(TIMM_PREFIX)
            network = arguments.weights.removeprefix(TIMM_PREFIX).split(".")[0] if is_timm else None
            found = candidates(source.state, network=network)
        print(describe(source, found, weights=arguments.weights))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if found[0].fit.is_whole else 1


def _option(text: str) -> tuple[str, Any]:
    """`key=value` as a recipe would read it: numbers, words, [lists of words]."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"{text!r} is not of the form key=value.")
    if value.startswith("[") and value.endswith("]"):
        return key, tuple(_literal(word.strip()) for word in value[1:-1].split(",") if word.strip())
    return key, _literal(value)


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


if __name__ == "__main__":
    raise SystemExit(main())
