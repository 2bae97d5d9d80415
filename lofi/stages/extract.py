"""Extract: extraction recipe -> feature directory. One or many ranks; started again, it goes on where it stopped."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import nn

from lofi.batches import WindowBatch
from lofi.config.recipe import ExtractionRecipe
from lofi.data.annotations import Annotations, read_annotations
from lofi.data.feature_failures import record_failures
from lofi.data.feature_store import (
    FeatureDirectory,
    FeatureManifest,
    create_feature_directory,
    remove_unfinished,
    write_feature,
)
from lofi.data.frame_cache import estimate_cache_bytes
from lofi.data.grid import ONLY_FOR_HEADS, GridConfig
from lofi.data.sampler import PredictionPlan, build_loader
from lofi.data.windows import extraction_windows
from lofi.engine import deepspeed_engine
from lofi.engine.run_directory import RunDirectory, package_versions
from lofi.extraction import extract_videos, extraction_grid, num_inside
from lofi.files import write_json
from lofi.progress import say, track
from lofi.protocols import features_per_snippet
from lofi.segments import Window
from lofi.stages.build import open_encoder, open_frame_windows, say_cache_size


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What an extraction left behind."""

    path: Path
    num_videos: int
    """Whole feature files in the directory."""
    failures: dict[str, str] = field(default_factory=dict)
    """Video -> reason, of those that could not be decoded and were skipped, as the recipe says."""


