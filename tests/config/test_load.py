"""Bad input of recipes: each ends in one message that names file and key and what is allowed."""

import re

import pytest
import yaml
from tiny_runs import recipe_file

from lofi.config.load import RecipeError, load_extraction_recipe, load_recipe, recipe_to_yaml

LOFI = yaml.safe_load(recipe_file("lofi_s_tiny_actionformer").read_text())
FROZEN = yaml.safe_load(recipe_file("frozen_tiny_actionformer").read_text())
TAC = yaml.safe_load(recipe_file("tac_tiny").read_text())
TSP = yaml.safe_load(recipe_file("tsp_tiny").read_text())
BSP = yaml.safe_load(recipe_file("bsp_tiny").read_text())
PAL = yaml.safe_load(recipe_file("pal_tiny").read_text())
EXTRACT = yaml.safe_load(recipe_file("extract_tiny").read_text())


@pytest.fixture
def refuse(tmp_path):
    """A function: a recipe with changes (dotted keys) must be refused; gives back the message without the file."""

    def check(plain, load=load_recipe, **changes):
        changed = yaml.safe_load(yaml.safe_dump(plain))
        for dotted, value in changes.items():
            *blocks, key = dotted.split("__")
            place = changed
            for block in blocks:
                if not isinstance(place.get(block), dict):
                    place[block] = {"name": place[block]} if isinstance(place.get(block), str) else {}
                place = place[block]
            if value is ...:
                del place[key]
            else:
                place[key] = value
        path = tmp_path / "bad_recipe.yaml"
        path.write_text(yaml.safe_dump(changed))
        with pytest.raises(RecipeError) as caught:
            load(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return message.removeprefix(f"{path}: ")

    return check


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"trian": {}},
            r"^trian is no block of this recipe \(did you mean train\?\); allowed: seed, output, .*train",
        ),
        ({"extraction": {}}, r"^extraction is no block of this recipe.*; allowed: "),
        (
            {"train__epoch": 3},
            r"^train\.epoch is not an option \(did you mean epochs\?\); allowed: epochs, batch_size",
        ),
        (
            {"data__anotations": "x"},
            r"^data\.anotations is not an option \(did you mean annotations\?\); allowed: ",
        ),
        (
            {"head__embed_widht": 8},
            r"^head\.embed_widht is not an option \(did you mean embed_width\?\); allowed: ",
        ),
        (
            {"encoder__zzz": 8},
            r"^encoder\.zzz is not an option; allowed: channels, dropout, weights, allow_unmatched, frozen_stages",
        ),
        ({"fidelity__hieght": 8}, r"^fidelity\.hieght is not an option \(did you mean height\?\)"),
        ({"objective__label_smoothin": 0.1}, r"^objective\.label_smoothin is not an option"),
    ],
)
def test_a_misspelt_key_is_named_with_the_nearest_and_the_allowed(changes, expected, refuse):
    assert re.search(expected, refuse(LOFI, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"encoder__name": "tini"},
            r"^encoder\.name is 'tini' \(did you mean tiny\?\); allowed: tiny, tsm, r2",
        ),
        (
            {"gradient": "chunky"},
            r"^gradient\.name is 'chunky' \(did you mean chunked\?\); allowed: joint, checkp",
        ),
        ({"head__name": "afsd"}, r"^head\.name is 'afsd'; allowed: actionformer, bmn, gtad, tridet"),
        ({"objective": "tad"}, r"^objective\.name is 'tad'.*; allowed: tal, tac"),
        ({"optimizer__name": "lion"}, r"^optimizer\.name is 'lion'; allowed: sgd, adamw"),
        ({"schedule__name": "linear"}, r"^schedule\.name is 'linear'.*; allowed: constant, step, cosine"),
        ({"encoder__name": ...}, r"^encoder\.name is missing; allowed: tiny, "),
        ({"encoder__name": 3}, r"^encoder\.name is 3; allowed: tiny, "),
        ({"encoder__name": ["tiny"]}, r"^encoder\.name is \['tiny'\].*; allowed: tiny, "),
        ({"gradient": 7}, r"^gradient\.name is missing; allowed: joint, "),
    ],
)
def test_an_unknown_variant_is_named_with_the_allowed(changes, expected, refuse):
    assert re.search(expected, refuse(LOFI, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"optimizer__momentum": 0.9},
            r"^optimizer\.momentum is an option of optimizer\.name: sgd, and has no effect",
        ),
        (
            {"gradient__share": 0.5},
            r"^gradient\.share is an option of gradient\.name: sampled, and has no effect with j",
        ),
        (
            {"gradient__chunk_size": 4},
            r"^gradient\.chunk_size is an option of gradient\.name: chunked, sampled, detach",
        ),
        (
            {"schedule__factor": 0.5},
            r"^schedule\.factor is an option of schedule\.name: step, and has no effect with c",
        ),
        (
            {"encoder__norm": "frozen"},
            r"^encoder\.norm is an option of encoder\.name: tsm, r2plus1d, resnet3d, s3d, image, and has no",
        ),
        (
            {"objective__label_smoothing": 0.1},
            r"^objective\.label_smoothing is an option of objective\.name: tac",
        ),
    ],
)
def test_a_key_of_another_variant_is_said_to_be_one(changes, expected, refuse):
    assert re.search(expected, refuse(LOFI, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train__epochs": "many"}, r"^train\.epochs: .*'many'.*[Ii]nteger"),
        ({"train__epochs": 2.5}, r"^train\.epochs: .*2\.5"),
        ({"train__epochs": None}, r"^train\.epochs: "),
        ({"train__epochs": ...}, r"^train\.epochs"),
        ({"train__precision": "fp8"}, r"^train\.precision: .*fp8.*(auto|fp32)"),
        ({"data__flip": "perhaps"}, r"^data\.flip: .*perhaps"),
        ({"data__annotations": ...}, r"^data\.annotations"),
        ({"data__resize": "squash"}, r"^data\.resize"),
        ({"encoder__channels": "wide"}, r"^encoder\.channels"),
        ({"fidelity__reduction": "half"}, r"^fidelity\.reduction: .*half.*space_time"),
        ({"evaluation__tious": ["a"]}, r"^evaluation\.tious"),
        ({"evaluation__tious": {"a": 1}}, r"^evaluation\.tious is \{'a': 1\}; it must be a list\.$"),
        ({"head__ranges": [0, 4]}, r"^head\.ranges is \[0, 4\]; it must be a list of \[lowest, highest\]"),
        ({"head__ranges": [[0, 4], 2]}, r"^head\.ranges is \[\[0, 4\], 2\]; it must be a list of \[lowest"),
        ({"head__ranges": {"a": 1}}, r"^head\.ranges is \{'a': 1\}; it must be a list of \[lowest"),
        ({"head__ranges": 4}, r"^head\.ranges is 4; it must be a list of \[lowest, highest\]"),
        ({"head__ranges": [[0, "x"]]}, r"^head\.ranges\[0\]\[1\]: .*'x'"),
        ({"head__streams": [2304, 512]}, r"^head\.streams is \[2304, 512\]; .* list of \[width, channels\]"),
        ({"train": 3}, r"^train is 3; it must be a mapping of epochs, "),
        ({"data": ["x"]}, r"^data is \['x'\]; it must be a mapping of "),
        ({"seed": "one"}, r"^seed is 'one'; it must be of type int"),
        ({"seed": True}, r"^seed is True; it must be of type int"),
        ({"output": 3}, r"^output is 3; it must be of type str"),
        ({"deepspeed": "stage 1"}, r"^deepspeed is 'stage 1'; it must be of type dict"),
    ],
)
def test_a_wrong_type_is_named_with_key_and_value(changes, expected, refuse):
    assert re.search(expected, refuse(LOFI, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train__epochs": 0}, r"^train\.epochs is 0; it must be at least 1"),
        ({"train__batch_size": -2}, r"^train\.batch_size is -2; it must be at least 1"),
        ({"data__workers": -1}, r"^data\.workers is -1; it must be at least 0"),
        ({"encoder__dropout": 1.0}, r"^encoder\.dropout is 1\.0; it must lie in \[0, 1\)"),
        ({"optimizer__lr": -0.1}, r"^optimizer\.lr is -0\.1; it must not be negative"),
        ({"head__window": 8}, r"^head\.window is 8; it must be odd"),
        ({"fidelity__frames": 0}, r"^fidelity[.:] ?frames is 0; it must be at least 1"),
        ({"evaluation__tious": [0.5, 1.5]}, r"^evaluation\.tious holds 1\.5; thresholds must be above 0"),
        ({"seed": -1}, r"^seed is -1; it must not be negative"),
    ],
)
def test_a_value_out_of_range_is_named_with_the_allowed(changes, expected, refuse):
    assert re.search(expected, refuse(LOFI, **changes))


