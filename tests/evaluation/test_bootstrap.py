"""Resampling of videos: against resamples written out, on chance alone, and on files that are the same."""

import numpy as np
import pytest
from reference.slow_bootstrap import written_out

from lofi.evaluation import resampling
from lofi.evaluation.bootstrap import bootstrap_average_map, paired_bootstrap
from lofi.evaluation.matching import match_predictions
from lofi.evaluation.mean_average_precision import mean_average_precision
from lofi.evaluation.protocols import PROTOCOLS
from lofi.evaluation.tables import GroundTruth, Predictions

TIOUS = (0.3, 0.5, 0.7)


def columns(
    seed: int, *, num_videos: int, num_classes: int, noise_sec: float = 1.0
) -> tuple[GroundTruth, Predictions]:
    """Videos of one to three instances, each found with noise or missed, and false positives; one video more is outside."""
    generator = np.random.default_rng(seed)
    instances, found = [], []
    for video in range(num_videos):
        label = int(generator.integers(num_classes))
        for number in range(int(generator.integers(1, 4))):
            start = 20 * number + generator.uniform(0, 5)
            end = start + generator.uniform(4, 10)
            instances.append((video, label, start, end))
            if generator.random() < 0.8:
                jitter = noise_sec * generator.normal(size=2)
                found.append((video, label, start + jitter[0], end + jitter[1], generator.random() + 0.3))
        for _ in range(4):
            start = generator.uniform(0, 60)
            wrong = label if generator.random() < 0.5 else int(generator.integers(num_classes))
            found.append((video, wrong, start, start + generator.uniform(4, 10), generator.random()))
    found.append((num_videos, 0, 1.0, 2.0, 0.6))
    names = tuple(f"v{index:03d}" for index in range(num_videos + 1))
    labels = tuple(f"class {index}" for index in range(num_classes))
    video, label, start, end = zip(*instances, strict=True)
    truth = GroundTruth(
        videos=names[:-1],
        durations_sec=np.full(num_videos, 60.0),
        classes=labels,
        video=np.array(video, dtype=np.int32),
        label=np.array(label, dtype=np.int32),
        start=np.array(start),
        end=np.array(end),
        ambiguous={"v001": [(0.0, 12.0)], "v003": [(30.0, 44.0)]},
    )
    video, label, start, end, score = zip(*found, strict=True)
    predictions = Predictions(
        videos=names,
        labels=labels,
        video=np.array(video, dtype=np.int32),
        label=np.array(label, dtype=np.int32),
        start=np.array(start),
        end=np.array(end),
        score=np.array(score),
    )
    return truth, predictions


@pytest.mark.parametrize("protocol", ["default", "thumos14"])
def test_a_resample_measures_what_its_videos_written_out_measure(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "ROWS_AT_ONCE", 7)  # several blocks, borders within and across
    monkeypatch.setattr(resampling, "SAMPLES_AT_ONCE", 3)
    truth, predictions = columns(0, num_videos=9, num_classes=4)
    drawn = []
    draw = resampling._draw
    monkeypatch.setattr(
        resampling, "_draw", lambda *args, **options: drawn.append(draw(*args, **options)) or drawn[-1]
    )
    matching = match_predictions(truth, predictions, tious=TIOUS, protocol=PROTOCOLS[protocol])
    (maps_ST,) = resampling.resampled_maps((matching,), samples=8, seed=1)
    assert maps_ST.shape == (8, 3)
    for row, weights in enumerate(np.concatenate(drawn, axis=1).T):
        times = dict(zip(matching.videos, weights.tolist(), strict=True))
        assert sum(times.values()) == 10
        slow = mean_average_precision(
            *written_out(truth, predictions, times=times), tious=TIOUS, protocol=PROTOCOLS[protocol]
        )
        np.testing.assert_allclose(maps_ST[row], slow.map_T, rtol=0, atol=1e-12)


def test_the_same_predictions_differ_by_nothing() -> None:
    truth, predictions = columns(2, num_videos=12, num_classes=3)
    found = paired_bootstrap(truth, predictions, predictions, tious=TIOUS, seed=5, samples=50)
    assert (found.difference.value, found.difference.low, found.difference.high) == (0.0, 0.0, 0.0)
    assert found.p_value == 1.0
    assert found.first == found.second


def test_a_clear_difference_is_found_and_has_its_sign() -> None:
    truth, good = columns(3, num_videos=40, num_classes=2, noise_sec=0.2)
    _, bad = columns(3, num_videos=40, num_classes=2, noise_sec=3.0)
    found = paired_bootstrap(truth, good, bad, tious=TIOUS, seed=5, samples=100)
    assert found.difference.low < found.difference.value < found.difference.high < 0
    assert found.p_value == pytest.approx(1 / 101)
    expected = (
        mean_average_precision(truth, bad, tious=TIOUS).map_T
        - mean_average_precision(truth, good, tious=TIOUS).map_T
    )
    np.testing.assert_allclose([each.value for each in found.difference_per_tiou], expected)
    turned = paired_bootstrap(truth, bad, good, tious=TIOUS, seed=5, samples=100)
    assert turned.difference.low == pytest.approx(-found.difference.high)


def test_the_interval_holds_the_expected_value_about_as_often_as_it_says() -> None:
    found = [
        bootstrap_average_map(
            *columns(seed, num_videos=30, num_classes=4), tious=(0.5,), seed=seed, samples=80, confidence=0.9
        )
        for seed in range(60)
    ]
    expected = np.mean([each.average.value for each in found])
    held = np.mean([each.average.low <= expected <= each.average.high for each in found])
    assert 0.8 <= held <= 0.98


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    truth, predictions = columns(4, num_videos=11, num_classes=3)
    first, again, other = (
        bootstrap_average_map(truth, predictions, tious=TIOUS, seed=seed, samples=20) for seed in (7, 7, 8)
    )
    assert first == again
    assert first.average.value == other.average.value
    assert first.average.low != other.average.low


def test_an_interval_stays_where_map_lies() -> None:
    truth, _ = columns(8, num_videos=9, num_classes=2)
    # Every instance is found but one, whose video may be drawn or not: plain percentiles shifted would pass 1.
    perfect = Predictions(
        videos=truth.videos,
        labels=truth.classes,
        video=truth.video[1:],
        label=truth.label[1:],
        start=truth.start[1:],
        end=truth.end[1:],
        score=np.linspace(1, 0.5, len(truth) - 1),
    )
    found = bootstrap_average_map(truth, perfect, tious=TIOUS, seed=3, samples=200)
    assert (found.average.high, found.per_tiou[0].high) == (1.0, 1.0)
    assert 0 < found.average.low < found.average.value < 1


def test_resamples_without_any_instance_are_drawn_again() -> None:
    truth, predictions = columns(5, num_videos=1, num_classes=2)
    found = bootstrap_average_map(truth, predictions, tious=TIOUS, seed=0, samples=30)
    assert np.isfinite([found.average.low, found.average.high]).all()


def test_options_out_of_range_are_named() -> None:
    truth, predictions = columns(6, num_videos=4, num_classes=2)
    with pytest.raises(ValueError, match="samples is 0; it must be at least 1"):
        bootstrap_average_map(truth, predictions, tious=TIOUS, seed=0, samples=0)
    with pytest.raises(ValueError, match="confidence is 95; it must lie between 0 and 1"):
        paired_bootstrap(truth, predictions, predictions, tious=TIOUS, seed=0, confidence=95)
