"""Predicted against the allocator of a real GPU. Run on one, it says how good lofi/memory/gpu_terms.json is."""

import pytest
import torch
from tiny_runs import recipe_file

from lofi.config.load import load_recipe
from lofi.stages.plan import options_of_this_device, predict_peak

RESNET = ("encoder.name=tsm", "encoder.channels=null", "fidelity.height=112", "fidelity.width=112")
R2PLUS1D = ("encoder.name=r2plus1d", "encoder.channels=null", "fidelity.height=112", "fidelity.width=112")
TINY = ("encoder.name=tiny", "fidelity.height=128", "fidelity.width=128")

RECIPES = {
    "tsm18 joint bf16": (*RESNET, "gradient=joint", "train.precision=bf16"),
    "tsm18 joint fp32": (*RESNET, "gradient=joint", "train.precision=fp32"),
    "tsm18 joint fp16": (*RESNET, "gradient=joint", "train.precision=fp16"),
    "tsm18 checkpointed": (*RESNET, "gradient=checkpointed", "train.precision=bf16"),
    "tsm50 chunked": (*RESNET, "encoder.network=resnet50", "gradient.name=chunked", "gradient.chunk_size=8"),
    "tsm50 chunked stage 1": (
        *RESNET,
        "encoder.network=resnet50",
        "gradient.name=chunked",
        "gradient.chunk_size=8",
        "deepspeed.zero_optimization.stage=1",
        "deepspeed.zero_optimization.reduce_bucket_size=10000000",
    ),
    "tsm18 sampled": (*RESNET, "gradient.name=sampled", "gradient.chunk_size=8"),
    "tsm18 detached": (*RESNET, "gradient.name=detached", "optimizer.encoder_lr=null"),
    "r2plus1d joint": (*R2PLUS1D, "gradient=joint", "fidelity.num_snippets=32"),
    "r2plus1d checkpointed fp32": (*R2PLUS1D, "gradient=checkpointed", "train.precision=fp32"),
    "r2plus1d chunked, blocks": (
        *R2PLUS1D,
        "gradient.name=chunked",
        "gradient.chunk_size=8",
        "gradient.checkpoint_blocks=true",
    ),
    "r2plus1d lofi space": (*R2PLUS1D, "gradient=joint", "fidelity.reduction=space"),
    "tiny joint stage 2": (
        *TINY,
        "gradient=joint",
        "deepspeed.zero_optimization.stage=2",
        "deepspeed.zero_optimization.reduce_bucket_size=1000000",
    ),
    "tiny chunked": (*TINY, "gradient.name=chunked", "gradient.chunk_size=16"),
}


def load(name):
    overrides = [
        "data.annotations=none.json",
        "data.videos=none",
        "data.frame_cache=null",
        "train.batch_size=2",
    ]
    return load_recipe(recipe_file("full_tiny_actionformer"), [*overrides, *RECIPES[name]])


@pytest.mark.parametrize("name", ["tsm18 joint fp16", "tiny joint stage 2", "tiny chunked"])
def test_the_recipes_of_the_comparison_can_be_planned(name):
    assert predict_peak(load(name)).worst.gpu.allocated > 2**26


@pytest.mark.gpu
@pytest.mark.parametrize("name", RECIPES)
def test_the_prediction_is_near_the_allocators_peak(name):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    from lofi.stages.named_recipes import NamedRecipe
    from lofi.stages.profile import measure_in_process
    from lofi.stages.profile_steps import ProfileOptions

    options = ProfileOptions(steps=2, warm_up=2, synthetic_input=True)
    row = measure_in_process(
        NamedRecipe(name=name, recipe=load(name)), options, lambda count=1, note="": None
    )
    assert "error" not in row
    this_gpu = options_of_this_device(assumed=options.assumed)
    predicted = predict_peak(load(name), options=this_gpu).worst.gpu
    assert predicted.allocated == pytest.approx(row["peak_bytes"], rel=0.05)
    assert predicted.reserved == pytest.approx(row["reserved_bytes"], rel=0.10)
