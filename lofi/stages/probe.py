"""Probe: feature directories and annotations -> how well a linear layer tells classes, and actions from background, in each."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lofi.config.recipe import ExtractionRecipe
from lofi.data.annotations import read_annotations
from lofi.data.feature_store import MANIFEST_NAME, check_features, open_feature_directory, read_feature
from lofi.files import write_json
from lofi.memory.limits import available_bytes, is_out_of_memory
from lofi.probes.linear_probe import LinearProbe, probe_linearly
from lofi.probes.snippet_labels import BACKGROUND, Snippets, read_labelled
from lofi.probes.temporal_sensitivity import temporal_sensitivity
from lofi.progress import say
from lofi.report.units import bytes_text
from lofi.stages.chains import Stage

PROBE_NAME = "probe.json"
"""Of the features that it lies beside."""


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What to probe on."""

    training_subset: str = "training"
    validation_subset: str = "validation"
    max_snippets: int = 100_000
    """Of each subset, at most; more are drawn by the seed."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_snippets < 2:
            raise ValueError(f"--max-snippets is {self.max_snippets}; it must be at least 2.")


def probe_features(features: str | Path, *, annotations: str | Path, options: ProbeOptions) -> dict[str, Any]:
    """Probe one feature directory.

    Returns:
        JSON values: "class" (action snippets alone) and "region" (action or background), each a `LinearProbe`, and
        "temporal_sensitivity" of the validation videos.
    """
    annotated = read_annotations(annotations)
    directory = open_feature_directory(features)
    videos = [annotated.subset(name) for name in (options.training_subset, options.validation_subset)]
    check_features(directory, [video.name for each in videos for video in each])
    training, validation = (
        read_labelled(
            each,
            directory,
            classes=annotated.classes,
            max_snippets=options.max_snippets,
            seed=options.seed,
        )
        for each in videos
    )
    found = temporal_sensitivity(read_feature(directory, video.name) for video in videos[1])
    return {
        "features": str(features),
        "class": asdict(_probe_classes(training, validation)),
        "region": asdict(_probe_regions(training, validation)),
        "temporal_sensitivity": asdict(found),
    }


def run_probe(
    directories: Sequence[str],
    *,
    annotations: str,
    options: ProbeOptions,
    output: str | None = None,
) -> list[dict[str, Any]]:
    """Probe each directory, print the table, and write the rows where a file is named."""
    rows = [probe_features(path, annotations=annotations, options=options) for path in directories]
    table = Table(box=None, title="linear probe (balanced accuracy, %) and cosine similarity over time")
    for heading in ("features", "class", "chance", "action / background", "adjacent", "distant"):
        table.add_column(heading, justify="left" if heading == "features" else "right")
    for row in rows:
        time = row["temporal_sensitivity"]
        table.add_row(
            row["features"],
            f"{100 * row['class']['balanced_accuracy']:.1f}",
            f"{100 * row['class']['chance']:.1f}",
            f"{100 * row['region']['balanced_accuracy']:.1f}",
            f"{time['adjacent']:.3f}",
            f"{time['distant']:.3f}",
        )
    Console().print(table)
    if output is not None:
        write_json(Path(output), rows)
        say(f"written: {output}")
    return rows


def probe_chain(stages: Sequence[Stage], *, seed: int) -> dict[str, Any]:
    """Probe the features of a chain's last extraction, on the subsets that its training after that names. They are kept beside
    the features, and read where those have not changed since.

    Returns:
        "probe": what `probe_features` gives, or None where the chain extracts nothing or "probe_error" says why not.
    """
    places = [place for place, stage in enumerate(stages) if isinstance(stage.recipe, ExtractionRecipe)]
    if not places:
        return {"probe": None}
    extraction, after = stages[places[-1]], [stage.recipe.data for stage in stages[places[-1] + 1 :]]
    data = after[-1] if after else extraction.recipe.data
    kept = extraction.path / PROBE_NAME
    options = ProbeOptions(
        training_subset=data.training_subset, validation_subset=data.validation_subset, seed=seed
    )
    try:
        probe = _read_kept(kept, manifest=extraction.path / MANIFEST_NAME, options=options)
        if probe is None:
            say(f"{extraction.name}: probing its features")
            probe = probe_features(
                extraction.path, annotations=extraction.recipe.data.annotations, options=options
            )
            write_json(kept, {"options": asdict(options), "probe": probe})
    except (ValueError, KeyError, OSError, MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            return {
                "probe": None,
                "probe_error": f"needs more than {bytes_text(available_bytes())} of memory",
            }
        if isinstance(error, RuntimeError):
            raise
        return {"probe": None, "probe_error": repr(error) if isinstance(error, KeyError) else str(error)}
    return {"probe": probe}


def _read_kept(kept: Path, *, manifest: Path, options: ProbeOptions) -> dict[str, Any] | None:
    """The probe of an earlier time; None where there is none of these features and options, or it cannot be read."""
    if not kept.is_file() or kept.stat().st_mtime < manifest.stat().st_mtime:
        return None
    try:
        found = json.loads(kept.read_text())
        probe: dict[str, Any] = found["probe"]
        return probe if found["options"] == asdict(options) else None
    except (ValueError, KeyError, TypeError):
        say(f"{kept} cannot be read, and is made anew")
        return None


def _probe_classes(training: Snippets, validation: Snippets) -> LinearProbe:
    """Of the snippets inside actions."""
    inside = [each.labels != BACKGROUND for each in (training, validation)]
    return probe_linearly(
        training.features[inside[0]],
        training.labels[inside[0]],
        validation.features[inside[1]],
        validation.labels[inside[1]],
    )


def _probe_regions(training: Snippets, validation: Snippets) -> LinearProbe:
    """Of all snippets: action or background."""
    return probe_linearly(
        training.features,
        (training.labels != BACKGROUND).long(),
        validation.features,
        (validation.labels != BACKGROUND).long(),
    )
