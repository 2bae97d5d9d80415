"""Extract: extraction recipe -> feature directory. One or many ranks; started again, it goes on where it stopped."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from lofi.batches import WindowBatch
from lofi.config.recipe import ExtractionRecipe
from lofi.data.annotations import Annotations, read_annotations
from lofi.data.feature_store import (
    FeatureDirectory,
    FeatureManifest,
    create_feature_directory,
    record_failures,
    write_feature,
)
from lofi.data.frame_cache import estimate_cache_bytes
from lofi.data.sampler import PredictionPlan, build_loader
from lofi.data.windows import extraction_windows
from lofi.engine import deepspeed_engine
from lofi.engine.run_directory import RunDirectory, package_versions
from lofi.extraction import extract_videos
from lofi.files import write_json
from lofi.progress import say, track
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
    directory = _open_directory(recipe, encoder, ranks)

    windows, num_whole = _windows_to_do(recipe, annotations, directory)
    dataset = open_frame_windows(recipe.data, annotations, windows, grid=recipe.grid, seed=0)
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
    frames_per_window = fidelity.num_snippets * fidelity.frames
    title = f"frames decoded and encoded, {directory.path.name}"
    with track(title, total=plan.num_windows * frames_per_window) as advance:

        def counted(batches: Iterator[WindowBatch]) -> Iterator[WindowBatch]:
            nonlocal num_snippets
            for batch in batches:
                yield batch
                num_snippets += batch.num_snippets
                advance(batch.num_windows * frames_per_window)

        batches = counted(build_loader(dataset, plan.batches(), workers=recipe.data.workers))
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
    seconds = time.perf_counter() - begin
    if ranks.rank == 0 and (windows or not RunDirectory(path=directory.path).is_finished):
        _write_summary(directory, seconds=seconds, num_snippets=total_snippets, failures=failures)
    deepspeed_engine.wait_for_ranks()
    if num_whole and ranks.rank == 0:
        say(f"{num_whole} videos were whole already")
    return Extracted(path=directory.path, num_videos=len(directory.existing_videos()), failures=failures)


def _open_directory(
    recipe: ExtractionRecipe, encoder: nn.Module, ranks: deepspeed_engine.Ranks
) -> FeatureDirectory:
    fidelity = recipe.fidelity.full
    manifest = FeatureManifest(
        encoder={"name": recipe.encoder.name, **asdict(recipe.encoder.config)},
        weights_sha256=_weights_sha256(encoder),
        fidelity=asdict(fidelity),
        grid=asdict(recipe.grid),
        feature_width=int(encoder.feature_width),  # type: ignore[arg-type]
        resize=recipe.data.resize,
        dtype=recipe.extraction.dtype,
        versions=package_versions(),
    )
    if ranks.rank == 0:
        create_feature_directory(recipe.output, manifest)
    deepspeed_engine.wait_for_ranks()
    return create_feature_directory(recipe.output, manifest)


def _windows_to_do(
    recipe: ExtractionRecipe, annotations: Annotations, directory: FeatureDirectory
) -> tuple[list[Window], int]:
    """The windows of the videos without features, and the number of those with."""
    whole = directory.existing_videos()
    videos = [video for name, video in sorted(annotations.videos.items()) if name not in whole]
    windows = extraction_windows(
        videos,
        classes=annotations.classes,
        grid=recipe.grid,
        num_snippets=recipe.fidelity.full.num_snippets,
    )
    return windows, len(annotations.videos) - len(videos)


def _weights_sha256(encoder: nn.Module) -> str:
    """Of the encoder's weights and buffers as they are used, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write_summary(
    directory: FeatureDirectory, *, seconds: float, num_snippets: int, failures: dict[str, str]
) -> None:
    write_json(
        RunDirectory(path=directory.path).summary,
        {
            "training_seconds": 0.0,
            "evaluation_seconds": seconds,
            "peak_bytes": None,
            "bytes": None,
            "snippets_per_sec": num_snippets / seconds,
            "trained_parameters": 0,
            "skipped_videos": failures,
        },
    )