@pytest.mark.parametrize(
    ("plain", "changes", "expected"),
    [
        (LOFI, {"fidelity__cycle": "short"}, r"^fidelity\.cycle and .* have no effect with reduction: space"),
        (LOFI, {"fidelity__cycle_every": 2}, r"^fidelity\.cycle and .* have no effect with reduction: space"),
        (LOFI, {"grid__overlap": 0.25}, r"^grid\.overlap is 0\.25 but has no effect with mode: rescale"),
        (LOFI, {"grid__window_sec": 9.0}, r"^grid\.window_sec is 9\.0 but has no effect with mode: rescale"),
        (LOFI, {"data__clips_per_segment": 2}, r"^data\.clips_per_segment has no effect with objective: tal"),
        (
            LOFI,
            {"data__features": "dir"},
            r"^encoder has no effect with data\.features; remove one of the two",
        ),
        (
            LOFI,
            {"postprocess__tiou_threshold": 0.5},
            r"^postprocess\.tiou_threshold has no effect with nms: gaussian",
        ),
        (
            LOFI,
            {"postprocess__video_scores_top_k": 2},
            r"^postprocess\.video_scores_top_k has no effect without",
        ),
        (
            LOFI,
            {"gradient": "detached"},
            r"^optimizer\.encoder_lr has no effect with gradient\.name: detached",
        ),
        (
            LOFI,
            {"gradient": "detached", "optimizer__encoder_lr": ...},
            r"^fidelity\.reduction: space saves nothing with gradient\.name: detached",
        ),
        (
            LOFI,
            {"gradient": "detached", "optimizer__encoder_lr": ..., "encoder__dropout": 0.5},
            r"^encoder\.dropout has no effect with gradient\.name: detached",
        ),
        (FROZEN, {"optimizer__encoder_lr": 0.1}, r"^optimizer\.encoder_lr has no effect with data\.features"),
        (FROZEN, {"gradient__chunk_size": 8}, r"^gradient\.chunk_size has no effect with data\.features"),
        (FROZEN, {"data__resize": "stretch"}, r"^data\.resize has no effect with data\.features"),
        (FROZEN, {"grid__frame_stride": 2}, r"^grid\.frame_stride has no effect with data\.features"),
        (FROZEN, {"data__flip": True}, r"^data\.flip has no effect with"),
        (FROZEN, {"data__frame_cache": "d"}, r"^data\.frame_cache has no effect with"),
        (FROZEN, {"data__videos": "d"}, r"^data\.videos has no effect with data\.features"),
        (FROZEN, {"fidelity": LOFI["fidelity"]}, r"^fidelity has no effect with data\.features"),
        (TAC, {"head": LOFI["head"]}, r"^head has no effect with objective: tac; remove it"),
        (TAC, {"postprocess": {}}, r"^postprocess has no effect with objective: tac; remove it"),
        (TAC, {"evaluation": {}}, r"^evaluation has no effect with objective: tac; remove it"),
        (
            TAC,
            {"grid": {"mode": "sliding", "window_sec": 4.0}},
            r"^grid\.mode: sliding has no effect with objective: t",
        ),
        (
            TAC,
            {"fidelity__reduction": "time"},
            r"^fidelity\.num_snippets is 1; reduction: time divides it by 4",
        ),
        (
            TAC,
            {"data__validation_subset": "x"},
            r"^data\.validation_subset has no effect with objective: tac",
        ),
        (
            TAC,
            {"gradient": "detached", "encoder__dropout": 0.5},
            r"^encoder\.dropout has no effect with gradient\.name: detached",
        ),
        (
            TAC,
            {"gradient": "detached", "encoder__frozen_stages": 1},
            r"^encoder\.frozen_stages has no effect with gradient\.name: detached",
        ),
        (
            TAC,
            {"data__features": "d", "data__videos": ...},
            r"^data\.f\w+ (cannot serve objective: tac|has no effect)",
        ),
        (
            LOFI,
            {"grid__spread_frames": True, "data__snippet_jitter": 0.5, "data__frame_cache": None},
            r"^data\.snippet_jitter has no effect with grid\.spread_frames: true",
        ),
        (
            TAC,
            {"grid__spread_frames": True},
            r"^grid\.spread_frames: true is refused with objective: tac",
        ),
        (
            TSP,
            {"grid": {"spread_frames": True}},
            r"^grid\.spread_frames: true is refused with objective: tsp",
        ),
        (
            PAL,
            {"grid": {"spread_frames": True}},
            r"^grid\.spread_frames: true is refused with objective: pal",
        ),
        (TAC, {"grid__training": "crops"}, r"^grid\.training has no effect with objective: tac; remove it"),
        (TSP, {"grid__training": "crops"}, r"^grid\.training has no effect with objective: tsp; remove it"),
        (BSP, {"grid__training": "crops"}, r"^grid\.training has no effect with objective: bsp; remove it"),
        (PAL, {"grid__training": "crops"}, r"^grid\.training has no effect with objective: pal; remove it"),
    ],
)
def test_an_option_without_effect_is_refused(plain, changes, expected, refuse):
    assert re.search(expected, refuse(plain, **changes))


