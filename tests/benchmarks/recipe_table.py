"""The numbers of configs/README.md: predicted peak bytes of every recipe's step at three fidelities.

    python tests/benchmarks/recipe_table.py configs/activitynet13/*.yaml configs/thumos14/*.yaml
    python tests/benchmarks/recipe_table.py configs/synthetic/*.yaml --device cpu

The recipe's whole batch on one GPU in bf16, or on the CPU in fp32; GiB of live tensors, MiB where a row has less than half a GiB
(what an allocator adds is not calibrated). An end-to-end recipe is planned at full fidelity and at LoFi's S and T; one on features at
its number of snippets, at half and at a quarter of it: what a head sees under ST and T. ASSUMED says classes and width of features
by folder.
"""

import argparse
from pathlib import Path
from typing import Literal

from lofi.config.load import load_recipe
from lofi.config.objectives import OWN_PARTS
from lofi.config.recipe import Recipe
from lofi.stages.plan import PlanOptions, predict_peak, training_files
from lofi.stages.synthetic_input import Assumed
from sola import PARTS

ASSUMED = {
    "thumos14": (20, 2048),
    "activitynet13": (200, 512),
    "hacs": (200, 512),
    "custom": (20, 512),
    "synthetic": (5, 64),
}
"""Folder -> (classes, feature width)."""
DENSE_ROW_SEC = {
    "thumos14/frozen_actionformer": 4 / 30,
    "thumos14/frozen_tridet": 4 / 30,
    "thumos14/frozen_gtad": 5 / 30,
    "thumos14/frozen_bmn": 5 / 30,
    "activitynet13/frozen_tridet": 16 / 15,
    "custom/frozen_actionformer": 0.25,
}
"""Time from row to row of the features that a recipe's header names."""
RESCALED_SNIPPETS = {"synthetic": 64}
"""Rows of a video that is stretched over a fixed number of them, by folder; 100 elsewhere."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="+", metavar="RECIPE")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where it trains (cuda)")
    arguments = parser.parse_args()
    print("| recipe | batch | predicted |\n|---|--:|---|")
    for file in map(Path, training_files(arguments.recipes)):
        recipe = load(file)
        if recipe.kind.source == "features":
            continue
        found = predicted(file, recipe, device=arguments.device)
        power, unit, digits = (30, "GiB", 2) if max(peak for _, peak in found) >= 2**29 else (20, "MiB", 1)
        peaks = [f"{label}: {peak / 2**power:.{digits}f} {unit}" for label, peak in found]
        print(
            f"| `{file.parent.name}/{file.stem}` | {recipe.train.batch_size} | {', '.join(peaks)} |",
            flush=True,
        )


def load(file: Path, *changes: str) -> Recipe:
    return load_recipe(file, list(changes), parts=OWN_PARTS.joined(PARTS))


def predicted(file: Path, recipe: Recipe, *, device: Literal["cuda", "cpu"]) -> list[tuple[str, int]]:
    """(fidelity, bytes) three times."""
    classes, width = ASSUMED[file.parent.name]
    found = []
    for part, reduction in ((1, "none"), (2, "space"), (4, "time")):
        num_snippets = snippets_of_features(file, recipe) // part
        assumed = Assumed(classes=classes, feature_width=width, num_snippets=num_snippets)
        changed = recipe
        if not recipe.reads_features:
            changed = load(
                file, f"fidelity.reduction={reduction}", "fidelity.cycle=long", "encoder.weights=null"
            )
        prediction = predict_peak(changed, options=PlanOptions(device=device, assumed=assumed))
        label = f"L = {num_snippets}" if recipe.reads_features else prediction.worst.fidelity
        found.append((label, prediction.peak_bytes))
    return found


def snippets_of_features(file: Path, recipe: Recipe) -> int:
    row_sec = DENSE_ROW_SEC.get(f"{file.parent.name}/{file.stem}")
    if row_sec is None or recipe.grid.window_sec is None:
        return RESCALED_SNIPPETS.get(file.parent.name, 100)
    return round(recipe.grid.window_sec / row_sec)


if __name__ == "__main__":
    main()
