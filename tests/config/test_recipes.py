"""Every recipe of configs/ loads, builds, is named as it should be, and says how it is run."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from lofi.config.load import load_extraction_recipe, load_recipe, recipe_to_yaml
from lofi.config.objectives import OWN_PARTS
from lofi.encoders.build import build_encoder
from lofi.heads import HEADS
from lofi.stages.build import build_objective
from lofi.stages.chains import chain_stages, load_comparison
from sola import PARTS as SOLA

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
PLAIN = {path: yaml.safe_load(path.read_text()) for path in FILES}
TRAINING = [path for path in FILES if "objective" in PLAIN[path]]
COMPARISONS = [path for path in FILES if "methods" in PLAIN[path]]
EXTRACTION = [path for path in FILES if path not in TRAINING + COMPARISONS]
NO_DOWNLOAD = {True: ["encoder.weights=null"], False: []}

METHODS = ("full", "checkpointed", "chunked", "sampled", "lofi", "frozen", "sola", "tac", "tsp", "bsp", "pal")
PRETEXTS = ("tac", "tsp", "bsp", "pal")
OTHER_HEADS = tuple(f"_{name}.yaml" for name in HEADS if name != "actionformer")
PARTS = OWN_PARTS.joined(SOLA)


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


def load(path):
    overrides = NO_DOWNLOAD["encoder" in PLAIN[path]]
    if path in TRAINING:
        return load_recipe(path, overrides, parts=PARTS)
    return load_extraction_recipe(path, overrides)


def encoder_part(encoder):
    """How file names write an encoder: tiny, tsm_resnet18, r2plus1d18, resnet3d_r3d18, swin3d_tiny, videomae_base,
    videomae_base_tubelets, image_vit_small_patch14_dinov2 (timm's name without its tag)."""
    if encoder is None:
        return ""
    if encoder.name == "tsm":
        return f"tsm_{encoder.config.network}"
    if encoder.name == "videomae":
        tubelets = {"snippet": "", "tubelet": "_tubelets"}[encoder.config.feature]
        return f"videomae_{encoder.config.size}{tubelets}"
    if encoder.name == "resnet3d":
        return f"resnet3d_{encoder.config.network.replace('_', '')}"
    if encoder.name == "image":
        return f"image_{encoder.config.network.split('.')[0]}"
    if encoder.name == "swin3d":
        return f"swin3d_{encoder.config.size}"
    depth = getattr(encoder.config, "depth", "")
    return f"{encoder.name}{depth}"


def header_of(path):
    lines = path.read_text().splitlines()
    end = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:end])


def test_the_folders_hold_recipes_of_every_kind():
    assert len(TRAINING) >= 15
    assert len(EXTRACTION) >= 2
    assert len(COMPARISONS) >= 1


@pytest.mark.parametrize("path", TRAINING, ids=name_of)
def test_a_training_recipe_loads_and_builds(path):
    recipe = load(path)
    width = 12 if recipe.reads_features else None
    with torch.device("meta"):
        module = build_objective(
            recipe, classes=("jump", "run", "throw"), feature_width=width, with_weights=False
        )
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert trained
    reaches_encoder = any(
        name.startswith("encoder.") and parameter.requires_grad
        for name, parameter in module.named_parameters()
    )
    assert reaches_encoder == (recipe.gradient.name != "detached")


@pytest.mark.parametrize("path", EXTRACTION, ids=name_of)
def test_an_extraction_recipe_loads_and_builds(path):
    recipe = load(path)
    with torch.device("meta"):
        encoder, _ = build_encoder(recipe.encoder.name, recipe.encoder.config, with_weights=False)
    encoder.check_fidelity(recipe.fidelity.full)


