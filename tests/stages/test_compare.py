"""Whole pipelines side by side: a report of every method and seed, nothing done twice, failures as rows."""

import json
import re
import shutil
import weakref
from pathlib import Path

import pytest
import torch
import yaml
from tiny_runs import recipe_file, tiny_overrides

from lofi.config.load import RecipeError, read_with_overrides
from lofi.data.decode import DecodeError
from lofi.data.synthetic import benchmark_paths
from lofi.engine import deepspeed_engine
from lofi.engine.deepspeed_engine import Ranks
from lofi.stages import compare
from lofi.stages.chains import chain_stages, load_comparison
from lofi.stages.compare import run_comparison
from lofi.stages.train import run_training

CHAINS = {
    "frozen": ["tac_tiny", "extract_tiny", "frozen_tiny_actionformer"],
    "lofi_s": ["tac_tiny", "lofi_s_tiny_actionformer", "extract_tiny", "frozen_tiny_actionformer"],
}


@pytest.fixture(scope="module")
def write(benchmark, tmp_path_factory):
    """A function: chains of recipe names -> a comparison file whose recipes are tiny; some changed by name."""

    def make(chains, *, seeds=(0,), **changes):
        folder = tmp_path_factory.mktemp("comparison")
        files = {}
        for name in {name for chain in chains.values() for name in chain}:
            more = {"train__epochs": 1} if "train" in yaml.safe_load(recipe_file(name).read_text()) else {}
            overrides = tiny_overrides(
                name, benchmark, folder / "unused", **{**more, **changes.get(name, {})}
            )
            plain = read_with_overrides(recipe_file(name), overrides)
            files[name] = folder / f"{name}.yaml"
            files[name].write_text(yaml.safe_dump(plain))
        path = folder / "comparison.yaml"
        methods = {method: [str(files[name]) for name in chain] for method, chain in chains.items()}
        path.write_text(
            yaml.safe_dump({"output": str(folder / "out"), "seeds": list(seeds), "methods": methods})
        )
        return path

    return make


def modified(folder, pattern="*"):
    return {path: path.stat().st_mtime_ns for path in folder.rglob(pattern) if path.is_file()}


@pytest.fixture(scope="module")
def compared(write):
    """Two chains, two seeds: (comparison file, output, exit code)."""
    path = write(CHAINS, seeds=(0, 1))
    comparison = load_comparison(path)
    return path, path.parent / "out", run_comparison(comparison)


def test_a_chain_may_change_values_of_a_recipe_in_a_stage_of_its_own(write):
    path = write(CHAINS)
    plain = yaml.safe_load(path.read_text())
    tac, extract, frozen = plain["methods"]["frozen"]
    plain["methods"] = {
        "frozen": [tac, extract, frozen],
        "slow": [tac, extract, f"{frozen} optimizer.lr=0.5"],
    }
    path.write_text(yaml.safe_dump(plain))
    comparison = load_comparison(path)
    stages = {method: list(chain_stages(comparison, method, seed=0)) for method in plain["methods"]}
    assert stages["frozen"][:2] == stages["slow"][:2]
    assert stages["slow"][2].recipe.optimizer_config.lr == 0.5
    assert stages["slow"][2].path.name == stages["frozen"][2].path.name + "+optimizer.lr=0.5"
    plain["methods"]["slow"][2] = f"{frozen} optimizer.rl=0.5"
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(RecipeError, match=r"optimizer.*rl"):
        load_comparison(path)


def test_a_comparison_writes_a_row_for_every_method_and_seed(compared):
    _, output, code = compared
    assert code == 0
    report = json.loads((output / "report.json").read_text())
    assert [(row["method"], row["seed"]) for row in report["rows"]] == [
        ("frozen", 0),
        ("lofi_s", 0),
        ("frozen", 1),
        ("lofi_s", 1),
    ]
    for row in report["rows"]:
        assert 0 <= row["average_mAP"] <= 1
        assert len(row["mAP"]) == 10
        assert row["peak_bytes"] == sum(row["bytes"].values())
        assert row["snippets_per_sec"] > 0
        assert row["seconds"] > 0
        assert row["kind"] == "measured"
        assert [stage["name"] for stage in row["stages"]] == CHAINS[row["method"]]
        assert [stage["shared"] for stage in row["stages"]] == [True] + [False] * (len(row["stages"]) - 1)


