"""The numbers of configs/README.md: predicted peak bytes of every recipe's step at three fidelities.

    python tests/benchmarks/recipe_table.py configs/activitynet13/*.yaml configs/thumos14/*.yaml

One GPU, bf16, the recipe's whole batch on it; GiB of live tensors (what an allocator adds is not calibrated). An end-to-end recipe
is planned at full fidelity and at LoFi's S and T; one on features at its number of snippets, at half and at a quarter of it: what a
head sees under ST and T. Features are taken to be 2048 wide on THUMOS14 and 512 elsewhere; classes 20, 200 on ActivityNet-1.3 and
HACS.
"""

import argparse
from pathlib import Path

from lofi.config.load import load_recipe
from lofi.config.objectives import OWN_PARTS
from lofi.config.recipe import Recipe
from lofi.stages.plan import PlanOptions, predict_peak, training_files
from lofi.stages.synthetic_input import Assumed
from sola import PARTS

DENSE_ROW_SEC = {
    "thumos14/frozen_actionformer": 4 / 30,
    "thumos14/frozen_tridet": 4 / 30,
    "thumos14/frozen_gtad": 5 / 30,
    "thumos14/frozen_bmn": 5 / 30,
    "activitynet13/frozen_tridet": 16 / 15,
}
"""Time from row to row of the features that a recipe's header names."""
RESCALED_SNIPPETS = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="+", metavar="RECIPE")
    files = training_files(parser.parse_args().recipes)
    print("| recipe | batch | predicted GiB |\n|---|--:|---|")
    for file in map(Path, files):
        recipe = load(file)
        if recipe.kind.source == "features":
            continue
        peaks = [f"{label}: {peak:.2f}" for label, peak in predicted(file, recipe)]
        print(
            f"| `{file.parent.name}/{file.stem}` | {recipe.train.batch_size} | {', '.join(peaks)} |",
            flush=True,
        )


def load(file: Path, *changes: str) -> Recipe:
    return load_recipe(file, list(changes), parts=OWN_PARTS.joined(PARTS))


def predicted(file: Path, recipe: Recipe) -> list[tuple[str, float]]:
    """(fidelity, GiB) three times."""
    is_thumos = file.parent.name == "thumos14"
    classes, width = (20, 2048) if is_thumos else (200, 512)
    found = []
    for part, reduction in ((1, "none"), (2, "space"), (4, "time")):
        num_snippets = snippets_of_features(file, recipe) // part
        assumed = Assumed(classes=classes, feature_width=width, num_snippets=num_snippets)
        changed = recipe
        if not recipe.reads_features:
            changed = load(
                file, f"fidelity.reduction={reduction}", "fidelity.cycle=long", "encoder.weights=null"
            )
        prediction = predict_peak(changed, options=PlanOptions(assumed=assumed))
        label = f"L = {num_snippets}" if recipe.reads_features else prediction.worst.fidelity
        found.append((label, prediction.peak_bytes / 2**30))
    return found


def snippets_of_features(file: Path, recipe: Recipe) -> int:
    row_sec = DENSE_ROW_SEC.get(f"{file.parent.name}/{file.stem}")
    if row_sec is None or recipe.grid.window_sec is None:
        return RESCALED_SNIPPETS
    return round(recipe.grid.window_sec / row_sec)


if __name__ == "__main__":
    main()
