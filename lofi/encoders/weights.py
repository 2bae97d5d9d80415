"""Initial weights of an encoder: our own runs and exports, and public checkpoints of torchvision, TSM, MMAction2 and TSP.

Each family of checkpoints has its own names for the same tensors. They are brought to torchvision's names first, then to
the encoder's. Every tensor of the file must end in the encoder, but for the old classification head and, in our own
exports, the modules beside the encoder; every tensor of the encoder must come from the file. Files are read with weights
only: a checkpoint that needs code to unpickle is refused.
"""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lofi.encoders.weight_files import TORCHVISION_PREFIX, find_weights

Renames = tuple[tuple[str, str], ...]
"""Patterns and replacements of `re.sub`, applied to a key one after another."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Checkpoints that name their tensors in one way."""

    name: str
    marker: str
    """A key that matches this pattern tells the family."""
    dropped: str
    """Keys that match this pattern are the old head, or other modules."""
    renames: Renames
    """To torchvision's names; to the encoder's own where `is_own`."""
    is_own: bool = False


_RESNET_BLOCK = r"^(layer\d\.\d+)\."

FAMILIES = (
    Family(
        name="lofi",
        marker=r"^encoder\.",
        dropped=r"^(?!encoder\.)",
        renames=((r"^encoder\.", ""),),
        is_own=True,
    ),
    Family(
        name="tsm",
        marker=r"^base_model\.",
        dropped=r"^(new_fc|base_model\.(fc|classifier))\.",
        renames=((r"^base_model\.", ""), (_RESNET_BLOCK + r"conv1\.net\.", r"\1.conv1.")),
    ),
    Family(
        name="mmaction2",
        marker=r"^backbone\.",
        dropped=r"^cls_head\.",
        renames=(
            (r"^backbone\.", ""),
            (r"\.conv\.net\.", ".conv."),
            (r"downsample\.conv\.", "downsample.0."),
            (r"downsample\.bn\.", "downsample.1."),
            (r"conv(\d)\.conv\.", r"conv\1."),
            (r"conv(\d)\.bn\.", r"bn\1."),
        ),
    ),
    Family(
        name="tsp",
        marker=r"^features\.(stem|layer1)\.",
        dropped=r"^(features\.)?fc[12]?\.",
        renames=((r"^features\.", ""),),
    ),
    Family(
        name="torchvision",
        marker=r"^(conv1\.weight|stem\.0\.weight)$",
        dropped=r"^fc\.",
        renames=(),
    ),
    Family(name="plain", marker=r"", dropped=r"$^", renames=(), is_own=True),
)
"""In the order in which they are tried. TSM and MMAction2 are those projects' TSM-ResNets, TSP its R(2+1)D-18."""

OWN_NAMES: dict[str, Renames] = {
    "TsmResnet": (
        (r"^(conv1|bn1)\.", r"stem.block.\1."),
        (_RESNET_BLOCK + r"conv1\.", r"\1.block.conv1.net."),
        (_RESNET_BLOCK + r"(?!block\.)", r"\1.block."),
    ),
    "R2plus1d": (),
}
"""Encoder class -> from torchvision's names to the encoder's."""

COUNTER = "num_batches_tracked"
"""Old checkpoints lack this buffer of batch norms, which plays no part in their result."""


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What `load_encoder_weights` did."""

    source: str
    """The file, or torchvision's name."""
    family: str
    """Whose names the checkpoint used: lofi, tsm, mmaction2, tsp, torchvision or plain."""
    loaded: tuple[str, ...]
    """The encoder's tensors that were set."""
    dropped: tuple[str, ...]
    """The file's tensors that have no place in an encoder: the old head, or the modules beside the encoder."""
    missing: tuple[str, ...]
    """The encoder's tensors that the file lacks: counters of batch norms alone, anything else is an error."""

    def summary(self) -> str:
        """One line for the log."""
        heads = sorted(
            {key.rsplit(".", 1)[0] if self.family != "lofi" else key.split(".")[0] for key in self.dropped}
        )
        dropped = f", without {', '.join(heads)}" if heads else ""
        return f"encoder weights: {len(self.loaded)} tensors from {self.source} (names of {self.family}{dropped})"


