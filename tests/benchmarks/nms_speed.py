"""How long soft-NMS takes for one video on one CPU thread, beside the field's compiled function.

    python tests/benchmarks/nms_speed.py
    python tests/benchmarks/nms_speed.py --candidates 5000 --classes 200 --repeat 100

The field's function is the C++ that ActionFormer and OpenTAD share. Where its module `nms_1d_cpu` can be imported, it is
called in turn with ours on the same candidates, in a loop over the classes as its users do, and the ratio is measured.
Elsewhere the ratio is against times of another machine (2,000 candidates, 20 classes, 200 kept) and only a hint.

The candidates are made by a seed: clusters of segments around a few actions per class, as a head finds them. Columns: median
of the thread's CPU time, which other work on the machine disturbs least, and the fastest wall time, in milliseconds; then
how many times as long the field's function took, by CPU time. Compiling is done before the first measurement.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lofi.heads.soft_nms import soft_nms

ELSEWHERE_MS = {"gaussian, class-wise": 1.39, "hard, class-wise": 1.43, "gaussian, class-agnostic": 1.83}
"""The field's function, wall time of single runs on another, busy 2-core x86-64 machine."""
METHODS = {"gaussian": 2, "linear": 1}
MIN_SCORE = 0.001
SIGMA = 0.5
TIOU_THRESHOLD = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--keep", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    segments, scores, labels = make_candidates(options.candidates, num_classes=options.classes)
    field = field_function()
    is_known_case = (options.candidates, options.classes, options.keep) == (2000, 20, 200)

    print(f"{options.candidates} candidates, {options.classes} classes, {options.keep} kept; one thread")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    )
    print(f"{'':26} {'':6} {'CPU ms':>8} {'wall ms':>8} {'field / ours':>13}")
    for name in (
        "gaussian, class-wise",
        "hard, class-wise",
        "gaussian, class-agnostic",
        "hard, class-agnostic",
    ):
        method, scope = name.split(", ")
        is_classwise = scope == "class-wise"
        calls: dict[str, Callable[[], Any]] = {
            implementation: partial(
                soft_nms,
                segments,
                scores,
                labels if is_classwise else None,
                method=method,
                sigma=SIGMA,
                tiou_threshold=TIOU_THRESHOLD,
                min_score=MIN_SCORE,
                max_detections=options.keep,
                implementation=implementation,
            )
            for implementation in ("numba", "torch")
        }
        if field is not None:
            calls["field"] = partial(
                in_a_loop_over_classes,
                field,
                segments,
                scores,
                labels,
                method=method,
                is_classwise=is_classwise,
                keep=options.keep,
            )
        cpu_ms, wall_ms = measured(calls, repeat=options.repeat)
        for who in calls:
            if field is not None:
                ratio = f"{cpu_ms['field'] / cpu_ms[who]:.2f}"
            elif is_known_case and name in ELSEWHERE_MS:
                ratio = f"({ELSEWHERE_MS[name] / wall_ms[who]:.2f})"
            else:
                ratio = "-"
            print(f"{name:26} {who:6} {cpu_ms[who]:8.2f} {wall_ms[who]:8.2f} {ratio:>13}")
    if field is None:
        print("In brackets: against times of another machine, as nms_1d_cpu is not installed here.")


def make_candidates(count: int, *, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 2) seconds of a 200 s video, (N,) scores, (N,) classes."""
    generator = torch.Generator().manual_seed(11)
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    actions_per_class = 5
    center_sec = torch.rand(num_classes, actions_per_class, generator=generator) * 200
    length_sec = 2 + torch.rand(num_classes, actions_per_class, generator=generator) * 10
    action = torch.randint(0, actions_per_class, (count,), generator=generator)
    own_length = length_sec[labels, action] * (1 + 0.2 * torch.randn(count, generator=generator)).clamp(
        min=0.2
    )
    own_center = center_sec[labels, action] + torch.randn(count, generator=generator)
    scores = torch.rand(count, generator=generator) ** 2 * 0.8
    return torch.stack([own_center - own_length / 2, own_center + own_length / 2], dim=1), scores, labels


def measured(
    calls: dict[str, Callable[[], Any]], *, repeat: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Call them in turn, so that a busy machine disturbs all alike: median CPU and least wall milliseconds of each."""
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    wall: dict[str, list[float]] = {name: [] for name in calls}
    kept = {name: call() for name, call in calls.items()}
    if "field" in kept:
        torch.testing.assert_close(kept["numba"].detections.scores, kept["field"][1], rtol=0.0, atol=1e-6)
    for _ in range(repeat):
        for name, call in calls.items():
            cpu_start, wall_start = time.thread_time(), time.perf_counter()
            call()
            cpu[name].append(1e3 * (time.thread_time() - cpu_start))
            wall[name].append(1e3 * (time.perf_counter() - wall_start))
    medians = {name: statistics.median(values) for name, values in cpu.items()}
    return medians, {name: min(values) for name, values in wall.items()}


def field_function() -> Any | None:
    try:
        import nms_1d_cpu
    except ImportError:
        return None
    return nms_1d_cpu


def in_a_loop_over_classes(
    field: Any,
    segments: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    method: str,
    is_classwise: bool,
    keep: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `soft_nms` gives, by the field's function: segments, scores, labels."""
    soft_options = {"iou_threshold": TIOU_THRESHOLD, "sigma": SIGMA, "min_score": MIN_SCORE}
    if "t1" in field.softnms.__doc__:  # OpenTAD's takes the thresholds of its fourth method, too
        soft_options |= {"t1": 0.0, "t2": 0.0}
    rows = [torch.where(labels == each)[0] for each in labels.unique()] if is_classwise else [slice(None)]
    found = []
    for row in rows:
        own_segments, own_scores, own_labels = segments[row], scores[row], labels[row]
        if method == "hard":
            counts = own_scores > MIN_SCORE
            own_segments, own_scores, own_labels = (
                own_segments[counts],
                own_scores[counts],
                own_labels[counts],
            )
            index = field.nms(own_segments, own_scores, iou_threshold=TIOU_THRESHOLD)[:keep]
            found.append((own_segments[index], own_scores[index], own_labels[index]))
            continue
        results = torch.empty(len(own_scores), 3)
        index = field.softnms(own_segments, own_scores, results, method=METHODS[method], **soft_options)
        found.append(
            (results[: len(index), :2][:keep], results[: len(index), 2][:keep], own_labels[index][:keep])
        )
    all_segments, all_scores, all_labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = all_scores.sort(descending=True).indices[:keep]
    return all_segments[order], all_scores[order], all_labels[order]


if __name__ == "__main__":
    main()
