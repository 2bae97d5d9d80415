"""A comparison at several values of the knob: one comparison per value, one page over them, nothing done twice."""

import json
from pathlib import Path

import pytest
import yaml
from tiny_runs import SIDE, recipe_file, tiny_overrides

from lofi.config.load import RecipeError, read_with_overrides
from lofi.data.synthetic import benchmark_paths
from lofi.stages import compare, sweep
from lofi.stages.chains import load_comparison
from lofi.stages.compare import run_comparison
from lofi.stages.sweep import run_sweep, single_comparisons

CHAINS = {
    "frozen": ["tac_tiny", "extract_tiny", "frozen_tiny_actionformer"],
    "lofi_s": ["tac_tiny", "lofi_s_tiny_actionformer"],
}
SYNTHETIC = {
    "videos": 4, "trimmed_videos": 5, "classes": 2, "size": SIDE, "fps": 8.0, "duration_sec": 4.0, "clip_sec": 0.75,
}  # fmt: skip
VALUES = [1.0, 0.25]


@pytest.fixture(scope="module")
def write(benchmark, tmp_path_factory):
    """A function: what differs -> a comparison file with tiny recipes and two values."""

    def make(**changes):
        folder = tmp_path_factory.mktemp("sweep")
        files = {}
        for name in {name for chain in CHAINS.values() for name in chain}:
            more = {} if name == "extract_tiny" else {"train__epochs": 1}
            overrides = tiny_overrides(name, benchmark, folder / "unused", **more)
            files[name] = folder / f"{name}.yaml"
            files[name].write_text(yaml.safe_dump(read_with_overrides(recipe_file(name), overrides)))
        plain = {
            "output": str(folder / "out"),
            "data_output": str(folder / "data"),
            "synthetic": SYNTHETIC,
            "scene_correlations": VALUES,
            "methods": {method: [str(files[name]) for name in chain] for method, chain in CHAINS.items()},
        }
        path = folder / "comparison.yaml"
        path.write_text(yaml.safe_dump({**plain, **changes}))
        return path

    return make


def modified(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("seed_*/**/*") if path.is_file()}


@pytest.fixture(scope="module")
def swept(write):
    """The value 0.25 run by itself, then the sweep: (comparison file, output, files after the first, exit code)."""
    path = write()
    output, data = path.parent / "out", path.parent / "data"
    single = load_comparison(
        path,
        [
            "scene_correlations=[]",
            "synthetic.scene_correlation=0.25",
            f"output={output / 'scene_correlation_0.25'}",
            f"data_output={data / 'scene_correlation_0.25'}",
        ],
    )
    assert run_comparison(single) == 0
    before = modified(output)
    return path, output, before, run_sweep(load_comparison(path))


def test_a_sweep_has_a_row_for_every_value_and_method(swept):
    _, output, _, code = swept
    assert code == 0
    rows = json.loads((output / "sweep.json").read_text())["rows"]
    assert [(row["scene_correlation"], row["method"], row["seed"]) for row in rows] == [
        (0.25, "frozen", 0),
        (0.25, "lofi_s", 0),
        (1.0, "frozen", 0),
        (1.0, "lofi_s", 0),
    ]
    assert all(0 <= row["average_mAP"] <= 1 for row in rows)
    assert "<svg" in (output / "sweep.html").read_text()
    assert "lofi_s" in (output / "sweep.md").read_text().replace("\\_", "_")


def test_every_value_is_an_ordinary_comparison_on_data_of_its_own(swept):
    path, output, _, _ = swept
    for folder, value in (("scene_correlation_0.25", 0.25), ("scene_correlation_1", 1.0)):
        report = json.loads((output / folder / "report.json").read_text())
        assert report["benchmark"] == {"seed": 0, "drift": False, **SYNTHETIC, "scene_correlation": value}
        data = path.parent / "data" / folder
        assert json.loads(benchmark_paths(data).config.read_text())["scene_correlation"] == value
        recipe = yaml.safe_load((output / folder / "seed_0" / "tac_tiny" / "recipe.yaml").read_text())
        assert recipe["data"]["videos"] == str(data / "trimmed" / "videos")


def test_a_value_that_was_run_by_itself_is_taken_over(swept):
    _, output, before, _ = swept
    assert before
    assert {path: path.stat().st_mtime_ns for path in before} == before
    rows = json.loads((output / "sweep.json").read_text())["rows"]
    single = json.loads((output / "scene_correlation_0.25" / "report.json").read_text())["rows"]
    assert rows[:2] == [{"scene_correlation": 0.25, **row} for row in single]


