"""What `encoder.weights` names, read: a file, a checkpoint, a run, or weights that a library or a hub hands out.

torchvision, timm and the hub are imported where a name asks for them.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from torch import Tensor

from lofi.encoders.weights.files import read_weights
from lofi.run_files import BEST_FILE, WEIGHTS_FILE, read_best_file

TORCHVISION_PREFIX = "torchvision:"
TIMM_PREFIX = "timm:"
HUB_PREFIX = "hf:"

HUB_FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
"""Which file of a Hugging Face repository is taken: the first that is there."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Tensors as they were found, on the CPU, without the prefix that data-parallel wrappers put before every name."""

    where: str
    """The file, or the name of the weights."""
    state: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    """Of a .safetensors file's header."""


def read_source(source: str | Path, *, torchvision_name: str | None = None) -> Source:
    """Read whatever `encoder.weights` names.

    Args:
        source: a .safetensors or .pth file; a run directory (the checkpoint that it hands on); a checkpoint directory;
            "torchvision:NAME" (`DEFAULT` or `R2Plus1D_18_Weights.KINETICS400_V1`); "timm:NAME", a model and its tag; or
            "hf:OWNER/REPOSITORY", perhaps with "/FILE".
        torchvision_name: of the network whose weights a name of torchvision means.

    Raises:
        ValueError: for a missing, damaged or unsafe file, and for a name that is not known or cannot be downloaded.
    """
    name = str(source)
    if name.startswith(TORCHVISION_PREFIX):
        return Source(
            where=name, state=_from_torchvision(name.removeprefix(TORCHVISION_PREFIX), torchvision_name)
        )
    if name.startswith(TIMM_PREFIX):
        return Source(where=name, state=_from_timm(name.removeprefix(TIMM_PREFIX)))
    if name.startswith(HUB_PREFIX):
        path = _from_hub(name.removeprefix(HUB_PREFIX))
        state, metadata = read_weights(path)
        return Source(where=f"{name} ({path.name})", state=_strip_module(state), metadata=metadata)
    path = find_weights(source)
    state, metadata = read_weights(path)
    return Source(where=str(path), state=_strip_module(state), metadata=metadata)


def find_weights(source: str | Path) -> Path:
    """The file that a path stands for: itself, a checkpoint's weights, or those of a run's newest checkpoint (its best one,
    where the run's recipe says `evaluation.weights: best`)."""
    path = Path(source)
    if path.is_file():
        return path
    if not path.exists():
        raise ValueError(
            f"encoder.weights: {path} does not exist; it must be a file, a run directory, {TORCHVISION_PREFIX}NAME, "
            f"{TIMM_PREFIX}NAME or {HUB_PREFIX}OWNER/REPOSITORY."
        )
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    best = _best_checkpoint(path / "checkpoints")
    if best is not None:
        return best / WEIGHTS_FILE
    steps = [
        (int(match.group(1)), folder / WEIGHTS_FILE)
        for folder in (path / "checkpoints").glob("step_*")
        if (match := re.fullmatch(r"step_(\d+)", folder.name)) and (folder / WEIGHTS_FILE).is_file()
    ]
    if not steps:
        raise ValueError(
            f"encoder.weights: the directory {path} has no {WEIGHTS_FILE}, neither directly nor in "
            f"checkpoints/step_*/; has its run saved a checkpoint?"
        )
    return max(steps)[1]


def _best_checkpoint(checkpoints: Path) -> Path | None:
    """The checkpoint that best.json names, where the run hands on its best and not its newest."""
    try:
        best = read_best_file(checkpoints)
    except ValueError as error:
        raise ValueError(f"encoder.weights: {error}") from error
    if best is None or not best.is_handed_on:
        return None
    if not (best.checkpoint / WEIGHTS_FILE).is_file():
        raise ValueError(
            f"encoder.weights: {checkpoints / BEST_FILE} names {best.checkpoint.name}, which has no {WEIGHTS_FILE}; name "
            "another checkpoint."
        )
    return best.checkpoint


def _strip_module(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that data-parallel wrappers put before every name."""
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _from_torchvision(name: str, network: str | None) -> dict[str, Tensor]:
    import torchvision

    if "." in name:
        try:
            weights = torchvision.models.get_weight(name)
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"encoder.weights: torchvision has no weights {name!r}{_near(name, _torchvision_weights())}."
            ) from error
    elif network is None:
        raise ValueError(
            f"encoder.weights: {TORCHVISION_PREFIX}{name} does not say of which network, and the encoder does not tell it. Name "
            f"network and weights, such as {TORCHVISION_PREFIX}R2Plus1D_18_Weights.DEFAULT"
            f"{_near(f'{name}_Weights', _torchvision_weights())}."
        )
    else:
        choices = torchvision.models.get_model_weights(network)
        if name not in choices.__members__:
            raise ValueError(
                f"encoder.weights: torchvision has no weights {name!r} of {network}; "
                f"it has {', '.join(choices.__members__)}."
            )
        weights = choices[name]
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        of = f" of {network}" if network else ""
        raise ValueError(
            f"encoder.weights: torchvision could not download {name}{of} ({error}); give it as a file."
        ) from error


def _torchvision_weights() -> list[str]:
    """Every name that `torchvision.models.get_weight` takes."""
    import torchvision

    enums = map(torchvision.models.get_model_weights, torchvision.models.list_models())
    return sorted({f"{each.__name__}.{name}" for each in enums for name in each.__members__})


def _near(name: str, known: Collection[str]) -> str:
    """ "; near it: ..." of the names most like one that is none of them; "" where none is like it."""
    folded = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), folded, n=5, cutoff=0.7)
    return f"; near it: {', '.join(folded[each] for each in near)}" if near else ""


def _from_timm(name: str) -> dict[str, Tensor]:
    """As timm loads them, under its own names: it resizes and renames what its models were published as."""
    import timm

    network, _, tag = name.partition(".")
    if not timm.is_model(network):
        near = _near(name, timm.list_models()) or "; timm.list_models() lists its models"
        raise ValueError(f"encoder.weights: timm has no model {network!r}{near}.")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{network}.*")]
    if tag and tag not in tags:
        has = f"it has {', '.join(tags)}" if tags else "it has none"
        raise ValueError(f"encoder.weights: timm has no weights {tag!r} of {network}; {has}.")
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # timm and its hub raise their own, of many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"encoder.weights: timm could not get {name} ({reason}); give it as a file."
        ) from error
    return dict(model.state_dict())


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    parts = name.split("/")
    if len(parts) < 2 or not all(parts):
        raise ValueError(
            f"encoder.weights: {HUB_PREFIX}{name} must be {HUB_PREFIX}OWNER/REPOSITORY or {HUB_PREFIX}OWNER/REPOSITORY/FILE."
        )
    repository, files = "/".join(parts[:2]), ("/".join(parts[2:]),) if len(parts) > 2 else HUB_FILES
    for file in files:
        try:
            return Path(hf_hub_download(repository, file))
        except EntryNotFoundError as error:
            last: Exception = error
        except (OSError, HFValidationError) as error:
            raise _not_from_hub(name, error) from error
    raise _not_from_hub(f"{name} (any of {', '.join(files)})", last) from last


def _not_from_hub(name: str, error: Exception) -> ValueError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(
        f"encoder.weights: Hugging Face's hub gave no {name} ({reason}); give the weights as a file."
    )
