"""A run directory -> all that predicts a new video: its encoder, what changes the features, its head.

A detector that was trained from frames has its encoder in its checkpoint. A head that was trained on features from disk has
none: the manifest of the feature directory says which encoder made them, and of which run or file its weights were, and
which adapters changed them after that. They are built again, and the hash of their weights must be the manifest's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lofi.config.load import build_from_plain, load_extraction_recipe, load_recipe
from lofi.config.objective_kinds import Parts
from lofi.config.recipe import Recipe
from lofi.data.annotations import read_annotations
from lofi.data.decode import Resize
from lofi.data.feature_store import MANIFEST_NAME, FeatureDirectory, FeatureManifest, open_feature_directory
from lofi.data.grid import GridConfig
from lofi.detector import Detector
from lofi.encoders import ENCODERS, FORMER_ENCODERS
from lofi.encoders.build import build_encoder
from lofi.engine.checkpoint import load_weights, read_classes
from lofi.engine.run_directory import RunDirectory
from lofi.engine.validation import run_weights
from lofi.evaluation.mean_average_precision import EvaluationConfig
from lofi.fidelity import Fidelity
from lofi.progress import say
from lofi.stages.build import build_objective, feature_width_of, full_fidelity
from lofi.stages.extract import weights_sha256

EXTRACTION_CHUNK_SNIPPETS = 32
"""Snippets encoded together for a head on features, where nothing else is asked for."""


@dataclass(frozen=True, kw_only=True)
class FeatureMaking:
    """How the features were made that a head was trained on, to make those of another video."""

    manifest: FeatureManifest
    grid: GridConfig
    """Of the rows."""
    adapters: tuple[nn.Module, ...]
    """Applied to a video's whole sequence, in order."""
    sha256: tuple[str | None, ...]
    """Of the encoder and the adapters, as the manifest has them."""


@dataclass(frozen=True, kw_only=True)
class VideoDetector:
    """A run, ready for any video. Its modules are in evaluation, on the device."""

    recipe: Recipe
    classes: tuple[str, ...]
    weights: Path
    """The checkpoint's file."""
    detector: Detector
    encoder: nn.Module
    fidelity: Fidelity
    """At which frames are decoded and encoded."""
    frame_grid: GridConfig
    """Where the frames of a snippet lie."""
    resize: Resize
    chunk: int
    """Snippets decoded and encoded together."""
    making: FeatureMaking | None
    """None where the detector was trained from frames."""
    device: torch.device


def open_run(
    path: Path,
    *,
    device: torch.device,
    parts: Parts,
    weights: Literal["newest", "best"] | None = None,
    encoder: str | None = None,
    adapter: str | None = None,
    chunk: int | None = None,
) -> VideoDetector:
    """Build a run's detector with its weights, and the encoder of its features where it has none itself.

    Args:
        path: the run directory.
        device: where it predicts.
        parts: what its recipe, and the manifest of its features, can name.
        weights: of which checkpoint; None takes the one of the recipe's `evaluation.weights`, else the newest.
        encoder: in place of the weights that the manifest names: a run, a checkpoint, a file, or an extraction recipe (.yaml).
        adapter: in place of the run that the manifest names.
        chunk: snippets encoded together; None: as many as prediction takes else.

    Raises:
        ValueError: no run of a detector, an encoder or adapter that cannot be found, or is not the one that made the features.
        FileNotFoundError: the feature directory is gone.
    """
    run = RunDirectory(path=path)
    if not run.recipe.is_file():
        raise ValueError(f"{path} is no run directory (no {run.recipe.name}).")
    recipe = load_recipe(run.recipe, parts=parts)
    if recipe.objective.name != "tal":
        raise ValueError(
            f"{path}: objective {recipe.objective.name} has no detector; name a run of objective tal."
        )
    if not recipe.reads_features:
        for flag, value in (("--encoder", encoder), ("--adapter", adapter)):
            if value is not None:
                raise ValueError(
                    f"{flag} {value} has no effect: {path} was trained from frames and brings its own; remove it."
                )
    choice = weights or (recipe.evaluation or EvaluationConfig()).weights
    chosen = run_weights(run.checkpoints, choice=choice)
    classes = read_classes(chosen) or read_annotations(recipe.data.annotations).classes
    detector = build_objective(
        recipe, classes=classes, feature_width=feature_width_of(recipe), with_weights=False
    )
    load_weights(detector, chosen)
    assert isinstance(detector, Detector)
    if recipe.reads_features:
        assert recipe.data.features is not None
        directory = open_feature_directory(recipe.data.features)
        made_by, making = _encoder_of_features(directory, parts=parts, encoder=encoder, adapter=adapter)
        fidelity, frame_grid = Fidelity(**directory.manifest.fidelity), making.grid
        assert directory.manifest.resize is not None
        resize: Any = directory.manifest.resize
        default_chunk = EXTRACTION_CHUNK_SNIPPETS
    else:
        assert detector.encoder is not None
        made_by, making = detector.encoder, None
        fidelity, frame_grid = full_fidelity(recipe), recipe.grid
        resize = recipe.data.resize
        default_chunk = detector.prediction_chunk
    for module in (detector, made_by, *(making.adapters if making else ())):
        module.to(device).eval().requires_grad_(False)
    return VideoDetector(
        recipe=recipe,
        classes=classes,
        weights=chosen,
        detector=detector,
        encoder=made_by,
        fidelity=fidelity,
        frame_grid=frame_grid,
        resize=resize,
        chunk=chunk or default_chunk,
        making=making,
        device=device,
    )


