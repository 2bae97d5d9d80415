"""Export: a run's fine-tuned snippet encoder, for other programs.

safetensors     its weights, under the names of torchvision or timm where the encoder is their architecture (their module loads
                them, head aside), else under its own; what to feed it with lies in the file's metadata
torch_export    the whole forward pass as a program of `torch.export` (.pt2): no code of this project is needed to run it
onnx            the same as an ONNX graph; needs the extra `onnx`

The two programs take (N, 3, T, H, W) uint8 RGB frames, any number N of snippets, and give (N, D) features, or
(N, R, D) of an encoder with R features per snippet; frames are normalised inside. T, H and W are those of the run's full
fidelity. A program is written only if it gives what the encoder gives.
"""

import json
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lofi.config.load import load_recipe
from lofi.config.objective_kinds import Parts
from lofi.config.objectives import OWN_PARTS
from lofi.config.recipe import Recipe
from lofi.encoders.build import build_encoder
from lofi.encoders.lora import merge_lora
from lofi.encoders.weights import load_encoder_weights
from lofi.encoders.weights.libraries import library_weights
from lofi.engine.run_directory import RunDirectory, package_versions
from lofi.engine.validation import handed_on_weights, run_weights
from lofi.fidelity import Fidelity
from lofi.files import write_atomically
from lofi.progress import say

Format = Literal["safetensors", "torch_export", "onnx"]

SUFFIXES: dict[str, str] = {".safetensors": "safetensors", ".pt2": "torch_export", ".onnx": "onnx"}
"""How a file's name ends -> its format."""

METADATA_KEY = "lofi"
"""Where the metadata lie: in a .safetensors header, an ONNX graph's properties, or an extra file of a .pt2."""

ONNX_PACKAGES = ("onnx", "onnxscript")

TOLERANCE = 1e-3
"""How far a program's features may lie from the encoder's, as a share of the greatest of them."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote."""

    path: Path
    names: str
    """Whose names the weights have: "torchvision r2plus1d_18", or this program's ("lofi")."""
    num_tensors: int
    checkpoint: str
    """The checkpoint that they are of."""
    difference: float | None
    """Greatest distance between a program's features and the encoder's; None of weights alone."""


def run_export(
    path: Path,
    *,
    to: Path,
    file_format: Format | None = None,
    weights: Literal["newest", "best"] | None = None,
    parts: Parts = OWN_PARTS,
) -> Exported:
    """Export the encoder of a run.

    Args:
        path: the run directory.
        to: the file to write; an older one is replaced.
        file_format: None takes it from the file's name (`SUFFIXES`).
        weights: of which checkpoint; None takes the one that the run hands on.
        parts: what the run's recipe can name.

    Raises:
        ValueError: where the run has no encoder or no checkpoint, and where the encoder cannot be written in this format.
    """
    file_format = file_format or format_of(to)
    _check_packages(file_format)
    run = RunDirectory(path=path)
    if not run.recipe.is_file():
        raise ValueError(f"{path} is no run directory (no {run.recipe.name}).")
    recipe = load_recipe(run.recipe, parts=parts)
    if recipe.encoder is None or recipe.fidelity is None:
        raise ValueError(
            f"{path} trained no encoder: it reads the features of {recipe.data.features}; export the run that made them."
        )
    if weights is None:
        chosen = handed_on_weights(run.checkpoints)
    else:
        chosen = run_weights(run.checkpoints, choice=weights)
    encoder = load_run_encoder(recipe, chosen)
    library = library_weights(encoder)
    state = encoder.state_dict() if library is None else library.state
    names = "lofi" if library is None else library.library
    metadata = describe_encoder(recipe, encoder, names=names, run=path, checkpoint=chosen.parent.name)
    difference = None
    if file_format == "safetensors":
        write_atomically(to, lambda partial: _save_weights(state, partial, metadata))
    else:
        program = trace(encoder, recipe.fidelity.full)
        write = _save_program if file_format == "torch_export" else _save_onnx
        difference = write(program, encoder, to, metadata=metadata, fidelity=recipe.fidelity.full)
    return Exported(
        path=to,
        names=names,
        num_tensors=len(state),
        checkpoint=chosen.parent.name,
        difference=difference,
    )


def format_of(path: Path) -> Format:
    """The format that a file's name tells."""
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"--to {path} ends in none of {', '.join(SUFFIXES)}; rename it, or say which with --format."
        )
    return SUFFIXES[path.suffix]  # type: ignore[return-value]


def load_run_encoder(recipe: Recipe, weights: Path) -> nn.Module:
    """The encoder of a run with the weights of one of its checkpoints, in evaluation; LoRA's updates are added to its layers."""
    assert recipe.encoder is not None
    config = replace(recipe.encoder.config, weights=None, allow_unmatched=())
    encoder, _ = build_encoder(recipe.encoder.name, config)
    load_encoder_weights(encoder, weights)
    merge_lora(encoder)
    return encoder.eval().requires_grad_(False)


