"""One step of every recipe at full scale, on fake tensors: built, run forward and backward, clipped and updated as on a GPU.

The sizes are the recipes' own: what a fake step costs is its operations, of which repeated chunks have none. Only weights
are not fetched, and a cyclic recipe steps at one reduction. The tiny recipes of configs/synthetic train for real
(tests/stages, tests/memory/test_planner.py).
"""

from pathlib import Path

import pytest
import yaml

from lofi.config.load import load_recipe
from lofi.config.objectives import OWN_PARTS
from lofi.stages.plan import PlanOptions, predict_peak
from sola import PARTS as SOLA

ROOT = Path(__file__).resolve().parents[2]
FILES = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.parent.name != "synthetic"]
PLAIN = {path: yaml.safe_load(path.read_text()) for path in FILES}
TRAINING = [path for path in FILES if "objective" in PLAIN[path]]


def overrides_of(path):
    plain = PLAIN[path]
    overrides = ["encoder.weights=null"] if "encoder" in plain else []
    if plain.get("fidelity", {}).get("reduction") == "cyclic":
        overrides += ["fidelity.reduction=space_time", "fidelity.cycle=long", "fidelity.cycle_every=null"]
    return overrides


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_steps_on_a_gpu_in_bf16(path):
    recipe = load_recipe(path, overrides_of(path), parts=OWN_PARTS.joined(SOLA))
    prediction = predict_peak(recipe, options=PlanOptions(device="cuda"))
    assert prediction.precision == ("bf16" if recipe.train.precision == "auto" else recipe.train.precision)
    (step,) = prediction.steps
    assert step.bytes["parameters"] > 0
    assert all(step.phase_peak_bytes[phase] > 0 for phase in ("forward", "backward", "optimizer"))