def _encoder_of_features(
    directory: FeatureDirectory, *, parts: Parts, encoder: str | None, adapter: str | None
) -> tuple[nn.Module, FeatureMaking]:
    """The encoder that made a feature directory, with the weights that it had then, and the rest of the making."""
    manifest, where = directory.manifest, directory.path / MANIFEST_NAME
    name = manifest.encoder.get("name")
    if name in FORMER_ENCODERS:
        raise ValueError(
            f"{where}: these features were made by {name}, which is now {FORMER_ENCODERS[name]}. To predict other videos, "
            "extract the features again and train the head on them."
        )
    if name not in ENCODERS or manifest.weights_sha256 is None or manifest.resize is None:
        raise ValueError(
            f"{where}: these features were made by {name or 'an encoder that it does not name'}, outside this program, so "
            "those of another video cannot be made here. Predict with a run that was trained from frames, or on features "
            "that launch/extract.py made."
        )
    made_by = _built_encoder(manifest, given=encoder, where=str(where))
    adapters = _built_adapters(manifest, parts=parts, given=adapter, where=str(where))
    making = FeatureMaking(
        manifest=manifest,
        grid=build_from_plain(GridConfig, manifest.grid, key="grid", where=str(where)),
        adapters=tuple(module for module, _ in adapters),
        sha256=(manifest.weights_sha256, *(sha256 for _, sha256 in adapters)),
    )
    return made_by, making


def _built_encoder(manifest: FeatureManifest, *, given: str | None, where: str) -> nn.Module:
    plain = dict(manifest.encoder)
    name = plain.pop("name")
    recorded = plain.get("weights")
    if given is not None and Path(given).suffix in (".yaml", ".yml"):
        choice = load_extraction_recipe(given).encoder
        name, config = choice.name, choice.config
    else:
        config = build_from_plain(ENCODERS[name][0], plain, key="encoder", where=where)
        if given is not None:
            config = replace(config, weights=given)
    source = given or recorded or "no weights (random ones)"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(
            0
        )  # as the extraction did: an encoder without weights is random, the same each time
        try:
            encoder, report = build_encoder(name, config)
        except ValueError as error:
            raise ValueError(
                f"{where}: the encoder that made these features had its weights from {recorded}; with {source}: {error} "
                "Name the run or the file that holds them: --encoder RUN_OR_FILE."
            ) from error
    _check_hash(
        encoder,
        manifest.weights_sha256,
        what="encoder",
        source=source,
        where=where,
        hint="Name the run, checkpoint or file whose weights made them: --encoder RUN_OR_FILE.",
    )
    if report is not None:
        say(report.summary())
    return encoder


def _built_adapters(
    manifest: FeatureManifest, *, parts: Parts, given: str | None, where: str
) -> list[tuple[nn.Module, str | None]]:
    """Every adapter that changed the features, the first applied first, each with its hash."""
    entries: list[Mapping[str, Any]] = []
    entry: Mapping[str, Any] = manifest.adapter
    while entry:
        entries.insert(0, entry)
        entry = entry.get("after", {})
    if given is not None and len(entries) != 1:
        raise ValueError(
            f"--adapter {given} has no effect: {where} names {len(entries)} adapters; remove it."
            if not entries
            else f"--adapter {given} is one run, but {where} names {len(entries)} adapters, each with its own."
        )
    return [_built_adapter(entry, manifest, parts=parts, given=given, where=where) for entry in entries]


def _built_adapter(
    entry: Mapping[str, Any], manifest: FeatureManifest, *, parts: Parts, given: str | None, where: str
) -> tuple[nn.Module, str | None]:
    name, source = str(entry.get("name")), given or entry.get("weights")
    hint = "Name the run that trained it: --adapter RUN."
    if name not in parts.adapters:
        raise ValueError(
            f"{where}: these features were changed by an adapter {name}; known: {', '.join(parts.adapters) or 'none'}."
        )
    if source is None:
        raise ValueError(
            f"{where}: these features were changed by an adapter of a run that it does not name. {hint}"
        )
    config_class, build = parts.adapters[name]
    options = {key: value for key, value in entry.items() if key not in ("name", "weights_sha256", "after")}
    config = build_from_plain(
        config_class, {**options, "weights": source, "frozen": True}, key="adapter", where=where
    )
    try:
        adapter: nn.Module = build(config, feature_width=manifest.feature_width, with_weights=True)
    except ValueError as error:
        raise ValueError(f"{where}: the adapter that changed these features: {error} {hint}") from error
    sha256 = entry.get("weights_sha256")
    _check_hash(adapter, sha256, what="adapter", source=source, where=where, hint=hint)
    return adapter, sha256


def _check_hash(
    module: nn.Module, wanted: str | None, *, what: str, source: str, where: str, hint: str
) -> None:
    found = weights_sha256(module)
    if found != wanted:
        raise ValueError(
            f"{where}: the {what} of these features had weights of the hash {str(wanted)[:12]}..., those of {source} have "
            f"{found[:12]}...: another {what}, or one that was trained on since. {hint}"
        )
