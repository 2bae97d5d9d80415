"""Apply a trained adapter: feature directory -> feature directory, one whole video at a time.

Started again, it goes on where it stopped; the new manifest names its parent, and a directory that was made with another
adapter or from other features is refused.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lofi.config.load import load_recipe
from lofi.config.objectives import OWN_PARTS
from lofi.data.feature_failures import failed_videos, record_failures
from lofi.data.feature_store import (
    FeatureDirectory,
    create_feature_directory,
    open_feature_directory,
    read_feature,
    remove_unfinished,
    write_feature,
)
from lofi.engine import deepspeed_engine
from lofi.engine.run_directory import RunDirectory, package_versions
from lofi.progress import say, track
from sola.adapter import SolaAdapter, SolaAdapterConfig, build_adapter
from sola.parts import PARTS


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What `apply_adapter` left behind."""

    path: Path
    num_videos: int
    """Whole feature files in the directory."""
    failures: dict[str, str]
    """Video -> reason, of those that had no features to adapt since making them failed."""


def apply_adapter(*, features: str | Path, run: str | Path, output: str | Path) -> Applied:
    """Change every video's features by the adapter that a run trained. Collective: ranks share the videos.

    Args:
        features: a feature directory.
        run: of objective similarity_matching (or tal with an adapter).
        output: the new feature directory.

    Raises:
        ValueError: the run has no adapter or one of another width, or the output holds features made otherwise.
        FileNotFoundError: no such directory.
    """
    ranks = deepspeed_engine.start_ranks()
    parent = open_feature_directory(features)
    config = _adapter_config(run)
    adapter = build_adapter(config, feature_width=parent.manifest.feature_width)
    adapter.to(ranks.device).eval()
    directory = _open_output(output, parent, adapter=adapter, config=config, ranks=ranks)
    there = directory.existing_videos()
    videos = deepspeed_engine.gather_from_ranks(sorted(parent.existing_videos() - there))[
        0
    ]  # rank 0's view, for all
    mine = videos[ranks.rank :: ranks.world_size]
    with track(f"adapting {directory.path.name}", total=len(mine)) as advance, torch.inference_mode():
        for video in mine:
            rows = torch.from_numpy(read_feature(parent, video)).to(ranks.device)
            mask = torch.ones(1, len(rows), dtype=torch.bool, device=ranks.device)
            adapted = adapter(rows[None], mask=mask)[0].float().cpu().numpy()
            write_feature(directory, video, adapted, dtype=parent.manifest.dtype or "float32")
            advance(1)
    deepspeed_engine.wait_for_ranks()
    num_whole = len(parent.existing_videos()) - len(videos)
    if num_whole and ranks.rank == 0:
        say(f"{num_whole} videos were whole already")
    return Applied(
        path=directory.path,
        num_videos=len(directory.existing_videos()),
        failures=failed_videos(directory),
    )


def _adapter_config(run: str | Path) -> SolaAdapterConfig:
    recipe_file = RunDirectory(path=Path(run)).recipe
    if not recipe_file.is_file():
        raise ValueError(f"{run} is no run directory (no {recipe_file.name}).")
    recipe = load_recipe(recipe_file, parts=OWN_PARTS.joined(PARTS))
    if recipe.adapter is None:
        raise ValueError(f"{run} has no adapter; name a run of objective similarity_matching.")
    config: SolaAdapterConfig = recipe.adapter.config
    return replace(config, weights=str(run), frozen=True)


def _open_output(
    output: str | Path,
    parent: FeatureDirectory,
    *,
    adapter: SolaAdapter,
    config: SolaAdapterConfig,
    ranks: deepspeed_engine.Ranks,
) -> FeatureDirectory:
    if Path(output).resolve() == parent.path.resolve():
        raise ValueError(f"output {output} is the folder of the features themselves; name another.")
    digest = hashlib.sha256()
    for name, tensor in sorted(adapter.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    manifest_hash = hashlib.sha256((parent.path / "manifest.json").read_bytes()).hexdigest()
    manifest = replace(
        parent.manifest,
        parent=f"{parent.path.name}, manifest {manifest_hash}",
        adapter={
            "name": "sola",
            "hidden_width": config.hidden_width,
            "kernels": list(config.kernels),
            "dilations": list(config.dilations),
            "weights": config.weights,
            "weights_sha256": digest.hexdigest(),
            **({"after": parent.manifest.adapter} if parent.manifest.adapter else {}),
        },
        versions=package_versions(),
    )
    if ranks.rank == 0:
        made = create_feature_directory(output, manifest)
        remove_unfinished(made)
        record_failures(made, failed_videos(parent))
    deepspeed_engine.wait_for_ranks()
    return create_feature_directory(output, manifest)