@pytest.mark.parametrize("path", COMPARISONS, ids=name_of)
def test_a_comparison_loads_with_every_recipe_that_it_names(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    comparison = load_comparison(path, parts=PARTS)
    assert comparison.methods
    assert {link.split()[0] for chain in comparison.methods.values() for link in chain} <= {
        str(path.relative_to(ROOT)) for path in FILES
    }


@pytest.mark.parametrize("path", TRAINING + EXTRACTION, ids=name_of)
def test_the_file_is_named_by_method_encoder_and_head(path):
    recipe = load(path)
    method = path.stem.split("_")[0]
    assert method in (METHODS if path in TRAINING else ("extract",))
    encoder = encoder_part(recipe.encoder)
    if path.parent.name == "synthetic" and recipe.data.features is not None:
        encoder = "tiny"  # the features come from there
    head = "" if path in EXTRACTION or recipe.head is None else recipe.head.name
    ending = "_".join(part for part in (encoder, head) if part)
    assert path.stem.endswith(ending)
    says = path.stem.removesuffix(ending).removesuffix("_")
    if path in TRAINING:
        assert says == method_of(recipe)


def method_of(recipe):
    """The method's name from its three axes, and the adapter."""
    if recipe.objective.name == "similarity_matching":
        return "sola"
    if recipe.objective.name != "tal":
        return recipe.objective.name
    if recipe.adapter is not None:
        return "sola" if recipe.adapter.config.frozen else "sola_supervised"
    if recipe.gradient.name == "detached":
        return "frozen"
    reduction = recipe.fidelity.reduction
    if reduction == "none":
        return {"joint": "full"}.get(recipe.gradient.name, recipe.gradient.name)
    if reduction == "cyclic":
        return "lofi_cyclic" if recipe.fidelity.cycle == "long" else "lofi_short_cyclic"
    return {"space": "lofi_s", "time": "lofi_t", "space_time": "lofi_st"}[reduction]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_header_says_how_to_run_it(path):
    header = header_of(path)
    script = "train" if path in TRAINING else "compare" if path in COMPARISONS else "extract"
    assert f"launch/{script}.py {path.relative_to(ROOT)}" in header


@pytest.mark.parametrize("path", TRAINING, ids=name_of)
def test_the_header_says_what_is_known_of_memory_and_map(path):
    header = header_of(path).lower()
    assert "memory and map:" in header


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_that_the_header_names_exist(path):
    for file in re.findall(r"configs/[\w/]+\.yaml", header_of(path)):
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("path", TRAINING, ids=name_of)
def test_a_recipe_written_and_read_again_is_the_same(path, tmp_path):
    recipe = load(path)
    copy = tmp_path / "recipe.yaml"
    copy.write_text(recipe_to_yaml(recipe))
    assert load_recipe(copy, parts=PARTS) == recipe


def test_synthetic_methods_differ_from_full_in_their_axis_alone():
    """The same head, optimizer and schedule for all, so that a table compares methods and nothing else."""
    full = PLAIN[ROOT / "configs/synthetic/full_tiny_actionformer.yaml"]
    for path in TRAINING:
        if path.parent.name != "synthetic" or "fidelity" not in PLAIN[path]:
            continue
        if path.stem.removesuffix("_tiny") in PRETEXTS:
            continue
        differing = {key for key in full if PLAIN[path].get(key) != full[key]}
        if not path.stem.endswith("_actionformer"):
            assert "head" in differing, path
            differing -= {"head"}
        assert differing <= {"fidelity", "gradient"}, path
        sizes = ("num_snippets", "frames", "height", "width")
        assert [PLAIN[path]["fidelity"][size] for size in sizes] == [full["fidelity"][size] for size in sizes]


def test_runs_on_features_differ_from_frozen_in_the_adapter_or_the_head_alone():
    frozen = PLAIN[ROOT / "configs/synthetic/frozen_tiny_actionformer.yaml"]
    heads = [PLAIN[path] for path in TRAINING if "head" in PLAIN[path] and "features" in PLAIN[path]["data"]]
    synthetic = [plain for plain in heads if plain["data"] == frozen["data"]]
    assert len(synthetic) == 6
    for plain in synthetic:
        free = "adapter" if plain["head"]["name"] == "actionformer" else "head"
        assert {**plain, free: None} == {**frozen, free: None}


def test_comparisons_on_one_benchmark_make_it_alike():
    """They share a folder, which refuses a benchmark of another configuration."""
    made = {}
    for path in COMPARISONS:
        made.setdefault(PLAIN[path].get("data_output"), []).append(PLAIN[path].get("synthetic"))
    assert all(each == others[0] for others in made.values() for each in others)


def test_a_comparison_has_every_method_of_the_synthetic_recipes():
    """With one head, so that it compares methods."""
    methods = PLAIN[ROOT / "configs/synthetic/compare.yaml"]["methods"]
    named = {file for chain in methods.values() for file in chain}
    pretexts = {f"configs/synthetic/{name}_tiny.yaml" for name in PRETEXTS if name != "tac"}
    synthetic = [path for path in FILES if path.parent.name == "synthetic" and "_tiny" in path.stem]
    files = {str(path.relative_to(ROOT)) for path in synthetic}
    other_heads = {file for file in files if file.endswith(OTHER_HEADS)}
    assert named == files - pretexts - other_heads
    for method, chain in methods.items():
        names = [Path(file).stem for file in chain]
        assert names[0] == "tac_tiny"
        own = f"{method}_tiny_actionformer"
        if method.startswith("sola"):
            assert (names[1], names[-1]) == ("extract_tiny", own)
        else:
            assert names[-2:] == ["extract_tiny", "frozen_tiny_actionformer"]
            assert method == "frozen" or names[1] == own


def test_files_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"(?:configs|launch)/[\w/]+\.(?:yaml|py)", text))
    assert named
    assert [file for file in sorted(named) if not (ROOT / file).is_file()] == []


def test_a_chain_hands_on_the_last_features_and_the_last_adapter(monkeypatch):
    monkeypatch.chdir(ROOT)
    comparison = load_comparison(ROOT / "configs/synthetic/compare.yaml", parts=PARTS)
    tac, extract, adapter, head = chain_stages(comparison, "sola", seed=3, parts=PARTS)
    assert extract.recipe.encoder.config.weights == str(tac.path)
    assert adapter.recipe.data.features == head.recipe.data.features == str(extract.path)
    assert head.recipe.adapter.config.weights == str(adapter.path)
    *_, supervised = chain_stages(comparison, "sola_supervised", seed=3, parts=PARTS)
    assert supervised.recipe.data.features == str(extract.path)
    assert supervised.recipe.adapter.config.weights is None