@pytest.mark.parametrize(
    ("plain", "changes", "expected"),
    [
        (LOFI, {"data": ...}, r"^data is missing"),
        (LOFI, {"train": ...}, r"^train is missing"),
        (LOFI, {"optimizer": ...}, r"^optimizer is missing"),
        (LOFI, {"train": None}, r"^train is missing"),
        (LOFI, {"head": ...}, r"^head is missing; objective: tal needs one"),
        (LOFI, {"postprocess": ...}, r"^postprocess is missing; objective: tal needs one"),
        (LOFI, {"encoder": ...}, r"^encoder is missing; data\.videos needs one"),
        (LOFI, {"fidelity": ...}, r"^fidelity is missing; data\.videos needs one"),
        (
            LOFI,
            {"data__videos": ..., "data__frame_cache": ...},
            r"^data\.videos and data\.features are both missing",
        ),
        (LOFI, {"grid__mode": "sliding"}, r"^grid\.window_sec is missing"),
        (
            FROZEN,
            {"gradient": "joint"},
            r"^gradient\.name is joint; .* only detached is allowed with data\.features",
        ),
    ],
)
def test_a_missing_or_ill_fitting_block_is_named(plain, changes, expected, refuse):
    assert re.search(expected, refuse(plain, **changes))


@pytest.mark.parametrize("gradient", ["checkpointed", "chunked", "sampled", "detached"])
def test_batch_norms_in_training_are_refused_where_they_make_the_gradient_inexact(gradient, refuse):
    changes = {"encoder": {"name": "tsm", "norm": "train"}, "optimizer__encoder_lr": None}
    message = refuse(LOFI, gradient=gradient, **changes)
    assert message.startswith(f"encoder.norm: train is refused with gradient.name: {gradient}")
    assert "use encoder.norm: frozen or affine, or gradient.name: joint" in message


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            {"train_batch_size": 8},
            r"^deepspeed\.train_batch_size is set by the recipe's own train\.batch_size",
        ),
        (
            {"gradient_clipping": 1.0},
            r"^deepspeed\.gradient_clipping is set by the recipe's own train\.gradient_clip",
        ),
        ({"bf16": {"enabled": True}}, r"^deepspeed\.bf16 is set by the recipe's own train\.precision"),
        ({"optimizer": {"type": "Adam"}}, r"^deepspeed\.optimizer is set by the recipe's own optimizer"),
        (
            {"zero_optimization": {"stage": 4}},
            r"^deepspeed\.zero_optimization\.stage is 4; allowed: 0, 1, 2, 3",
        ),
        ({"zero_optimization": 2}, r"^deepspeed\.zero_optimization is 2; it must be a mapping"),
        ({"gradient_accumulation_steps": 0}, r"^deepspeed\.gradient_accumulation_steps is 0; it must be"),
        (
            {"gradient_accumulation_steps": "two"},
            r"^deepspeed\.gradient_accumulation_steps is 'two'; it must be",
        ),
    ],
)
def test_deepspeed_keys_that_the_recipe_owns_or_that_are_wrong_are_refused(block, expected, refuse):
    assert re.search(expected, refuse(LOFI, deepspeed=block))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"output": "runs/${seed}"}, "output"),
        ({"data__videos": "${oc.env:HOME}/videos"}, "data.videos"),
        ({"evaluation__tious": ["${seed}"]}, "evaluation.tious"),
        ({"encoder__name": "${x}"}, "encoder.name"),
    ],
)
def test_interpolation_is_refused(changes, key, refuse):
    message = refuse(LOFI, **changes)
    assert message.startswith(f"{key} is ")
    assert "without interpolation: write the value" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"objective": "tal"},
            r"^objective is no block of this recipe; allowed: data, grid, fidelity, encoder, extract",
        ),
        (
            {"data__videos": ..., "data__frame_cache": ..., "data__features": "d"},
            r"^data\.videos \(a folder\) is missing",
        ),
        ({"data__features": "d"}, r"^data\.features has no effect in an extraction recipe"),
        ({"data__flip": True}, r"^data\.flip has no effect in an extraction recipe"),
        ({"data__clips_per_segment": 2}, r"^data\.clips_per_segment has no effect in an extraction recipe"),
        ({"data__training_subset": "x"}, r"^data\.training_subset has no effect in an extraction recipe"),
        (
            {"grid__mode": "sliding", "grid__window_sec": 4.0, "grid__overlap": 0.25},
            r"^grid\.overlap has no effect in an extraction recipe",
        ),
        ({"encoder__frozen_stages": 1}, r"^encoder\.frozen_stages has no effect in an extraction recipe"),
        ({"encoder__dropout": 0.5}, r"^encoder\.dropout has no effect in an extraction recipe"),
        ({"fidelity__reduction": "space"}, r"^fidelity\.reduction is space; .* only none is allowed"),
        ({"encoder": ...}, r"^encoder is missing"),
        ({"extraction__chunk_size": 0}, r"^extraction\.chunk_size is 0; it must be at least 1"),
        ({"extraction__dtype": "int8"}, r"^extraction\.dtype: .*int8.*float32"),
    ],
)
def test_extraction_recipes_are_checked_as_well(changes, expected, refuse):
    assert re.search(expected, refuse(EXTRACT, load=load_extraction_recipe, **changes))


