"""Prediction encodes no more snippets together than training does."""

import pytest
from tiny_runs import recipe_file, tiny_overrides

from lofi.config.load import load_recipe
from lofi.fidelity import Fidelity
from lofi.memory.fake import fake_tensors
from lofi.memory.made_up_batch import made_up_batch
from lofi.stages.build import build_objective


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("chunked_tiny_actionformer", ["gradient.chunk_size=9"], [9, 9, 9, 9, 4]),
        ("sampled_tiny_actionformer", ["gradient.chunk_size=15"], [15, 15, 10]),
        ("full_tiny_actionformer", [], [32, 8]),
        ("chunked_tiny_actionformer", ["gradient.chunk_size=36"], [32, 8]),
    ],
)
def test_prediction_takes_chunks_of_the_gradient_path_where_they_are_smaller(
    name, overrides, expected, benchmark, tmp_path
):
    recipe = load_recipe(
        recipe_file(name),
        [*tiny_overrides(name, benchmark, tmp_path), "fidelity.num_snippets=40", "head.levels=1", *overrides],
    )
    encoded = []
    with fake_tensors():
        detector = build_objective(recipe, classes=["a", "b"], feature_width=None, with_weights=False).eval()
        detector.encoder.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0])))
        fidelity = Fidelity(num_snippets=40, frames=4, height=20, width=22)
        batch = made_up_batch(fidelity, num_windows=1, num_segments=1, num_classes=2)
        detector._prediction_features(batch)
    assert encoded == expected
