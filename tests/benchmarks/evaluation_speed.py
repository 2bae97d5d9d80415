"""How long mAP, AR@AN and a bootstrap of 1,000 resamples take from two JSON files, beside what the field's evaluators took.

    python tests/benchmarks/evaluation_speed.py
    python tests/benchmarks/evaluation_speed.py --case anet13_val_100 --repeat 5
    python tests/benchmarks/evaluation_speed.py --oracles DIR      # gt/, timing/timings.jsonl, timing/*.npz

Cases: thumos14_test_1000 (212,000 predictions, 212 videos, 20 classes, 5 thresholds; the file that the others were timed
on) and anet13_val_100 (472,800 predictions, 4,728 videos, 200 classes, 10 thresholds; made here by a seed on the real
ground truth, of the shape of the file that the others were timed on). Where the shared files are missing, both are made,
ground truth included. Every measurement is a fresh process on one core: annotations and predictions are read from JSON,
then evaluated; importing is shown apart. "beyond" is the most memory that is held beyond the columns, counted by
tracemalloc in further processes (modules that numpy imports late not counted), as a multiple of the columns' size: by mAP alone, by all that launch/evaluate.py computes,
and by that with --errors. The load average tells how idle the machine was; CPU
seconds suffer least from it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tracemalloc
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ORACLES = ROOT / ".." / "shared" / "data" / "oracles"
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """The shape of one timing set."""

    ground_truth: str
    subset: str
    num_videos: int
    num_instances: int
    num_classes: int
    per_video: int
    tious: tuple[float, ...]


CASES = {
    "thumos14_test_1000": Case(
        ground_truth="thumos14_test.json",
        subset="test",
        num_videos=212,
        num_instances=3358,
        num_classes=20,
        per_video=1000,
        tious=(0.3, 0.4, 0.5, 0.6, 0.7),
    ),
    "anet13_val_100": Case(
        ground_truth="activitynet13_val.json",
        subset="validation",
        num_videos=4728,
        num_instances=7293,
        num_classes=200,
        per_video=100,
        tious=(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    ),
}

EVALUATORS = {
    "map": {
        "own": "a loop over predictions",
        "anet": "ActivityNet toolkit",
        "opentad2": "OpenTAD, 2 processes",
        "af": "ActionFormer",
    },
    "recall": {"anetprop": "ActivityNet toolkit"},
    "bootstrap": {},
}
"""Measure -> evaluator in timings.jsonl -> name to print."""
TITLES = {"map": "mAP", "recall": "AR@AN", "bootstrap": "1,000 resamples"}
MEMORY = {"map": "mAP", "everything": "all measures", "errors": "with --errors"}
"""What is computed while memory is counted -> name to print."""
RESULTS = {"map": "average mAP", "recall": "area under AR", "bootstrap": "upper end of the interval"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--case", action="append", choices=list(CASES), help="one of the cases; both by default"
    )
    parser.add_argument("--oracles", type=Path, default=ORACLES, help="folder of the shared cases")
    parser.add_argument("--folder", type=Path, help="where the JSON files go; a temporary folder by default")
    parser.add_argument(
        "--repeat", type=int, default=3, help="processes per measurement; the quickest is shown"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, folder=arguments.folder, case=CASES[arguments.case[0]])))
        return
    print(f"{processor()}, one core; Python {platform.python_version()}, numpy {metadata.version('numpy')}")
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.case or CASES:
            folder = (arguments.folder or Path(temporary)) / name
            is_made = write_case(folder, name=name, oracles=arguments.oracles)
            run_case(folder, name=name, repeat=arguments.repeat, oracles=arguments.oracles, is_made=is_made)


def run_case(folder: Path, *, name: str, repeat: int, oracles: Path, is_made: bool) -> None:
    """Measure one case in fresh processes and print it beside the stored times."""
    case = CASES[name]
    print(
        f"\n{name}: {case.num_videos * case.per_video} predictions, {case.num_videos} videos, {len(case.tious)} tIoUs"
        f"{', predictions made here' if is_made else ''}"
    )
    memory = {what: in_fresh_process(f"memory {what}", folder=folder, name=name) for what in MEMORY}
    columns_bytes = memory["map"]["columns_bytes"]
    beyond = ", ".join(
        f"{title} {memory[what]['beyond_bytes'] / columns_bytes:.2f}x" for what, title in MEMORY.items()
    )
    print(f"  memory          columns {columns_bytes / 2**20:.1f} MiB; beyond them {beyond}")
    for what, title in TITLES.items():
        runs = [in_fresh_process(what, folder=folder, name=name) for _ in range(repeat)]
        best = min(runs, key=lambda run: run["cpu_s"])
        print(
            f"  {title:15} this project            wall {best['wall_s']:7.2f} s  CPU {best['cpu_s']:7.2f} s  "
            f"(annotations {best['annotations_s']:.2f}, predictions {best['predictions_s']:.2f}, evaluation "
            f"{best['evaluation_s']:.2f} s; imports {best['imports_s']:.2f} s more)  load average {best['load']:.1f}"
        )
        print(
            f"                  peak resident {best['peak_bytes'] / 2**20:.0f} MiB, of it after imports {best['peak_bytes'] / 2**20 - best['resident_bytes'] / 2**20:.0f} MiB"
            + f"; {RESULTS[what]} {best['result']:.6f}"
        )
        for row in stored_times(oracles, name=name):
            if row["evaluator"] in EVALUATORS[what]:
                print(
                    f"                  {EVALUATORS[what][row['evaluator']]:23} wall {row['wall_s']:7.2f} s  CPU {row['cpu_s']:7.2f} s  "
                    f"{row['wall_s'] / best['wall_s']:6.1f}x wall, {row['cpu_s'] / best['cpu_s']:6.1f}x CPU  "
                    f"load average {row['loadavg']:.1f}, result {row.get('avg', row.get('AUC', float('nan'))):.6f}"
                )


def in_fresh_process(what: str, *, folder: Path, name: str) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, "--child", what, "--folder", str(folder), "--case", name]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(what: str, *, folder: Path, case: Case) -> dict[str, Any]:
    """In the fresh process: read, evaluate, say what it took."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    start = time.perf_counter()
    from lofi.data.annotations import read_annotations
    from lofi.evaluation.average_recall import average_recall
    from lofi.evaluation.bootstrap import bootstrap_average_map
    from lofi.evaluation.mean_average_precision import mean_average_precision
    from lofi.evaluation.predictions import read_predictions
    from lofi.evaluation.tables import GroundTruth
    from lofi.stages.score import Scoring, score_tables

    imported, cpu = time.perf_counter(), time.process_time()
    resident = peak_resident_bytes()
    annotated = read_annotations(folder / "annotations.json", as_published=True)
    videos = {video.name: video.segments for video in annotated.subset(case.subset)}
    truth = GroundTruth.of(videos, classes=annotated.classes)
    with_truth = time.perf_counter()
    predictions = read_predictions(folder / "predictions.json")
    loaded = time.perf_counter()
    columns = (predictions.video, predictions.label, predictions.start, predictions.end, predictions.score)
    columns_bytes = sum(column.nbytes for column in columns)
    beyond = 0
    if what.startswith("memory"):
        scoring = Scoring(tious=case.tious, errors=what == "memory errors")
        score_tables(
            truth, predictions.select(slice(9)), scoring=scoring
        )  # numpy imports some of itself late
        tracemalloc.start()
        if what == "memory map":
            mean_average_precision(truth, predictions, tious=case.tious)
        else:
            score_tables(truth, predictions, scoring=scoring)
        beyond = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        result = 0.0
    elif what == "bootstrap":
        result = bootstrap_average_map(truth, predictions, tious=case.tious, seed=SEED).average.high
    elif what == "recall":
        result = average_recall(truth, predictions).auc
    else:
        result = mean_average_precision(truth, predictions, tious=case.tious).average
    done = time.perf_counter()
    return {
        "wall_s": done - imported,
        "cpu_s": time.process_time() - cpu,
        "imports_s": imported - start,
        "annotations_s": with_truth - imported,
        "predictions_s": loaded - with_truth,
        "evaluation_s": done - loaded,
        "resident_bytes": resident,
        "peak_bytes": peak_resident_bytes(),
        "columns_bytes": columns_bytes,
        "beyond_bytes": beyond,
        "load": os.getloadavg()[0],
        "result": result,
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_resident_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held before it started this process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def stored_times(oracles: Path, *, name: str) -> list[dict[str, Any]]:
    path = oracles / "timing" / "timings.jsonl"
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [row for row in rows if row["case"] == name]


def write_case(folder: Path, *, name: str, oracles: Path) -> bool:
    """Write annotations.json and predictions.json. True where the predictions were made here."""
    case = CASES[name]
    stored = oracles / "gt" / case.ground_truth
    content = json.loads(stored.read_text()) if stored.exists() else make_ground_truth(case)
    archive = oracles / "timing" / f"{name}.npz"
    is_made = not archive.exists()
    results = make_predictions(content, case=case) if is_made else unpack(archive)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations.json").write_text(json.dumps(content))
    (folder / "predictions.json").write_text(
        json.dumps({"version": "1.0", "results": results, "external_data": {}})
    )
    return is_made


def unpack(archive: Path) -> dict[str, list[dict[str, Any]]]:
    import numpy as np

    with np.load(archive) as columns:
        videos, classes = columns["video_ids"].tolist(), columns["classes"].tolist()
        names = ("video_index", "label_index", "start", "end", "score")
        rows = zip(*(columns[name].tolist() for name in names), strict=True)
        results: dict[str, list[dict[str, Any]]] = {video: [] for video in videos}
        for video, label, start, end, score in rows:
            results[videos[video]].append({"segment": [start, end], "label": classes[label], "score": score})
    return results


def make_ground_truth(case: Case) -> dict[str, Any]:
    import numpy as np

    generator = np.random.default_rng(SEED)
    classes = [f"class {index:03d}" for index in range(case.num_classes)]
    database: dict[str, Any] = {
        f"video_{index:06d}": {
            "subset": case.subset,
            "duration": float(generator.uniform(30, 240)),
            "annotations": [],
        }
        for index in range(case.num_videos)
    }
    videos = list(database)
    for index in range(case.num_instances):
        entry = database[videos[index % case.num_videos]]
        start, length = generator.uniform(0, 0.8) * entry["duration"], generator.uniform(2, 20)
        label = classes[index % case.num_videos % case.num_classes]
        entry["annotations"].append({"segment": [start, start + length], "label": label})
    return {"classes": classes, "database": database}


def make_predictions(content: dict[str, Any], *, case: Case) -> dict[str, list[dict[str, Any]]]:
    """Three of ten lie about an instance and have its label; the rest are anywhere, of any class. No two scores are equal."""
    import numpy as np

    generator = np.random.default_rng(SEED)
    database = {name: entry for name, entry in content["database"].items() if entry["subset"] == case.subset}
    scores = iter(generator.permutation(len(database) * case.per_video) / (len(database) * case.per_video))
    results = {}
    for name, entry in database.items():
        rows, instances = [], entry["annotations"]
        for index in range(case.per_video):
            if instances and index % 10 < 3:
                instance = instances[int(generator.integers(len(instances)))]
                start, end = instance["segment"]
                start, end = np.array([start, end]) + generator.normal(0, 0.15 * (end - start), 2)
                label = instance["label"]
            else:
                start = generator.uniform(0, 0.9) * entry["duration"]
                end = start + generator.uniform(0.5, 0.5 * entry["duration"])
                label = content["classes"][int(generator.integers(len(content["classes"])))]
            start, end = sorted((round(float(start), 3), round(float(end), 3)))
            rows.append({"segment": [start, end], "label": label, "score": round(float(next(scores)), 7)})
        results[name] = rows
    return results


if __name__ == "__main__":
    main()