def leave_numbers(monkeypatch, *, failing=()):
    """Let every stage leave a summary and no training; those whose path has a word of `failing` raise."""

    def run(recipe, **options):
        if any(word in recipe.output for word in failing):
            raise ValueError("no such luck")
        folder = Path(recipe.output)
        folder.mkdir(parents=True, exist_ok=True)
        summary = {"training_seconds": 1.0, "evaluation_seconds": 0.0, "peak_bytes": 5, "bytes": None}
        summary |= {"snippets_per_sec": 7.0, "trained_parameters": 3, "skipped_videos": {}}
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "results.json").write_text(json.dumps({"average_mAP": 0.5, "mAP": {}}))

    monkeypatch.setattr(compare, "run_training", run)
    monkeypatch.setattr(compare, "run_extraction", run)
    monkeypatch.setattr(compare, "write_benchmark", lambda config, output: None)


def test_a_chain_that_fails_at_one_value_is_a_row_and_the_exit_code(write, monkeypatch):
    leave_numbers(monkeypatch, failing=["scene_correlation_0.25/seed_0/tac_tiny__lofi_s"])
    path = write()
    assert run_sweep(load_comparison(path)) == 1
    rows = json.loads((path.parent / "out" / "sweep.json").read_text())["rows"]
    assert [row.get("error") for row in rows] == [
        None,
        "lofi_s_tiny_actionformer: no such luck",
        None,
        None,
    ]
    page = (path.parent / "out" / "sweep.md").read_text().replace("\\_", "_")
    assert "lofi_s at 0.25, seed 0, failed: lofi_s_tiny_actionformer: no such luck" in page


def test_every_benchmark_is_made_before_the_first_training(write, monkeypatch):
    seen = []
    leave_numbers(monkeypatch)
    monkeypatch.setattr(
        compare, "write_benchmark", lambda config, output: seen.append(config.scene_correlation)
    )

    def run(comparison, **options):
        seen.append("run")
        row = {"method": "lofi_s", "seed": 0, "error": "no such luck"}
        return compare.FinishedChains(comparison=comparison, folder=Path("."), rows=[row], stages=[[]])

    monkeypatch.setattr(sweep, "run_chains", run)
    monkeypatch.setattr(sweep, "report_chains", lambda finished: None)
    monkeypatch.setattr(sweep, "_write_report", lambda comparison, singles: None)
    assert run_sweep(load_comparison(write())) == 1
    assert seen == [0.25, 1.0, "run", "run"]


def test_restart_deletes_nothing_where_one_folder_is_no_comparison(write, monkeypatch):
    leave_numbers(monkeypatch)
    path = write()
    run_sweep(load_comparison(path))
    kept = path.parent / "out" / "scene_correlation_0.25" / "seed_0" / "stale.txt"
    kept.write_text("of an earlier run")
    other = path.parent / "out" / "scene_correlation_0.5"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"scene_correlation_0\.5 is no output of a comparison.*not deleted"):
        run_sweep(load_comparison(path, ["scene_correlations=[0.25,0.5]"]), restart=True)
    assert kept.exists()
    run_sweep(load_comparison(path), restart=True)
    assert not kept.exists()
    assert other.exists(), "no value of this sweep"


def test_restart_of_a_comparison_leaves_the_sweep_beside_it(write, monkeypatch):
    leave_numbers(monkeypatch)
    path = write()
    run_sweep(load_comparison(path))
    alone = load_comparison(path, ["scene_correlations=[]"])
    run_comparison(alone)
    output = path.parent / "out"
    (output / "stale.txt").write_text("of an earlier run")
    run_comparison(alone, restart=True)
    assert sorted(each.name for each in output.iterdir()) == [
        *(
            "report.html",
            "report.json",
            "report.md",
            "scene_correlation_0.25",
            "scene_correlation_1",
            "seed_0",
        ),
        *("sweep.html", "sweep.json", "sweep.md", "sweep.svg"),
    ]


def test_values_replace_the_knob_and_nothing_else(write):
    comparison = load_comparison(write(), ["synthetic.scene_correlation=0.5", "seeds=[2,1]"])
    low, high = single_comparisons(comparison)
    first, second = low.comparison, high.comparison
    assert (
        (low.value, high.value)
        == (first.synthetic.scene_correlation, second.synthetic.scene_correlation)
        == (0.25, 1)
    )
    assert first.methods == comparison.methods
    assert second.seeds == [2, 1]
    assert first.synthetic.videos == SYNTHETIC["videos"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"scene_correlations": [0.5, 1.5]},
            r"scene_correlations is \[0\.5, 1\.5\]; each must be between 0 and 1",
        ),
        ({"scene_correlations": [0.5, 0.5]}, r"each must be between 0 and 1 and stand there once"),
        ({"scene_correlations": [0.5, 0.50000001]}, r"stand there once, to 6 digits"),
        (
            {"synthetic": None, "data_output": None},
            r"only a benchmark that the comparison makes has that knob: say synthetic and data_output",
        ),
        ({"scene_correlations": 0.5}, r"comparison\.yaml: comparison\.scene_correlations"),
    ],
)
def test_wrong_values_are_refused(change, expected, write):
    with pytest.raises(RecipeError, match=expected):
        load_comparison(write(**change))