def test_the_report_can_be_read(compared):
    _, output, _ = compared
    assert "<html" in (output / "report.html").read_text()
    markdown = (output / "report.md").read_text().replace("\\_", "_")
    assert "frozen" in markdown
    assert "lofi_s" in markdown


def test_chains_that_begin_alike_share_those_stages(compared):
    _, output, _ = compared
    for seed in (0, 1):
        folders = sorted(path.name for path in (output / f"seed_{seed}").iterdir())
        assert folders == [
            "tac_tiny",
            "tac_tiny__extract_tiny",
            "tac_tiny__extract_tiny__frozen_tiny_actionformer",
            "tac_tiny__lofi_s_tiny_actionformer",
            "tac_tiny__lofi_s_tiny_actionformer__extract_tiny",
            "tac_tiny__lofi_s_tiny_actionformer__extract_tiny__frozen_tiny_actionformer",
        ]


def test_each_stage_takes_up_what_the_stage_before_left(compared):
    _, output, _ = compared
    runs = output / "seed_1"
    recipe = yaml.safe_load((runs / "tac_tiny__lofi_s_tiny_actionformer" / "recipe.yaml").read_text())
    assert recipe["encoder"]["weights"] == str(runs / "tac_tiny")
    assert recipe["seed"] == 1
    before = runs / "tac_tiny__lofi_s_tiny_actionformer__extract_tiny"
    manifest = json.loads((before / "manifest.json").read_text())
    assert manifest["encoder"]["weights"] == str(runs / "tac_tiny__lofi_s_tiny_actionformer")
    last = runs / "tac_tiny__lofi_s_tiny_actionformer__extract_tiny__frozen_tiny_actionformer"
    assert yaml.safe_load((last / "recipe.yaml").read_text())["data"]["features"] == str(before)


def test_seeds_differ(compared):
    _, output, _ = compared
    first, second = (
        (output / f"seed_{seed}" / "tac_tiny" / "metrics.jsonl").read_text().splitlines()[0]
        for seed in (0, 1)
    )
    assert json.loads(first)["loss"] != json.loads(second)["loss"]


def test_run_again_nothing_is_redone_and_the_rows_are_the_same(compared):
    path, output, _ = compared
    rows = json.loads((output / "report.json").read_text())["rows"]
    before = {seed: modified(output / f"seed_{seed}") for seed in (0, 1)}
    assert run_comparison(load_comparison(path)) == 0
    assert {seed: modified(output / f"seed_{seed}") for seed in (0, 1)} == before
    assert json.loads((output / "report.json").read_text())["rows"] == rows


def test_restart_does_everything_again(write):
    path = write({"tac": ["tac_tiny"]})
    output = path.parent / "out"
    run_comparison(load_comparison(path))
    before = modified(output, "metrics.jsonl")
    (output / "stale.txt").write_text("of an earlier run")
    run_comparison(load_comparison(path), restart=True)
    after = modified(output, "metrics.jsonl")
    assert after.keys() == before.keys()
    assert all(after[path] > before[path] for path in before)
    assert not (output / "stale.txt").exists()


def test_restart_never_deletes_a_folder_that_is_no_comparison(write):
    path = write({"tac": ["tac_tiny"]})
    output = path.parent / "out"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"out is no output of a comparison.*not deleted"):
        run_comparison(load_comparison(path), restart=True)
    assert (output / "thesis.txt").exists()


