"""A recipe that an older version wrote, read as this one would write it."""

import pytest
import yaml
from tiny_runs import recipe_file

from lofi.config.earlier import written_recipe_text
from lofi.config.load import load_recipe, recipe_to_yaml

FILES = ("lofi_s_tiny_actionformer", "chunked_tiny_actionformer", "tac_tiny", "frozen_tiny_actionformer")


@pytest.fixture
def written(tmp_path):
    """Write a recipe as a run directory keeps it, after `change` of its plain values."""

    def write(name, change=lambda plain: None):
        plain = yaml.safe_load(recipe_to_yaml(load_recipe(recipe_file(name))))
        change(plain)
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(plain, sort_keys=False))
        return file

    return write


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_of_this_version_is_read_as_it_was_written(name, written):
    recipe = load_recipe(recipe_file(name))
    assert written_recipe_text(written(name), like=recipe) == recipe_to_yaml(recipe)


def test_options_and_blocks_that_an_older_version_did_not_have_are_at_their_defaults(written):
    def forget(plain):
        del plain["train"]["ema_decay"], plain["encoder"]["weights"], plain["gradient"]["checkpoint_blocks"]
        del plain["grid"]

    recipe = load_recipe(recipe_file("chunked_tiny_actionformer"))
    assert recipe.grid == type(recipe.grid)()
    file = written("chunked_tiny_actionformer", forget)
    assert written_recipe_text(file, like=recipe) == recipe_to_yaml(recipe)


def test_what_is_no_default_now_still_differs(written):
    recipe = load_recipe(
        recipe_file("chunked_tiny_actionformer"), ["train.ema_decay=0.9", "gradient.chunk_size=7"]
    )
    file = written("chunked_tiny_actionformer", lambda plain: plain["train"].pop("ema_decay"))
    now, before = recipe_to_yaml(recipe).splitlines(), written_recipe_text(file, like=recipe).splitlines()
    different = [pair for pair in zip(before, now, strict=True) if pair[0] != pair[1]]
    assert ("  ema_decay: null", "  ema_decay: 0.9") in different
    assert len(different) == 2


def test_another_variant_and_an_option_that_is_no_more_stay_as_written(written):
    def change(plain):
        plain["gradient"] = {"name": "joint"}
        plain["train"]["warp"] = 3

    recipe = load_recipe(recipe_file("chunked_tiny_actionformer"))
    text = written_recipe_text(written("chunked_tiny_actionformer", change), like=recipe)
    plain = yaml.safe_load(text)
    assert plain["gradient"] == {"name": "joint"}
    assert plain["train"]["warp"] == 3


def test_a_directory_without_a_recipe_has_no_text(tmp_path):
    recipe = load_recipe(recipe_file("tac_tiny"))
    assert written_recipe_text(tmp_path / "recipe.yaml", like=recipe) == ""