def test_a_file_that_is_no_recipe_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    for text, expected in (
        ("data: [1, 2\nseed: {", r"recipe\.yaml: not YAML \(.*line"),
        ("seed: 0\nseed: 1\n", r"recipe\.yaml: not YAML \(.*seed"),
        ("- data\n- train\n", r"a recipe is a mapping of blocks, this is a list"),
        ("", r"a recipe is a mapping of blocks, this is empty"),
        ("just words\n", r"just words is no block of this recipe; allowed: "),
    ):
        path.write_text(text)
        with pytest.raises(RecipeError, match=expected) as caught:
            load_recipe(path)
        assert "\n" not in str(caught.value)


def test_a_missing_file_lists_its_neighbours(tmp_path):
    (tmp_path / "full_tiny.yaml").write_text("seed: 0\n")
    with pytest.raises(RecipeError, match=r"ful_tiny\.yaml: no such recipe; there: full_tiny\.yaml\."):
        load_recipe(tmp_path / "ful_tiny.yaml")
    with pytest.raises(RecipeError, match=r"nowhere/x\.yaml: no such recipe\."):
        load_recipe(tmp_path / "nowhere" / "x.yaml")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs", r"override 'train\.epochs' is not of the form key=value"),
        ("train.epoch=3", r"train\.epoch is not an option \(did you mean epochs\?\)"),
        ("train.epochs=three", r"train\.epochs: "),
        ("trian.epochs=3", r"trian is no block of this recipe \(did you mean train\?\)"),
        ("train.epochs.x=3", r"train\.epochs"),
        ("=3", r"override '=3'"),
        ("data.annotations=[", r"overrides data\.annotations=\["),
    ],
)
def test_a_bad_override_is_refused_like_a_bad_file(override, expected):
    with pytest.raises(RecipeError, match=expected) as caught:
        load_recipe(recipe_file("full_tiny_actionformer"), [override])
    assert str(caught.value).startswith(str(recipe_file("full_tiny_actionformer")))
    assert "\n" not in str(caught.value)


