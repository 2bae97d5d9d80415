"""What sizes each encoder takes, and what it is native to: said once, before anything is built or looked for."""

import re
from pathlib import Path

import pytest
import torch

from lofi.config.load import RecipeError, load_extraction_recipe, load_recipe
from lofi.encoders import ENCODERS
from lofi.encoders.choices import ImageConfig, R2plus1dConfig, TsmConfig, VideomaeConfig, build_image
from lofi.encoders.input_sizes import INPUT_SIZES
from lofi.fidelity import Fidelity

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "configs" / "thumos14"
CONFIGS = {
    **{name: [config_class()] for name, (config_class, _) in ENCODERS.items() if name != "image"},
    "tsm": [TsmConfig(), TsmConfig(temporal_shift_fraction=0.0)],
    "r2plus1d": [R2plus1dConfig(), R2plus1dConfig(depth=34, layout="mmaction2")],
    "videomae": [VideomaeConfig(), VideomaeConfig(size="giant")],
}


def readme_native():
    """Encoder -> the table's column."""
    rows = re.findall(r"^\| `(\w+)` \|(.*)$", (ROOT / "README.md").read_text(), re.M)
    return {name: row.split("|")[3].strip() for name, row in rows if name in ENCODERS}


def test_the_readme_says_the_native_fidelity_of_every_encoder():
    said = readme_native()
    assert set(said) == set(ENCODERS)
    for name, of_config in INPUT_SIZES.items():
        assert said[name].startswith(of_config(ENCODERS[name][0]()).native_text), name
    assert said["image"] == "1 frame at the model's size"


@pytest.mark.parametrize("name", CONFIGS)
def test_an_encoder_takes_what_is_known_of_it_before_it_is_built(name):
    for config in CONFIGS[name]:
        with torch.device("meta" if name != "mvit" else "cpu"):
            encoder = ENCODERS[name][1](config)
        assert encoder.input_sizes == INPUT_SIZES[name](config)
        encoder.check_fidelity(encoder.input_sizes.native)


def test_before_timms_network_is_built_no_native_size_is_named():
    fidelity = Fidelity(num_snippets=5, frames=3, height=31, width=33)
    with pytest.raises(ValueError, match=r"too small for tsm, .*nearest usable: .*width 33\.$"):
        INPUT_SIZES["tsm"](TsmConfig(library="timm", network="resnet26d")).check(fidelity)


def test_the_native_fidelity_of_an_image_model_is_a_frame_of_its_size():
    with torch.device("meta"):
        encoder = build_image(ImageConfig(network="vit_small_patch14_dinov2"))
    assert encoder.input_sizes.native == Fidelity(num_snippets=1, frames=1, height=518, width=518)
    with pytest.raises(
        ValueError,
        match="width 520 is no multiple of 14: .*nearest usable: width 518 or 532. Native are 1 x 518",
    ):
        encoder.check_fidelity(Fidelity(num_snippets=5, frames=3, height=14, width=520))


@pytest.mark.parametrize(
    ("recipe", "override", "message"),
    [
        (
            "chunked_videomae_base_actionformer",
            "fidelity.frames=15",
            "frames 15 is no multiple of 2: videomae has tubelets of 2 x 16 x 16; nearest usable: frames 14 or 16. Native",
        ),
        (
            "chunked_videomae_base_actionformer",
            "fidelity.height=150",
            "height 150 is no multiple of 16: .*height 144 or 160",
        ),
        ("extract_s3d", "fidelity.frames=4", "too small for s3d, .*frames 8, height"),
    ],
)
def test_a_fidelity_that_the_encoder_does_not_take_is_refused_with_the_recipe(recipe, override, message):
    path = RECIPES / f"{recipe}.yaml"
    load = load_extraction_recipe if recipe.startswith("extract") else load_recipe
    with pytest.raises(RecipeError, match=message):
        load(path, [override])


def test_reduced_fidelities_are_refused_too():
    overrides = ["fidelity.height=48", "fidelity.width=48"]
    path = RECIPES / "lofi_s_tsm_resnet50_actionformer.yaml"
    with pytest.raises(RecipeError, match="fidelity .*x24x24 is too small for tsm"):
        load_recipe(path, overrides)
