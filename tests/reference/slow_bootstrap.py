"""A resample of videos written out: every drawn video as a video of its own, then measured anew."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lofi.evaluation.tables import GroundTruth, Predictions


def written_out(
    truth: GroundTruth, predictions: Predictions, *, times: dict[str, int]
) -> tuple[GroundTruth, Predictions]:
    """Each video as often as `times` says, under names that sort as the videos do."""
    truth_video, truth_rows, truth_names = _copies(truth.videos, truth.video, times)
    found_video, found_rows, found_names = _copies(predictions.videos, predictions.video, times)
    ambiguous = {name: truth.ambiguous.get(name.split("#")[0], ()) for name in truth_names}
    return (
        replace(
            truth,
            videos=truth_names,
            durations_sec=np.full(len(truth_names), np.nan),
            video=truth_video,
            label=truth.label[truth_rows],
            start=truth.start[truth_rows],
            end=truth.end[truth_rows],
            ambiguous=ambiguous,
        ),
        replace(
            predictions,
            videos=found_names,
            video=found_video,
            label=predictions.label[found_rows],
            start=predictions.start[found_rows],
            end=predictions.end[found_rows],
            score=predictions.score[found_rows],
        ),
    )


def _copies(
    names: Sequence[str], video: np.ndarray, times: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    copies, rows, indices = [], [], []
    for index, name in enumerate(names):
        for copy in range(times[name]):
            of_video = np.flatnonzero(video == index)
            rows.append(of_video)
            indices.append(np.full(len(of_video), len(copies), dtype=np.int32))
            copies.append(f"{name}#{copy}")
    return np.concatenate(indices), np.concatenate(rows), tuple(copies)
