"""Linear evaluation finds what a linear layer can, and no more."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lofi.data.annotations import AnnotatedVideo
from lofi.data.feature_store import FeatureManifest, create_feature_directory, write_feature
from lofi.segments import LabelledSegment
from sola.linear_evaluation import (
    LabelledSnippets,
    evaluate_linearly,
    is_action_snippet,
    label_snippets,
    read_snippets,
)

VIDEO = AnnotatedVideo(
    name="v",
    subset="training",
    duration_sec=10.0,
    segments=(LabelledSegment(start_sec=2.0, end_sec=5.0, label="a"),),
)


def test_a_snippet_is_action_where_its_centre_lies_inside_a_segment():
    assert is_action_snippet(VIDEO, np.array([1.0, 2.0, 4.9, 5.0])).tolist() == [False, True, True, False]


@pytest.fixture
def directory(tmp_path):
    """One file of 4 rows of width 3 for each name that a test uses."""
    manifest = FeatureManifest(
        fidelity={"num_snippets": 4, "frames": 2, "height": 8, "width": 8},
        grid={"mode": "rescale"},
        feature_width=3,
    )
    made = create_feature_directory(tmp_path, manifest)
    for name in "vwxyz":
        write_feature(made, name, np.arange(12, dtype=np.float32).reshape(4, 3))
    return made


def test_features_are_adapted_and_divided_by_their_norm(directory):
    labels = label_snippets([VIDEO], directory, max_videos=3)
    labelled = read_snippets(labels, directory, adapt=lambda rows: rows + 1)
    assert torch.allclose(labelled.features.norm(dim=1), torch.ones(4))
    assert labelled.features[0].tolist() == pytest.approx((np.array([1, 2, 3]) / 14**0.5).tolist())
    assert labelled.is_action.tolist() == [False, True, False, False]


def snippets(count, *, seed, gap):
    generator = torch.Generator().manual_seed(seed)
    is_action = torch.rand(count, generator=generator) < 0.3
    features = torch.randn(count, 8, generator=generator)
    features[:, 0] += gap * is_action
    return LabelledSnippets(features=torch.nn.functional.normalize(features, dim=1), is_action=is_action)


def test_a_separable_feature_is_found_and_noise_is_not():
    found = evaluate_linearly(snippets(6000, seed=0, gap=30.0), snippets(500, seed=1, gap=30.0))
    assert found.balanced_accuracy > 0.95
    noise = evaluate_linearly(snippets(6000, seed=0, gap=0.0), snippets(500, seed=1, gap=0.0))
    assert noise.balanced_accuracy < 0.56
    assert noise.action_share == pytest.approx(0.3, abs=0.06)


def test_no_more_videos_are_taken_than_allowed_and_the_seed_draws_them(directory):
    videos = [replace(VIDEO, name=name) for name in "vwxyz"]
    drawn = {label_snippets(videos, directory, max_videos=3, seed=seed).videos for seed in range(8)}
    assert len(drawn) > 1
    assert all(len(set(names)) == 3 for names in drawn)
    one = label_snippets(videos, directory, max_videos=3, seed=5)
    assert one.videos == label_snippets(videos, directory, max_videos=3, seed=5).videos
    assert (one.num_rows, len(one.is_action)) == ((4, 4, 4), 12)


@pytest.mark.parametrize(("end_sec", "where"), [(0.0, "inside"), (10.0, "outside")])
def test_snippets_of_one_class_alone_are_refused(directory, end_sec, where):
    segment = LabelledSegment(start_sec=0.0, end_sec=end_sec, label="a")
    video = replace(VIDEO, segments=(segment,) if end_sec else ())
    message = f"none of the 4 snippets of 1 videos .training. lies {where} an annotated segment"
    with pytest.raises(ValueError, match=message):
        label_snippets([video], directory, max_videos=3)