def test_a_changed_recipe_is_not_mixed_with_the_runs_of_the_old_one(write, capsys):
    path = write({"tac": ["tac_tiny"]})
    run_comparison(load_comparison(path))
    recipe = path.parent / "tac_tiny.yaml"
    recipe.write_text(recipe.read_text().replace("lr: 0.002", "lr: 0.004"))
    assert run_comparison(load_comparison(path)) == 1
    (row,) = json.loads((path.parent / "out" / "report.json").read_text())["rows"]
    assert "belongs to another recipe" in row["error"]
    assert "--restart" in row["error"]


def test_a_chain_that_fails_is_a_row_with_its_reason_and_the_others_go_on(write, benchmark, tmp_path):
    broken = tmp_path / "videos"
    shutil.copytree(benchmark.videos, broken)
    (broken / "video_training_0000.mp4").write_bytes(b"")
    chains = {
        "broken": ["tac_tiny", "lofi_t_tiny_actionformer"],
        "sound": ["tac_tiny", "lofi_s_tiny_actionformer"],
    }
    path = write(chains, lofi_t_tiny_actionformer={"data__videos": broken})
    assert run_comparison(load_comparison(path)) == 1
    output = path.parent / "out"
    failed, sound = json.loads((output / "report.json").read_text())["rows"]
    assert failed["method"] == "broken"
    assert failed["error"].startswith("lofi_t_tiny_actionformer: video_training_0000 cannot be decoded")
    assert sound["average_mAP"] is not None
    assert "video_training_0000 cannot be decoded" in (output / "report.md").read_text().replace("\\_", "_")


PEAKS = {
    "tac_tiny": 500,
    "lofi_s_tiny_actionformer": 300,
    "frozen_tiny_actionformer": 20,
    "chunked_tiny_actionformer": 70,
}
"""Bytes that the test below lets each recipe need."""


@pytest.mark.parametrize(
    ("first", "second", "shared", "peaks"),
    [
        ("tac frozen", "tac lofi_s", [1, 0], (20, 300)),
        ("tac lofi_s extract frozen", "tac lofi_s extract chunked", [1, 1, 1, 0], (20, 70)),
        ("tac lofi_s extract frozen", "tac chunked extract frozen", [1, 0, 0, 0], (300, 70)),
        ("tac lofi_s", "tac lofi_s extract frozen", [1, 1], (300, 20)),
        ("tac extract", "tac extract", [1, 1], (500, 500)),
        ("tac lofi_s extract frozen", "tac lofi_s extract frozen", [1, 1, 1, 1], (20, 20)),
    ],
)
def test_a_stage_counts_for_the_method_that_alone_has_it(first, second, shared, peaks, write, monkeypatch):
    def leave_summary(recipe, **options):
        folder = Path(recipe.output)
        folder.mkdir(parents=True, exist_ok=True)
        peak = PEAKS.get(folder.name.split("__")[-1])
        summary = {"training_seconds": 1.0, "evaluation_seconds": 0.0, "peak_bytes": peak, "bytes": None}
        summary |= {"snippets_per_sec": 1.0, "trained_parameters": 1, "skipped_videos": {}}
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "results.json").write_text(json.dumps({"average_mAP": 0.5, "mAP": {}}))

    monkeypatch.setattr(compare, "run_training", leave_summary)
    monkeypatch.setattr(compare, "run_extraction", leave_summary)
    chains = {
        method: [
            next(name for name in [*PEAKS, "extract_tiny"] if name.startswith(word)) for word in chain.split()
        ]
        for method, chain in (("first", first), ("second", second))
    }
    path = write(chains)
    assert run_comparison(load_comparison(path)) == 0
    rows = json.loads((path.parent / "out" / "report.json").read_text())["rows"]
    assert [stage["shared"] for stage in rows[0]["stages"]] == [bool(each) for each in shared]
    assert tuple(row["peak_bytes"] for row in rows) == peaks


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_a_method_that_does_not_fit_into_memory_is_a_row_and_the_others_go_on(error, write, monkeypatch):
    held = []

    def run(recipe, **options):
        if "lofi_t" in recipe.output:
            activations = torch.ones(3)
            held.append(weakref.ref(activations))
            raise error("out of memory")
        assert held[0]() is None, "the failed stage's tensors are still there"
        return run_training(recipe, **options)

    monkeypatch.setattr(compare, "run_training", run)
    path = write({"big": ["lofi_t_tiny_actionformer"], "small": ["lofi_s_tiny_actionformer"]})
    assert run_comparison(load_comparison(path)) == 1
    big, small = json.loads((path.parent / "out" / "report.json").read_text())["rows"]
    assert re.fullmatch(r"lofi_t_tiny_actionformer: needs more than \d+\.\d [GT]iB of memory", big["error"])
    assert small["average_mAP"] is not None


