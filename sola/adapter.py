"""The SoLa module: a light temporal network beside the identity.

y = x + tanh(alpha) z(x), z = convolution, ReLU, convolution, ReLU, convolution; alpha starts at 0, so that an untrained
adapter is exactly the identity (published code, network.py: kernels 5, 1, 1, hidden width 512, no norm, no dropout).
Snippets outside their video are zero in front of every convolution, as they are at the ends of a whole sequence.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from lofi.engine.run_directory import RunDirectory
from lofi.engine.validation import handed_on_weights
from lofi.progress import say


@dataclass(frozen=True, kw_only=True)
class SolaAdapterConfig:
    """The SoLa module between features and head."""

    hidden_width: int = 512
    """Channels inside."""
    kernels: list[int] = field(default_factory=lambda: [5, 1, 1])
    """Snippets that each of the three convolutions sees, odd."""
    dilations: list[int] = field(default_factory=lambda: [1, 1, 1])
    """Of the three convolutions."""
    weights: str | None = None
    """A run directory of objective similarity_matching; null starts as the identity."""
    frozen: bool = False
    """Keep the weights as they are."""

    def __post_init__(self) -> None:
        if self.hidden_width < 1:
            raise ValueError(f"adapter.hidden_width is {self.hidden_width}; it must be at least 1.")
        for name in ("kernels", "dilations"):
            values = getattr(self, name)
            if len(values) != 3 or min(values) < 1:
                raise ValueError(f"adapter.{name} is {list(values)}; it must be three positive numbers.")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(
                f"adapter.kernels is {list(self.kernels)}; they must be odd, so that a sequence keeps its length."
            )
        if self.frozen and self.weights is None:
            raise ValueError(
                "adapter.frozen: true without adapter.weights is the identity; name the run that trained it, or remove "
                "the adapter."
            )


class SolaAdapter(nn.Module):
    """A `protocols.FeatureAdapter`."""

    def __init__(self, feature_width: int, *, hidden_width: int, kernels: list[int], dilations: list[int]):
        super().__init__()
        widths = [feature_width, hidden_width, hidden_width, feature_width]
        self.feature_width = feature_width
        self.dilations = list(dilations)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(
                widths[index],
                widths[index + 1],
                kernels[index],
                padding=kernels[index] // 2 * dilations[index],
                dilation=dilations[index],
            )
            for index in range(3)
        )
        self.alpha = nn.Parameter(
            torch.zeros(1)
        )  # one number; DeepSpeed cannot broadcast a tensor without dimension

    def forward(self, features: Tensor, *, mask: Tensor) -> Tensor:
        """features (B, L, D) float; mask (B, L) bool -> (B, L, D)."""
        return features + self.change(features, mask=mask)

    def change(self, features: Tensor, *, mask: Tensor) -> Tensor:
        """What is added to the features: tanh(alpha) z(x), (B, L, D)."""
        inside_B1L = mask[:, None].to(features.dtype)
        x_BDL = features.transpose(1, 2)
        for index, convolution in enumerate(self.convolutions):
            x_BDL = torch.relu(x_BDL) if index else x_BDL
            x_BDL = convolution(x_BDL * inside_B1L)
        changed: Tensor = torch.tanh(self.alpha) * x_BDL.transpose(1, 2)
        return changed


def build_adapter(config: SolaAdapterConfig, *, feature_width: int, with_weights: bool = True) -> SolaAdapter:
    """The adapter of a recipe. Raises ValueError where its weights are of another form or cannot be read."""
    adapter = SolaAdapter(
        feature_width,
        hidden_width=config.hidden_width,
        kernels=list(config.kernels),
        dilations=list(config.dilations),
    )
    if config.weights is not None and with_weights:
        load_adapter(adapter, config.weights)
    if config.frozen:
        adapter.requires_grad_(False)
    return adapter


def load_adapter(adapter: SolaAdapter, run: str) -> None:
    """Load the adapter that a run trained. Raises ValueError naming the run where it does not fit."""
    weights = handed_on_weights(_checkpoints(run))
    state = {
        name.removeprefix("adapter."): value
        for name, value in load_file(weights).items()
        if name.startswith("adapter.")
    }
    if not state:
        raise ValueError(f"{weights} holds no adapter; name a run of objective similarity_matching.")
    wanted = {name: tuple(value.shape) for name, value in adapter.state_dict().items()}
    there = {name: tuple(value.shape) for name, value in state.items()}
    width = (*there.get("convolutions.0.weight", ()), 0, 0)[1]
    if width not in (0, adapter.feature_width):
        raise ValueError(
            f"{weights} holds an adapter for features of width {width}; the features here have width "
            f"{adapter.feature_width}. Take the features that it was trained on, or train an adapter on these."
        )
    if there != wanted:
        raise ValueError(
            f"{weights} holds an adapter of other shapes ({_differing(there, wanted)}). Set adapter.hidden_width and "
            "adapter.kernels as in that run."
        )
    dilations = adapter.dilations
    trained_with = _trained_dilations(weights)
    if trained_with not in (None, dilations):
        raise ValueError(
            f"adapter.dilations is {dilations}, but the adapter of {weights} was trained with {trained_with}; set them as "
            "in that run."
        )
    adapter.load_state_dict(state)
    say(f"adapter: {len(state)} tensors from {weights}")


def _checkpoints(run: str) -> Path:
    folder = RunDirectory(path=Path(run)).checkpoints
    if not folder.is_dir():
        raise ValueError(
            f"adapter.weights: {run} is no run directory (no {folder.name}/); name a run of objective "
            "similarity_matching."
        )
    return folder


def _trained_dilations(weights: Path) -> list[int] | None:
    """As the file's header says, since no shape does; None where it says nothing of them."""
    with safe_open(weights, framework="pt") as file:
        recipe = json.loads((file.metadata() or {}).get("recipe", "{}"))
    dilations: list[int] | None = recipe.get("adapter", {}).get("dilations")
    return dilations


def _differing(there: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> str:
    name = next(name for name in sorted({*there, *wanted}) if there.get(name) != wanted.get(name))
    return f"{name} is {there.get(name)}, wanted {wanted.get(name)}"