SHARES = {
    "tac": ["tac_tiny", "extract_tiny", "frozen_tiny_actionformer"],
    "pal": ["pal_tiny", "extract_tiny", "frozen_tiny_actionformer"],
}


@pytest.fixture(scope="module")
def shared(benchmark, tmp_path_factory):
    """Two chains at half of the labels and all, with probes: (comparison file, output, exit code)."""
    folder = tmp_path_factory.mktemp("shares")
    files = {}
    for name in {name for chain in SHARES.values() for name in chain}:
        more = {} if name == "extract_tiny" else {"train__epochs": 2}
        overrides = tiny_overrides(name, benchmark, folder / "unused", **more)
        files[name] = folder / f"{name}.yaml"
        files[name].write_text(yaml.safe_dump(read_with_overrides(recipe_file(name), overrides)))
    plain = {
        "output": str(folder / "out"),
        "labelled_shares": [1.0, 0.5],
        "probe": True,
        "methods": {method: [str(files[name]) for name in chain] for method, chain in SHARES.items()},
    }
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path, folder / "out", run_sweep(load_comparison(path))


def num_steps(run):
    return len((run / "metrics.jsonl").read_text().splitlines())


def test_every_chain_is_run_at_every_labelled_share_with_as_many_steps(shared):
    _, output, code = shared
    assert code == 0
    rows = json.loads((output / "sweep.json").read_text())["rows"]
    assert [(row["labelled_share"], row["method"]) for row in rows] == [
        (0.5, "tac"),
        (0.5, "pal"),
        (1.0, "tac"),
        (1.0, "pal"),
    ]
    half, whole = rows[0], rows[2]
    for place in (0, 2):
        runs = [output / "labelled_share_1" / row["stages"][place]["run"] for row in (half, whole)]
        assert num_steps(runs[0]) == num_steps(runs[1]) > 0
        recipe = yaml.safe_load((runs[0] / "recipe.yaml").read_text())
        assert (recipe["data"]["labelled_share"], recipe["data"]["repeat_labelled"]) == (0.5, True)


def test_what_does_not_see_labels_is_trained_once_for_all_shares(shared):
    _, output, _ = shared
    assert sorted(path.name for path in (output / "seed_0").glob("pal_tiny*")) == [
        "pal_tiny",
        "pal_tiny__extract_tiny",
        "pal_tiny__extract_tiny__frozen_tiny_actionformer",
        "pal_tiny__extract_tiny__frozen_tiny_actionformer+data.labelled_share=0.5+data.repeat_labelled=true",
    ]
    for row in json.loads((output / "labelled_share_0.5" / "report.json").read_text())["rows"]:
        assert not any(stage["shared"] for stage in row["stages"]), "shared with no other method"


def test_probes_of_the_features_stand_beside_the_average_map(shared):
    _, output, _ = shared
    sweep_report = json.loads((output / "sweep.json").read_text())
    for row in sweep_report["rows"]:
        assert 0 <= row["probe"]["class"]["balanced_accuracy"] <= 1
        assert 0 <= row["probe"]["region"]["balanced_accuracy"] <= 1
        assert -1 <= row["probe"]["temporal_sensitivity"]["adjacent"] <= 1
    assert "action / background, linear" in (output / "labelled_share_1" / "report.html").read_text()


def test_the_table_of_methods_and_shares_is_in_page_markdown_and_json(shared):
    _, output, _ = shared
    table = json.loads((output / "sweep.json").read_text())["table"]
    assert [(line["method"], line["labelled_share"], line["num_seeds"]) for line in table] == [
        ("tac", 0.5, 1),
        ("pal", 0.5, 1),
        ("tac", 1.0, 1),
        ("pal", 1.0, 1),
    ]
    assert "| method | at 50 % | at 100 % |" in (output / "sweep.md").read_text()
    assert "share of the labelled training videos" in (output / "sweep.html").read_text()


def test_shares_run_again_redo_nothing(shared):
    path, output, _ = shared
    before = modified(output)
    assert run_sweep(load_comparison(path)) == 0
    assert modified(output) == before


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("labelled_shares=[0.5,0]", r"labelled_shares is \[0\.5, 0\.0\]; each must lie in \(0, 1\]"),
        ("labelled_shares=[0.5,0.5]", "stand there once"),
        ("scene_correlations=[0.5]", "one knob at a time|makes has that knob"),
    ],
)
def test_wrong_shares_are_refused(override, expected, shared):
    with pytest.raises(RecipeError, match=expected):
        load_comparison(shared[0], [override])


def test_a_recipe_with_a_share_of_its_own_is_refused(shared):
    path = shared[0]
    plain = yaml.safe_load(path.read_text())
    plain["methods"]["tac"][0] += " data.labelled_share=0.1"
    other = path.parent / "own_share.yaml"
    other.write_text(yaml.safe_dump(plain))
    with pytest.raises(RecipeError, match=r"tac_tiny\.yaml: data\.labelled_share is 0\.1, but"):
        load_comparison(other)