def test_a_missing_video_of_one_chain_does_not_stop_the_others(write, tmp_path):
    (tmp_path / "videos").mkdir()
    path = write(
        {"broken": ["lofi_t_tiny_actionformer"], "sound": ["lofi_s_tiny_actionformer"]},
        lofi_t_tiny_actionformer={"data__videos": tmp_path / "videos"},
    )
    assert run_comparison(load_comparison(path)) == 1
    broken, sound = json.loads((path.parent / "out" / "report.json").read_text())["rows"]
    assert "video_validation_0000.mp4" in broken["error"]
    assert sound["average_mAP"] is not None


def test_with_several_ranks_an_error_of_one_is_raised(write, monkeypatch):
    def run(recipe, **options):
        raise DecodeError("video_training_0000", "empty file")

    ranks = Ranks(rank=0, world_size=2, device=torch.device("cpu"))
    monkeypatch.setattr(deepspeed_engine, "start_ranks", lambda: ranks)
    monkeypatch.setattr(compare, "run_training", run)
    path = write({"first": ["lofi_s_tiny_actionformer"], "second": ["lofi_t_tiny_actionformer"]})
    with pytest.raises(DecodeError, match="video_training_0000 cannot be decoded"):
        run_comparison(load_comparison(path))
    assert not (path.parent / "out" / "report.json").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("lr: 0.002", "lrr: 0.002"),
            r"tac_tiny\.yaml: optimizer\.lrr is not an option \(did you mean lr\?\)",
        ),
        (("name: tac\n", "name: tap\n"), r"tac_tiny\.yaml: objective\.name is 'tap'"),
    ],
)
def test_a_wrong_recipe_in_a_chain_is_refused_before_any_work(change, expected, write):
    path = write({"tac": ["tac_tiny"]})
    recipe = path.parent / "tac_tiny.yaml"
    recipe.write_text(recipe.read_text().replace(*change))
    with pytest.raises(RecipeError, match=expected):
        load_comparison(path)
    assert not (path.parent / "out").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"methods": {}}, r"methods is empty, or one of its chains is"),
        ({"methods": {"tac": []}}, r"methods is empty, or one of its chains is"),
        ({"methods": {"tac": ["nowhere.yaml"]}}, r"nowhere\.yaml: no such recipe"),
        ({"methods": {"tac": "a.yaml"}}, r"comparison\.yaml: (comparison\.)?methods"),
        ({"methods": ...}, r"comparison\.yaml: (comparison\.)?methods"),
        ({"seeds": []}, r"comparison\.yaml: seeds is \[\]; it must name at least one seed, each once"),
        (
            {"seeds": [0, 0]},
            r"comparison\.yaml: seeds is \[0, 0\]; it must name at least one seed, each once",
        ),
        ({"seed": 3}, r"comparison\.yaml: comparison\.seed is not an option \(did you mean seeds\?\)"),
        ({"synthetic": {"videos": 4}}, r"comparison\.yaml: synthetic and data_output go together"),
        (
            {"synthetic": {"video": 4}, "data_output": "d"},
            r"synthetic\.video is not an option \(did you mean videos\?",
        ),
        ({"synthetic": {"classes": 1}, "data_output": "d"}, r"synthetic\.classes is 1; it must be 2 to 8"),
    ],
)
def test_a_wrong_comparison_file_is_refused(change, expected, write):
    path = write({"tac": ["tac_tiny"]})
    plain = {**yaml.safe_load(path.read_text()), **change}
    path.write_text(yaml.safe_dump({key: value for key, value in plain.items() if value is not ...}))
    with pytest.raises(RecipeError, match=expected):
        load_comparison(path)


