"""Runs of the tiny recipes in this process, each once."""

import pytest
from tiny_runs import recipe_file, tiny_overrides


@pytest.fixture(scope="session")
def trained(benchmark, tmp_path_factory):
    """A function: recipe name -> its finished run directory, trained at the first call. Not to be written into."""
    from lofi.config.load import load_recipe
    from lofi.config.objectives import OWN_PARTS
    from lofi.stages.train import run_training
    from sola import PARTS

    folder = tmp_path_factory.mktemp("trained")
    done = {}

    def run(name, **changes):
        key = (name, *sorted((key, str(value)) for key, value in changes.items()))
        if key not in done:
            output = folder / f"{name}_{len(done)}"
            overrides = tiny_overrides(name, benchmark, output, **changes)
            recipe = load_recipe(recipe_file(name), overrides, parts=OWN_PARTS.joined(PARTS))
            done[key] = run_training(recipe).path
        return done[key]

    return run


@pytest.fixture(scope="session")
def extracted(benchmark, trained, tmp_path_factory):
    """A feature directory, made by the encoder of the classification run."""
    from lofi.config.load import load_extraction_recipe
    from lofi.stages.extract import run_extraction

    output = tmp_path_factory.mktemp("features") / "features_tac"
    overrides = tiny_overrides("extract_tiny", benchmark, output, encoder__weights=trained("tac_tiny"))
    return run_extraction(load_extraction_recipe(recipe_file("extract_tiny"), overrides)).path
