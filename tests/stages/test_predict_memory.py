"""A long video is predicted in the memory of a short one."""

import json
import os
import subprocess
import sys

import av
import numpy as np
import pytest
from tiny_runs import CHANNELS, NUM_SNIPPETS, child_environment, recipe_file, tiny_overrides

from lofi.config.load import load_extraction_recipe
from lofi.stages.extract import run_extraction

FPS = 8
SIDE = 32
MINUTES = (4, 16)
SLIDING = {"grid__mode": "sliding", "grid__window_sec": 10.0}

PEAKS = """
import json, re, sys, threading, time
from pathlib import Path
from lofi.stages.predict import PredictOptions, run_prediction

output, short, long, *runs = sys.argv[1:]
found, children = [], {}

def peak_bytes(process):
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path(f"/proc/{process}/status").read_text())[1]) * 1024

def watch():
    while True:
        for process in " ".join(each.read_text() for each in Path("/proc/self/task").glob("*/children")).split():
            try:
                if "lofi.data.reading_process" in Path(f"/proc/{process}/cmdline").read_text():
                    children[process] = peak_bytes(process)
            except (OSError, TypeError):
                pass  # it has ended
        time.sleep(0.02)

threading.Thread(target=watch, daemon=True).start()
for video in (short, long):
    for run in runs:
        folder = Path(output) / Path(run).name
        children.clear()
        Path("/proc/self/clear_refs").write_text("5")  # the greatest so far begins anew
        run_prediction(PredictOptions(run=Path(run), videos=[video], output=folder, device="cpu"))
        found.append(json.loads((folder / "records" / (Path(video).stem + ".json")).read_text()))
        found[-1]["peak_bytes"] = peak_bytes("self")
        found[-1]["child_peak_bytes"] = max(children.values())
print("FOUND", json.dumps([{key: each[key] for key in each if key != "detections"} for each in found]))
"""


@pytest.fixture(scope="module")
def sliding_features(benchmark, trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("sliding") / "features"
    changes = {**SLIDING, "encoder__weights": trained("tac_tiny"), "extraction__dtype": "float16"}
    overrides = tiny_overrides("extract_tiny", benchmark, output, **changes)
    return run_extraction(load_extraction_recipe(recipe_file("extract_tiny"), overrides)).path


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory):
    """4 and 16 minutes of H.264: 40 frames of noise, over and over."""
    folder = tmp_path_factory.mktemp("long")
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(40)]
    paths = []
    for minutes in MINUTES:
        path = folder / f"long_{minutes}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "40"})
            stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
            stream.codec_context.gop_size = 40
            for index in range(minutes * 60 * FPS):
                frame = av.VideoFrame.from_ndarray(images[index % len(images)], format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        paths.append(path)
    return paths


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="this kernel shows no peak of memory"
)
@pytest.mark.timeout(400)
def test_resident_memory_does_not_grow_with_the_length_of_a_video(
    trained, sliding_features, long_videos, tmp_path
):
    """Both of a detector that was trained from frames and of a head on features."""
    runs = [
        trained("lofi_s_tiny_actionformer", **SLIDING),
        trained("frozen_tiny_actionformer", data__features=sliding_features, **SLIDING),
    ]
    command = [sys.executable, "-c", PEAKS, tmp_path, *long_videos, *runs]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=child_environment(), timeout=390
    )
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    _, short, frames, features = json.loads(line.removeprefix("FOUND "))
    for long in (frames, features):
        assert long["num_snippets"] > 3.9 * short["num_snippets"]
        for whose, allowed_mib in (("peak_bytes", 24), ("child_peak_bytes", 40)):
            grown = long[whose] - short[whose]
            assert grown < allowed_mib * 2**20, (
                f"{whose}: {grown / 2**20:.1f} MiB more for four times the length"
            )
    assert frames["feature_bytes"] == NUM_SNIPPETS * CHANNELS[-1] * 4  # one window's
    assert features["feature_bytes"] == features["num_snippets"] * CHANNELS[-1] * 2  # all, float16
    peaks = ", ".join(f"{each['peak_bytes'] / 2**20:.1f}" for each in (short, frames, features))
    children = ", ".join(f"{each['child_peak_bytes'] / 2**20:.1f}" for each in (short, frames, features))
    print(
        f"resident at most, MiB (4 minutes; 16 minutes from frames, on features): {peaks}; child: {children}"
    )
