"""Profiles of the synthetic recipes: rows, resume, memory that is short."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_runs import SYNTHETIC, recipe_file, tiny_overrides

from lofi.config.load import load_recipe
from lofi.config.objectives import OWN_PARTS
from lofi.memory.limits import device_bytes, is_out_of_memory
from lofi.stages import profile, profile_steps
from lofi.stages.method_names import method_name
from lofi.stages.named_recipes import NamedRecipe, load_recipes
from lofi.stages.profile import measure_or_explain, run_profile
from lofi.stages.profile_steps import ProfileOptions, measure_recipe, num_steps
from lofi.stages.synthetic_input import Assumed
from sola import PARTS as SOLA

OPTIONS = ProfileOptions(
    steps=2,
    warm_up=1,
    synthetic_input=True,
    assumed=Assumed(classes=3, feature_width=11, num_snippets=8),
)
NAMES = [
    "full_tiny_actionformer",
    "checkpointed_tiny_actionformer",
    "chunked_tiny_actionformer",
    "sampled_tiny_actionformer",
    "lofi_cyclic_tiny_actionformer",
    "frozen_tiny_actionformer",
    "tac_tiny",
]


def tiny_recipe(name, benchmark, output, **changes):
    return load_recipe(recipe_file(name), tiny_overrides(name, benchmark, output, **changes))


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_whole_without_any_data(name, benchmark, tmp_path):
    recipe = tiny_recipe(name, benchmark, tmp_path)
    missing = replace(recipe.data, annotations=str(tmp_path / "none.json"))
    seen = []
    row = measure_recipe(replace(recipe, data=missing), options=OPTIONS, advance=seen.append)
    assert sum(row["bytes"].values()) == row["peak_bytes"] == max(row["phase_peak_bytes"].values())
    assert row["bytes"]["parameters"] > 0
    assert sum(row["seconds"].values()) == pytest.approx(row["sec_per_step"])
    assert row["windows_per_sec"] == pytest.approx(recipe.train.batch_size / row["sec_per_step"])
    assert row["resident_bytes"] > row["peak_bytes"]
    assert row["assumptions"][0] == "3 classes"
    assert (row["reserved_bytes"], row["transfer_sec"], row["data_share"]) == (None, None, None)
    totals = [sum(values) for values in zip(*row["curve"]["live_bytes"].values(), strict=True)]
    assert max(totals) == row["peak_bytes"]
    assert len(seen) == num_steps(recipe, OPTIONS)
    json.dumps(row, allow_nan=False)


def test_copies_are_timed_after_all_that_the_allocator_tells(benchmark, tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(profile_steps, "_allocator_peaks", lambda *args, **options: order.append("allocator"))
    monkeypatch.setattr(profile_steps, "transfer_seconds", lambda *args, **options: order.append("copies"))
    measure_recipe(tiny_recipe("lofi_cyclic_tiny_actionformer", benchmark, tmp_path), options=OPTIONS)
    assert order == ["allocator"] * 3 + ["copies"] * 3


def test_a_cycle_is_measured_at_each_of_its_fidelities(benchmark, tmp_path):
    row = measure_recipe(tiny_recipe("lofi_cyclic_tiny_actionformer", benchmark, tmp_path), options=OPTIONS)
    assert len(row["fidelities"]) == 3
    assert row["fidelity"] in row["fidelities"]
    assert row["steps"] == 3 * OPTIONS.steps


def test_real_batches_are_decoded_and_waited_for(benchmark, tmp_path):
    recipe = tiny_recipe("lofi_s_tiny_actionformer", benchmark, tmp_path, train__batch_size=5)
    row = measure_recipe(recipe, options=replace(OPTIONS, synthetic_input=False, steps=3))
    assert row["input"] == "real"
    assert row["steps"] == 3, "the epoch has one batch: the next epoch follows"
    assert 0 < row["data_share"] < 1
    assert row["seconds"]["data"] > 0
    assert row["videos_per_sec"] == row["windows_per_sec"]


def test_the_peak_of_random_input_is_that_of_the_data(benchmark, tmp_path):
    """Bytes do not depend on what the frames show; targets, which differ, are few."""
    recipe = tiny_recipe("full_tiny_actionformer", benchmark, tmp_path)
    real = measure_recipe(recipe, options=replace(OPTIONS, synthetic_input=False))
    synthetic = measure_recipe(recipe, options=OPTIONS)
    assert real["assumptions"] == synthetic["assumptions"] == [], "the annotations are there"
    assert real["peak_bytes"] == pytest.approx(synthetic["peak_bytes"], rel=0.01)


def test_chunks_hold_less_than_all_at_once(benchmark, tmp_path):
    peaks = {
        name: measure_recipe(tiny_recipe(f"{name}_tiny_actionformer", benchmark, tmp_path), options=OPTIONS)
        for name in ("full", "chunked")
    }
    assert peaks["chunked"]["peak_bytes"] < peaks["full"]["peak_bytes"]


def test_snapshot_keeps_a_trace(benchmark, tmp_path):
    options = replace(OPTIONS, steps=1, snapshot=str(tmp_path / "snapshots"))
    measure_recipe(tiny_recipe("lofi_t_tiny_actionformer", benchmark, tmp_path), options=options)
    assert (tmp_path / "snapshots" / "trace.json").stat().st_size > 0


def made_row(each, options, advance):
    return {
        "kind": "measured",
        "method": method_name(each.recipe),
        "bytes": {"parameters": 4, "activations": 9},
        "peak_bytes": 13,
        "device": "cpu",
    }


def test_a_recipe_that_was_measured_is_not_measured_again(benchmark, tmp_path):
    recipes = [NamedRecipe(name="full", recipe=tiny_recipe("full_tiny_actionformer", benchmark, tmp_path))]
    measured = []

    def measure(each, options, advance):
        measured.append((each.name, options.steps))
        return made_row(each, options, advance)

    def run(options=OPTIONS, **more):
        return run_profile(recipes, options=options, output=tmp_path / "profile", measure=measure, **more)

    assert run() == 0
    assert run() == 0
    assert measured == [("full", 2)]
    run(replace(OPTIONS, steps=3))
    assert measured[1:] == [("full", 3)], "other options are another measurement"
    run(replace(OPTIONS, steps=3), restart=True)
    assert len(measured) == 3


def test_an_error_is_a_row_and_the_other_recipes_are_measured(benchmark, tmp_path):
    recipes = [
        NamedRecipe(name=name, recipe=tiny_recipe(f"{name}_tiny_actionformer", benchmark, tmp_path))
        for name in ("full", "chunked")
    ]

    def measure(each, options, advance):
        if each.name == "full":
            return {
                "kind": "measured",
                "method": "full end-to-end",
                "peak_bytes": None,
                "error": "no such file",
            }
        return made_row(each, options, advance)

    assert run_profile(recipes, options=OPTIONS, output=tmp_path / "profile", measure=measure) == 1
    rows = {row["recipe"]: row for row in json.loads((tmp_path / "profile" / "memory.json").read_text())}
    assert rows["full"]["error"] == "no such file"
    assert rows["chunked"]["peak_bytes"] == 13
    assert "full: no such file" in (tmp_path / "profile" / "memory.md").read_text()


def test_a_finished_run_lends_its_accuracy(benchmark, tmp_path):
    recipe = tiny_recipe("full_tiny_actionformer", benchmark, tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text('{"average_mAP": 0.4321}')
    run_profile([NamedRecipe(name="full", recipe=recipe)], options=OPTIONS, output=tmp_path, measure=made_row)
    assert json.loads((tmp_path / "memory.json").read_text())[0]["average_mAP"] == 0.4321
    assert "43.2" in (tmp_path / "memory.md").read_text()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_short_memory_is_a_row_and_no_crash(error, benchmark, tmp_path, monkeypatch):
    def fail(*arguments, **more):
        raise error

    monkeypatch.setattr(profile, "measure_recipe", fail)
    each = NamedRecipe(name="full", recipe=tiny_recipe("full_tiny_actionformer", benchmark, tmp_path))
    row = measure_or_explain(each, OPTIONS)
    assert 0 < row["needs_more_than_bytes"] <= device_bytes()
    assert "error" not in row


def test_another_runtime_error_is_no_shortage_of_memory():
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.ranks
def test_processes_of_their_own_measure_explain_and_end(benchmark, tmp_path):
    """One that fits, and one that asks for more than any machine can address."""
    fits = tiny_recipe("lofi_t_tiny_actionformer", benchmark, tmp_path)
    huge = replace(fits, fidelity=replace(fits.fidelity, height=2_000_000, width=2_000_000))
    recipes = [NamedRecipe(name="fits", recipe=fits), NamedRecipe(name="huge", recipe=huge)]
    output = tmp_path / "profile"
    assert run_profile(recipes, options=replace(OPTIONS, steps=1), output=output) == 0
    rows = {row["recipe"]: row for row in json.loads((output / "memory.json").read_text())}
    assert rows["fits"]["peak_bytes"] > 0
    assert 0 < rows["huge"]["needs_more_than_bytes"] <= device_bytes()
    assert "needs more than" in (output / "memory.html").read_text()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "name", ["full_tiny_actionformer", "chunked_tiny_actionformer", "frozen_tiny_actionformer"]
)
def test_a_gpu_tells_allocated_and_reserved_bytes(name, benchmark, tmp_path):
    recipe = tiny_recipe(name, benchmark, tmp_path)
    run_profile([NamedRecipe(name=name, recipe=recipe)], options=OPTIONS, output=tmp_path / "profile")
    (row,) = json.loads((tmp_path / "profile" / "memory.json").read_text())
    assert (
        row["counted_peak_bytes"] <= row["peak_bytes"] == sum(row["bytes"].values()) <= row["reserved_bytes"]
    )
    assert set(row["phase_peak_bytes"]) == {"forward", "backward", "optimizer"}
    assert row["transfer_sec"] > 0
    assert row["bytes"]["inputs"] > 0


def test_files_of_one_name_are_told_apart_by_their_folder(tmp_path):
    paths = []
    for folder in ("one", "two"):
        path = tmp_path / folder / "full.yaml"
        path.parent.mkdir()
        path.write_text(recipe_file("full_tiny_actionformer").read_text())
        paths.append(str(path))
    assert [each.name for each in load_recipes(paths, [])] == ["one/full", "two/full"]
    with pytest.raises(ValueError, match=r"one/full is given more than once"):
        load_recipes([paths[0], *paths], [])


def test_every_synthetic_recipe_has_a_method_name():
    names = {
        path.stem: method_name(load_recipe(path, parts=OWN_PARTS.joined(SOLA)))
        for path in sorted(SYNTHETIC.glob("*_tiny_actionformer.yaml"))
    }
    assert names["full_tiny_actionformer"] == "full end-to-end"
    assert names["lofi_st_tiny_actionformer"] == "LoFi ST"
    assert names["frozen_tiny_actionformer"] == "frozen features"
    assert names["sola_tiny_actionformer"] == "SoLa, head"


@pytest.mark.parametrize(
    ("option", "message"), [("steps", "at least 1 must be"), ("warm_up", "it must be at")]
)
def test_options_that_measure_nothing_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        ProfileOptions(**{option: 0})