def test_a_comparison_writes_its_benchmark_first(write, tmp_path):
    path = write({"tac": ["tac_tiny"]})
    data = tmp_path / "data"
    synthetic = {
        "videos": 2, "trimmed_videos": 5, "classes": 2, "size": 20, "fps": 8.0, "duration_sec": 4.0, "clip_sec": 0.75,
    }  # fmt: skip
    plain = {**yaml.safe_load(path.read_text()), "synthetic": synthetic, "data_output": str(data)}
    path.write_text(yaml.safe_dump(plain))
    assert run_comparison(load_comparison(path)) == 0
    report = json.loads((path.parent / "out" / "report.json").read_text())
    assert report["benchmark"]["videos"] == 2
    assert len(list(data.rglob("*.mp4"))) == (2 + 2) + (5 + 1)
    recipe = yaml.safe_load((path.parent / "out" / "seed_0" / "tac_tiny" / "recipe.yaml").read_text())
    assert recipe["data"]["videos"] == str(data / "trimmed" / "videos")


def test_the_benchmark_is_written_before_the_ranks_are_joined(write, monkeypatch, tmp_path):
    """Joining has a time limit, and so has a barrier."""
    seen = []

    def start():
        seen.append("joined")
        raise ConnectionError("enough")

    monkeypatch.setattr(compare, "write_benchmark", lambda config, output: seen.append("written"))
    monkeypatch.setattr(deepspeed_engine, "start_ranks", start)
    path = write({"tac": ["tac_tiny"]})
    comparison = load_comparison(path, ["synthetic.videos=2", f"data_output={tmp_path / 'data'}"])
    with pytest.raises(ConnectionError, match="enough"):
        run_comparison(comparison)
    assert seen == ["written", "joined"]


def test_other_ranks_wait_for_the_benchmark_and_write_nothing(write, monkeypatch, tmp_path):
    paths = benchmark_paths(tmp_path / "data")
    to_write = [paths.trimmed_annotations, paths.untrimmed_annotations]

    def sleep(seconds):  # the main rank gets on
        file = to_write.pop(0)
        file.parent.mkdir(parents=True)
        file.write_text("{}")

    def start():
        assert not to_write
        raise ConnectionError("joined")

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(compare.time, "sleep", sleep)
    monkeypatch.setattr(deepspeed_engine, "start_ranks", start)
    path = write({"tac": ["tac_tiny"]})
    comparison = load_comparison(path, ["synthetic.videos=2", f"data_output={paths.root}"])
    with pytest.raises(ConnectionError, match="joined"):
        run_comparison(comparison)
    assert not (path.parent / "out").exists()
    assert not paths.config.exists()


def test_every_recipe_reads_the_benchmark_that_the_comparison_makes(write, tmp_path):
    path = write(CHAINS, extract_tiny={"data__frame_cache": None})
    data = tmp_path / "data, of p=0.8"
    made = {"synthetic": {"scene_correlation": 0.8}, "data_output": str(data)}
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **made}))
    comparison = load_comparison(path)
    tac, lofi, extract, head = [stage.recipe.data for stage in chain_stages(comparison, "lofi_s", seed=0)]
    for read, part in ((tac, "trimmed"), (lofi, "untrimmed"), (extract, "untrimmed"), (head, "untrimmed")):
        assert read.annotations == str(data / part / "annotations.json")
        assert read.videos == (None if read is head else str(data / part / "videos"))
        assert read.frame_cache == (str(data / "frames") if read in (tac, lofi) else None)


def test_without_a_benchmark_every_recipe_reads_its_own_data(write, benchmark):
    comparison = load_comparison(write(CHAINS))
    for stage in chain_stages(comparison, "lofi_s", seed=0):
        assert Path(stage.recipe.data.annotations).is_relative_to(benchmark.data)