def describe_encoder(
    recipe: Recipe, encoder: Any, *, names: str, run: Path, checkpoint: str
) -> dict[str, Any]:
    """What another program must know to use the weights: plain values, for a file's metadata."""
    assert recipe.encoder is not None
    assert recipe.fidelity is not None
    left_out = ("weights", "allow_unmatched", "lora_rank")  # LoRA's updates are in the weights now
    config = asdict(recipe.encoder.config)
    return {
        "encoder": {
            "name": recipe.encoder.name,
            **{key: value for key, value in config.items() if key not in left_out},
        },
        "names": names,
        "input": "(N, 3, T, H, W) uint8 RGB frames of N snippets",
        "normalization": {
            "order": "frames / 255, then (x - mean) / std per colour",
            "mean": list(encoder.normalize.mean),
            "std": list(encoder.normalize.std),
        },
        "feature_width": int(encoder.feature_width),
        "fidelity": asdict(recipe.fidelity.full),
        "reduction": recipe.fidelity.reduction,
        "grid": asdict(recipe.grid),
        "resize": recipe.data.resize,
        "objective": recipe.objective.name,
        "run": run.resolve().name,
        "checkpoint": checkpoint,
        "versions": package_versions(),
    }


def trace(encoder: nn.Module, fidelity: Fidelity) -> torch.export.ExportedProgram:
    """The forward pass at one fidelity, for any number of snippets. Raises ValueError where it cannot be traced."""
    frames = _random_frames(2, fidelity)
    try:
        with torch.no_grad():
            return torch.export.export(
                encoder, (frames,), dynamic_shapes={"frames": {0: torch.export.Dim("snippets", min=1)}}
            )
    except Exception as error:  # of many kinds, and none of them a user's to mend
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{type(encoder).__name__} cannot be written as a program: torch.export says {reason!r} (torch "
            f"{torch.__version__}). Export its weights: --format safetensors."
        ) from error


def _save_weights(state: dict[str, Tensor], path: Path, metadata: dict[str, Any]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(plain, path, metadata={"format": "pt", METADATA_KEY: json.dumps(metadata)})


def _save_program(
    program: torch.export.ExportedProgram,
    encoder: nn.Module,
    to: Path,
    *,
    metadata: dict[str, Any],
    fidelity: Fidelity,
) -> float:
    """Write a .pt2; returns how far its features lie from the encoder's."""
    differences: list[float] = []

    def write(partial: Path) -> None:
        with partial.open("wb") as stream:
            torch.export.save(program, stream, extra_files={f"{METADATA_KEY}.json": json.dumps(metadata)})
        with partial.open("rb") as stream:
            module = torch.export.load(stream).module()
        differences.append(_check(encoder, module, fidelity, what="torch.export's program"))

    write_atomically(to, write)
    return differences[0]


def _save_onnx(
    program: torch.export.ExportedProgram,
    encoder: nn.Module,
    to: Path,
    *,
    metadata: dict[str, Any],
    fidelity: Fidelity,
) -> float | None:
    """Write an .onnx; returns how far its features lie from the encoder's, None where onnxruntime is not there to run it."""
    differences: list[float | None] = []

    def write(partial: Path) -> None:
        try:
            graph: Any = torch.onnx.export(
                program, (), input_names=["frames"], output_names=["features"], dynamo=True, verbose=False
            )
            graph.model.metadata_props[METADATA_KEY] = json.dumps(metadata)
            graph.save(str(partial))
        except Exception as error:  # of many kinds, and none of them a user's to mend
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"{type(encoder).__name__} cannot be written as ONNX: {reason!r} (torch {torch.__version__}). "
                "torch_export may: --format torch_export."
            ) from error
        if find_spec("onnxruntime") is None:
            say("onnxruntime is not installed, so that the graph was not run and compared")
            differences.append(None)
            return
        import onnxruntime

        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])

        def run(frames: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {"frames": frames.numpy()})[0])

        differences.append(_check(encoder, run, fidelity, what="the ONNX graph"))

    write_atomically(to, write)
    return differences[0]


def _check(encoder: nn.Module, program: Any, fidelity: Fidelity, *, what: str) -> float:
    """Greatest difference over calls of one and of three snippets; ValueError where it is no rounding error."""
    greatest = 0.0
    for num_snippets in (1, 3):
        frames = _random_frames(num_snippets, fidelity)
        with torch.no_grad():
            expected, given = encoder(frames), program(frames)
        difference = float((given - expected).abs().max())
        if given.shape != expected.shape or not difference <= TOLERANCE * max(
            1.0, float(expected.abs().max())
        ):
            raise ValueError(
                f"{what} gives other features than {type(encoder).__name__} (they differ by up to {difference:.3g} on random "
                f"frames at {fidelity}), so nothing was written; export its weights: --format safetensors."
            )
        greatest = max(greatest, difference)
    return greatest


def _random_frames(num_snippets: int, fidelity: Fidelity) -> Tensor:
    generator = torch.Generator().manual_seed(num_snippets)
    shape = (num_snippets, 3, fidelity.frames, fidelity.height, fidelity.width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _check_packages(file_format: Format) -> None:
    absent = [name for name in ONNX_PACKAGES if find_spec(name) is None] if file_format == "onnx" else []
    if absent:
        raise ValueError(
            f"--format onnx needs {' and '.join(absent)}: pip install 'lofi-sola[onnx]'. torch_export needs nothing more."
        )