def run_extraction(recipe: ExtractionRecipe) -> Extracted:
    """Encode every video of the annotations at full fidelity; videos whose file is whole are left alone. Collective.

    Raises:
        ValueError: wrong data, weights or fidelity, or a directory that was made with other settings, before any work.
    """
    begin = time.perf_counter()
    ranks = deepspeed_engine.start_ranks()
    fidelity = recipe.fidelity.full
    annotations = read_annotations(recipe.data.annotations)
    torch.manual_seed(0)  # an encoder without weights is random, and then the same each time
    encoder = open_encoder(recipe.encoder)
    encoder.check_fidelity(fidelity)
    encoder.to(ranks.device).eval().requires_grad_(False)
    grid = extraction_grid(recipe.grid, num_snippets=fidelity.num_snippets, config=recipe.extraction)
    per_snippet = features_per_snippet(encoder, frames=fidelity.frames)
    directory = _open_directory(recipe, encoder, ranks, grid=grid, per_snippet=per_snippet)

    windows, num_whole = _windows_to_do(recipe, annotations, directory, grid=grid)

    def num_encoded(window: Window) -> int:
        return num_inside(window, num_snippets=fidelity.num_snippets, per_snippet=per_snippet)[0]

    dataset = open_frame_windows(recipe.data, annotations, windows, grid=grid, seed=0)
    if recipe.data.frame_cache is not None:
        say_cache_size(recipe.data.frame_cache, num_bytes=estimate_cache_bytes(windows, [fidelity]))
    plan = PredictionPlan(
        videos=[window.video for window in windows],
        batch_size=1,
        fidelity=fidelity,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    failures: dict[str, str] = {}
    num_snippets = 0
    keys = list(plan.batches())
    total = sum(num_encoded(windows[key.index]) for batch in keys for key in batch)
    title = f"frames decoded and encoded, {directory.path.name}"
    title += f" (of rank 0 of {ranks.world_size})" if ranks.world_size > 1 else ""
    begin_encoding = time.perf_counter()
    with track(title, total=total * fidelity.frames) as advance:

        def counted(batches: Iterator[WindowBatch]) -> Iterator[WindowBatch]:
            nonlocal num_snippets
            for batch in batches:
                yield batch
                encoded = sum(map(num_encoded, batch.windows))
                num_snippets += encoded if not batch.failures else 0
                advance(encoded * fidelity.frames)

        batches = counted(build_loader(dataset, keys, workers=recipe.data.workers))
        for extracted in extract_videos(encoder, batches, config=recipe.extraction):
            if extracted.features is None:
                assert extracted.failure is not None
                failures[extracted.video] = extracted.failure
            else:
                write_feature(directory, extracted.video, extracted.features, dtype=recipe.extraction.dtype)
    failures = {
        video: reason
        for failed in deepspeed_engine.gather_from_ranks(failures)
        for video, reason in failed.items()
    }
    if ranks.rank == 0:
        record_failures(directory, failures)
    total_snippets = sum(deepspeed_engine.gather_from_ranks(num_snippets))
    seconds, seconds_encoding = (time.perf_counter() - start for start in (begin, begin_encoding))
    if ranks.rank == 0 and (windows or not RunDirectory(path=directory.path).is_finished):
        _write_summary(
            directory, seconds=seconds, snippets_per_sec=total_snippets / seconds_encoding, failures=failures
        )
    deepspeed_engine.wait_for_ranks()
    if num_whole and ranks.rank == 0:
        say(f"{num_whole} videos were whole already")
    if total_snippets:
        say(
            f"{total_snippets} snippets in {seconds_encoding:.1f} s: "
            f"{total_snippets / seconds_encoding:.1f} snippets/s, "
            f"{total_snippets * fidelity.frames / seconds_encoding:.1f} frames/s"
            + (f", {ranks.world_size} ranks together" if ranks.world_size > 1 else "")
        )
    return Extracted(path=directory.path, num_videos=len(directory.existing_videos()), failures=failures)


def _open_directory(
    recipe: ExtractionRecipe,
    encoder: nn.Module,
    ranks: deepspeed_engine.Ranks,
    *,
    grid: GridConfig,
    per_snippet: int,
) -> FeatureDirectory:
    fidelity = recipe.fidelity.full
    manifest = FeatureManifest(
        encoder={"name": recipe.encoder.name, **asdict(recipe.encoder.config)},
        weights_sha256=weights_sha256(encoder),
        fidelity=asdict(fidelity),
        grid={key: value for key, value in asdict(grid).items() if key not in ONLY_FOR_HEADS},
        feature_width=int(encoder.feature_width),  # type: ignore[arg-type]
        features_per_snippet=per_snippet,
        resize=recipe.data.resize,
        dtype=recipe.extraction.dtype,
        versions=package_versions(),
    )
    defaults = {option.name: option.default for option in fields(recipe.encoder.config)}
    if ranks.rank == 0:
        remove_unfinished(create_feature_directory(recipe.output, manifest, encoder_defaults=defaults))
    deepspeed_engine.wait_for_ranks()
    return create_feature_directory(recipe.output, manifest, encoder_defaults=defaults)


def _windows_to_do(
    recipe: ExtractionRecipe, annotations: Annotations, directory: FeatureDirectory, *, grid: GridConfig
) -> tuple[list[Window], int]:
    """The windows of the videos without features, and the number of those with. The same on every rank: a rank that looked
    for itself might see what another has written meanwhile, and share out other videos."""
    whole = set(deepspeed_engine.gather_from_ranks(sorted(directory.existing_videos()))[0])
    videos = [video for name, video in sorted(annotations.videos.items()) if name not in whole]
    windows = extraction_windows(
        videos,
        classes=annotations.classes,
        grid=grid,
        num_snippets=directory.manifest.rows_per_window,
    )
    return windows, len(annotations.videos) - len(videos)


def weights_sha256(module: nn.Module) -> str:
    """Of a module's weights and buffers as they are used, whatever file they came from: what manifests carry."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write_summary(
    directory: FeatureDirectory, *, seconds: float, snippets_per_sec: float, failures: dict[str, str]
) -> None:
    write_json(
        RunDirectory(path=directory.path).summary,
        {
            "training_seconds": 0.0,
            "evaluation_seconds": seconds,
            "peak_bytes": None,
            "bytes": None,
            "snippets_per_sec": snippets_per_sec,
            "trained_parameters": 0,
            "skipped_videos": failures,
        },
    )