def load_encoder_weights(encoder: nn.Module, source: str | Path) -> WeightsReport:
    """Set the weights of an encoder.

    Args:
        encoder: any of `ENCODERS`.
        source: a .safetensors or .pth file; a run directory (its newest checkpoint); a checkpoint directory; or
            "torchvision:NAME" for weights that torchvision downloads.

    Raises:
        ValueError: naming the source and the key `encoder.weights`, for a missing, damaged or unsafe file and for weights
            that are not this encoder's. The encoder is then unchanged.
    """
    if str(source).startswith(TORCHVISION_PREFIX):
        where = str(source)
        state = _download(encoder, where.removeprefix(TORCHVISION_PREFIX))
    else:
        path = find_weights(source)
        where = str(path)
        state = _strip_module(read_weights(path))
    family = next(family for family in FAMILIES if any(re.search(family.marker, key) for key in state))
    dropped = tuple(key for key in state if re.search(family.dropped, key))
    renamed = {_own_name(encoder, family, key): key for key in state if key not in dropped}
    missing = _check_fit(encoder, state, renamed, where=where, family=family)
    encoder.load_state_dict({name: state[key] for name, key in renamed.items()}, strict=False)
    return WeightsReport(
        source=where, family=family.name, loaded=tuple(renamed), dropped=dropped, missing=missing
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a PyTorch checkpoint, on the CPU."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower() and "weights only" not in str(error).lower():
            raise _unreadable(path, error) from error
        raise ValueError(
            f"encoder.weights: {path} holds more than tensors and plain values, and reading it could run code. If you "
            "trust it, open it once with torch.load(..., weights_only=False) and save its state dict alone: "
            "torch.save(checkpoint['state_dict'], NEW)."
        ) from error
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError) as error:
        raise _unreadable(path, error) from error
    return _tensors_of(content, path)


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(
        f"encoder.weights: {path} cannot be read ({reason}); it is damaged, cut off, or neither a .safetensors file nor "
        "a PyTorch checkpoint."
    )


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Unwrap the dictionaries that projects put around a state dict."""
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    is_state = isinstance(content, Mapping) and len(content) > 0
    if not is_state or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(
            f"encoder.weights: {path} holds no state dict; it must map names to tensors, directly or under "
            "state_dict or model."
        )
    return {str(key): value for key, value in content.items()}


def _strip_module(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that data-parallel wrappers put before every name."""
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _download(encoder: nn.Module, name: str) -> dict[str, Tensor]:
    network = getattr(encoder, "torchvision_name", None)
    if network is None:
        raise ValueError(
            f"encoder.weights: {TORCHVISION_PREFIX}{name}, but torchvision has no {type(encoder).__name__}."
        )
    choices = torchvision.models.get_model_weights(network)
    if name not in choices.__members__:
        raise ValueError(
            f"encoder.weights: torchvision has no weights {name!r} of {network}; "
            f"it has {', '.join(choices.__members__)}."
        )
    try:
        state: dict[str, Tensor] = choices[name].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"encoder.weights: torchvision could not download {name} of {network} ({error}); give it as a file."
        ) from error
    return dict(state)


def _own_name(encoder: nn.Module, family: Family, key: str) -> str:
    renames = family.renames if family.is_own else family.renames + OWN_NAMES.get(type(encoder).__name__, ())
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def _check_fit(
    encoder: nn.Module,
    state: dict[str, Tensor],
    renamed: dict[str, str],
    *,
    where: str,
    family: Family,
) -> tuple[str, ...]:
    """The tolerated missing names; raises where anything else does not fit."""
    wanted = encoder.state_dict()
    missing = [name for name in wanted if name not in renamed]
    unexpected = [key for name, key in renamed.items() if name not in wanted]
    misshapen = [
        f"{key} is {tuple(state[key].shape)}, wanted {tuple(wanted[name].shape)}"
        for name, key in renamed.items()
        if name in wanted and wanted[name].shape != state[key].shape
    ]
    fatal = [name for name in missing if not name.endswith(COUNTER)]
    if fatal or unexpected or misshapen:
        problems = "; ".join(
            f"{what}: {_listed(names)}"
            for what, names in (
                ("not in the file", fatal),
                ("not in the encoder", unexpected),
                ("of another shape", misshapen),
            )
            if names
        )
        raise ValueError(
            f"encoder.weights: {where} (names of {family.name}) does not fit {type(encoder).__name__}. {problems}. "
            "Choose the encoder and options that the weights were made with."
        )
    return tuple(missing)


def _listed(names: list[str], *, most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
