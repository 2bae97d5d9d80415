import shutil
from dataclasses import replace

import pytest
from tiny_runs import recipe_file, tiny_overrides

from lofi.config.load import load_recipe
from lofi.config.recipe import Choice, check_recipe
from lofi.encoders.choices import ImageConfig, TsmConfig
from lofi.gradients import GRADIENTS
from lofi.stages.build import build_objective, open_source

LOFI = "lofi_s_tiny_actionformer"


@pytest.fixture
def load(benchmark, tmp_path):
    def read(name, **changes):
        return load_recipe(recipe_file(name), tiny_overrides(name, benchmark, tmp_path / "run", **changes))

    return read


@pytest.mark.parametrize("gradient", ["joint", "checkpointed", "chunked", "sampled", "detached"])
def test_batch_norms_that_train_are_refused_where_snippets_are_recomputed_or_chunked(load, gradient):
    encoder = Choice(name="tsm", config=TsmConfig(norm="train"))
    gradient_config = GRADIENTS[gradient][0]()
    recipe = replace(
        load(LOFI, fidelity__height=64, fidelity__width=64),
        encoder=encoder,
        gradient=Choice(name=gradient, config=gradient_config),
    )
    if gradient == "joint":
        build_objective(recipe, classes=["a", "b"], feature_width=None)
        return
    with pytest.raises(ValueError, match=rf"^gradient\.name: {gradient} is refused with Tsm, .* batch norms"):
        build_objective(recipe, classes=["a", "b"], feature_width=None)


def test_the_size_of_the_frame_cache_is_said_before_it_is_filled(load, capsys, tmp_path):
    open_source(load(LOFI, data__frame_cache=tmp_path / "cache"))
    # six windows of 8x4 frames at 10x10 and five at 20x20: less than a hundredth of a GiB
    assert f"frame cache {tmp_path / 'cache'}: up to 0.00 GiB for this run, " in capsys.readouterr().out
    open_source(load(LOFI, data__frame_cache=None))
    assert "frame cache" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "num_bytes"), [(LOFI, 6 * 3 * 32 * 100 + 5 * 3 * 32 * 400), ("tac_tiny", None)]
)
def test_a_frame_cache_without_room_is_refused_before_training(load, tmp_path, monkeypatch, name, num_bytes):
    recipe = load(name, data__frame_cache=tmp_path / "cache")
    usage = shutil.disk_usage(tmp_path)
    free = 100 if num_bytes is None else num_bytes - 1
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=free))
    with pytest.raises(ValueError, match=r"^data\.frame_cache is .*cache, which needs up to"):
        open_source(recipe)
    if num_bytes is not None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=num_bytes))
        open_source(recipe)


@pytest.mark.parametrize(("name", "jitters"), [(LOFI, False), ("tac_tiny", True)])
def test_clips_alone_move_in_training(load, name, jitters):
    assert open_source(load(name)).training._jitter is jitters


def test_layers_that_could_not_have_learned_are_refused_where_nothing_learns(load):
    recipe = load("full_tiny_actionformer", optimizer__encoder_lr="null")
    recipe = replace(recipe, gradient=Choice(name="detached", config=GRADIENTS["detached"][0]()))

    def check(weights):
        config = ImageConfig(network="test_vit", lora_rank=2, weights=weights)
        check_recipe(replace(recipe, encoder=Choice(name="image", config=config)))

    for weights in (None, "timm:test_vit.r160_in1k"):
        with pytest.raises(
            ValueError, match=r"encoder\.lora_rank has no effect with gradient.name: detached and"
        ):
            check(weights)
    check("runs/with_lora")


def test_a_former_name_of_an_encoder_says_what_it_is_now(load):
    with pytest.raises(ValueError, match=r"encoder\.name: tsm_resnet is now tsm with network: resnet18"):
        load(LOFI, encoder="{name: tsm_resnet, depth: 18}")