def test_overrides_change_values_and_remove_blocks():
    recipe = load_recipe(
        recipe_file("lofi_s_tiny_actionformer"),
        [
            "train.epochs=3",
            "evaluation=null",
            "encoder.weights=runs/tac",
            "fidelity.reduction=time",
            "seed=7",
        ],
    )
    assert (recipe.train.epochs, recipe.evaluation, recipe.seed) == (3, None, 7)
    assert recipe.encoder.config.weights == "runs/tac"
    assert recipe.fidelity.reduction == "time"


def test_the_output_is_named_after_the_file_where_the_recipe_says_none():
    assert load_recipe(recipe_file("full_tiny_actionformer")).output == "runs/full_tiny_actionformer"
    assert load_recipe(recipe_file("full_tiny_actionformer"), ["output=there"]).output == "there"


def test_defaults_are_written_out_in_full(tmp_path):
    plain = yaml.safe_load(recipe_to_yaml(load_recipe(recipe_file("lofi_s_tiny_actionformer"))))
    assert plain["postprocess"]["max_detections"] == 200
    assert plain["gradient"] == {"name": "joint"}
    assert plain["grid"]["mode"] == "rescale"
    assert plain["output"] == "runs/lofi_s_tiny_actionformer"


def test_deepspeed_keys_pass_through_unchanged(tmp_path):
    overrides = [
        "deepspeed.zero_optimization.stage=2",
        "deepspeed.zero_optimization.offload_optimizer.device=cpu",
    ]
    recipe = load_recipe(recipe_file("full_tiny_actionformer"), overrides)
    assert recipe.deepspeed == {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe_to_yaml(recipe))
    assert load_recipe(copy) == recipe
