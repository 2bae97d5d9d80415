"""Predicted against counted: the planner's fake step against a step of DeepSpeed's engine on real tensors."""

import pytest
import torch
from tiny_runs import recipe_file, tiny_overrides

from lofi.config.load import load_recipe
from lofi.memory.fake import fake_tensors
from lofi.memory.planned_step import count_step, make_optimizer_states
from lofi.stages.plan import PlanOptions, predict_peak

RECIPES = {
    "full_tiny_actionformer": {},
    "checkpointed_tiny_actionformer": {},
    "chunked_tiny_actionformer": {},
    "sampled_tiny_actionformer": {},
    "lofi_s_tiny_actionformer": {},
    "lofi_t_tiny_actionformer": {},
    "lofi_st_tiny_actionformer": {},
    "lofi_cyclic_tiny_actionformer": {},
    "frozen_tiny_actionformer": {},
    "tac_tiny": {},
    "chunked with blocks": {"gradient__checkpoint_blocks": True},
    "sampled recomputed": {"gradient__recompute": True},
    "random crop": {"data__random_crop": 1.5},
    "detached": {"gradient__name": "detached", "optimizer__encoder_lr": None},
    "sgd": {
        "optimizer__name": "sgd",
        "optimizer__momentum": 0.9,
        "optimizer__lr": 0.1,
        "train__gradient_clipping": 0,
    },
    "stages frozen": {"encoder__frozen_stages": 2},
    "relative positions": {"head__relative_positions": True, "head__ranges": "[[0,4],[2,99]]"},
}
FILES = {
    "chunked with blocks": "chunked_tiny_actionformer",
    "sampled recomputed": "sampled_tiny_actionformer",
    "random crop": "chunked_tiny_actionformer",
    "detached": "chunked_tiny_actionformer",
    "sgd": "full_tiny_actionformer",
    "stages frozen": "full_tiny_actionformer",
    "relative positions": "full_tiny_actionformer",
}


@pytest.fixture
def recipe(benchmark, tmp_path):
    """A function: a name of `RECIPES` -> the tiny recipe."""

    def load(name, **changes):
        file = FILES.get(name, name)
        return load_recipe(
            recipe_file(file), tiny_overrides(file, benchmark, tmp_path, **{**RECIPES[name], **changes})
        )

    return load


@pytest.mark.parametrize("name", RECIPES)
def test_the_predicted_peak_is_the_counted_one_to_the_byte(name, recipe, monkeypatch):
    from lofi.stages.profile_steps import ProfileOptions, measure_recipe

    # The planner takes the draw that holds most; the measured step is made to draw the same.
    options = ProfileOptions(steps=1, warm_up=1, synthetic_input=True)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randperm", lambda count, generator=None: torch.arange(count))
        measured = measure_recipe(recipe(name), options=options)
    predicted = predict_peak(recipe(name), options=PlanOptions(device="cpu", assumed=options.assumed))
    assert predicted.peak_bytes == measured["counted_peak_bytes"]
    assert predicted.worst.bytes == measured["bytes"]
    assert predicted.worst.phase == measured["peak_phase"]


@pytest.mark.parametrize(
    ("name", "device", "chunk_size"),
    [
        ("chunked_tiny_actionformer", "cpu", 1),
        ("chunked_tiny_actionformer", "cuda", 3),
        ("chunked with blocks", "cuda", 2),
        ("sampled_tiny_actionformer", "cuda", 1),
        ("sampled recomputed", "cuda", 1),
        ("detached", "cuda", 3),
    ],
)
def test_repeated_chunks_are_extrapolated_exactly(name, device, chunk_size, recipe, monkeypatch):
    tiny = recipe(name, gradient__chunk_size=chunk_size, fidelity__num_snippets=11)
    options = PlanOptions(device=device)
    predicted = predict_peak(tiny, options=options).worst
    monkeypatch.setattr("lofi.memory.repeated_chunks.FIRST", 1000)
    replayed = predict_peak(tiny, options=options).worst
    assert (predicted.bytes, predicted.phase) == (replayed.bytes, replayed.phase)
    assert predicted.gpu == replayed.gpu


def test_repeated_chunks_do_not_run(recipe, monkeypatch):
    calls = []
    from lofi.encoders.tiny import Tiny

    forward = Tiny.forward
    monkeypatch.setattr(
        Tiny, "forward", lambda self, *args, **kwargs: calls.append(1) or forward(self, *args, **kwargs)
    )
    predict_peak(recipe("chunked_tiny_actionformer", gradient__chunk_size=1), options=PlanOptions())
    assert len(calls) == 3 + 2  # of 16 chunks the first and the last two; all but the last are recomputed


def test_of_128_snippets_r2plus1d34_replays_three_chunks(monkeypatch):
    """What a prediction costs does not grow with the window: of 32 chunks the first and the last two run."""
    from lofi.encoders.video_resnet import VideoResnet

    calls = []
    forward = VideoResnet.forward
    monkeypatch.setattr(
        VideoResnet,
        "forward",
        lambda self, frames, **options: calls.append(len(frames)) or forward(self, frames, **options),
    )
    overrides = ["fidelity.num_snippets=128", "gradient.chunk_size=4", "train.batch_size=1"]
    predict_peak(load_recipe(recipe_file("../activitynet13/chunked_r2plus1d34_actionformer"), overrides))
    assert calls == [4] * 5


def test_on_a_gpu_only_one_chunk_of_frames_lies_on_the_device(recipe):
    tiny = recipe("chunked_tiny_actionformer", gradient__chunk_size=3)
    on_cpu = predict_peak(tiny, options=PlanOptions(device="cpu")).worst.bytes["inputs"]
    on_gpu = predict_peak(tiny, options=PlanOptions(device="cuda")).worst.bytes["inputs"]
    frame_bytes = 3 * 4 * 20 * 20
    assert on_cpu >= 2 * 8 * frame_bytes
    assert on_gpu <= 2 * 3 * frame_bytes


def test_a_cyclic_recipe_shows_every_fidelity_and_needs_the_greatest(recipe):
    prediction = predict_peak(recipe("lofi_cyclic_tiny_actionformer"))
    assert [step.fidelity for step in prediction.steps] == ["8x4x10x10", "2x4x20x20", "4x4x14x14"]
    assert prediction.peak_bytes == max(step.peak_bytes for step in prediction.steps)
    assert prediction.needed_bytes == max(step.gpu.device for step in prediction.steps)


def test_the_peak_has_a_place_and_holders(recipe):
    worst = predict_peak(recipe("full_tiny_actionformer"), options=PlanOptions(device="cpu")).worst
    assert worst.phase in worst.phase_peak_bytes
    assert worst.phase_peak_bytes[worst.phase] == worst.peak_bytes
    assert worst.module.startswith("encoder.layers")
    assert len(worst.modules) == 5
    sizes = [each.num_bytes for each in worst.modules]
    assert sizes == sorted(sizes, reverse=True)
    assert worst.modules[0].name == "encoder.layers.0"
    held = worst.peak_bytes - sum(
        worst.bytes[kind] for kind in ("parameters", "gradients", "optimizer", "inputs")
    )
    assert sum(sizes) <= held


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_without_bf16_is_planned_in_fp16(recipe, has_bf16, precision):
    options = PlanOptions(has_bf16=has_bf16)
    assert predict_peak(recipe("full_tiny_actionformer"), options=options).precision == precision


def test_half_precision_holds_half_the_activations_where_norms_allow(recipe):
    """The tiny encoder's norms stay in float32 on CUDA, so that bf16 saves less than half; fp32 is the same on both."""
    tiny = recipe("full_tiny_actionformer")
    half = predict_peak(tiny).worst
    whole = predict_peak(recipe("full_tiny_actionformer", train__precision="fp32")).worst
    assert half.bytes["activations"] != whole.bytes["activations"]
    assert half.bytes["parameters"] == whole.bytes["parameters"]


def test_no_data_and_no_weights_are_needed(tmp_path):
    recipe = load_recipe(
        recipe_file("full_tiny_actionformer"),
        [
            f"data.annotations={tmp_path}/none.json",
            f"data.videos={tmp_path}/none",
            "data.frame_cache=null",
            f"encoder.weights={tmp_path}/none.pth",
        ],
    )
    prediction = predict_peak(recipe)
    assert prediction.assumptions == ("20 classes",)
    assert prediction.peak_bytes > 2**20


def test_a_batch_that_ranks_cannot_share_is_refused(recipe):
    with pytest.raises(ValueError, match="train.batch_size is 2, which 3 ranks cannot share evenly"):
        predict_peak(recipe("full_tiny_actionformer"), options=PlanOptions(world_size=3))


def test_planning_leaves_the_encoder_and_the_random_state_alone(recipe):
    before = torch.get_rng_state()
    predict_peak(recipe("sampled_tiny_actionformer"))
    assert torch.equal(torch.get_rng_state(), before)
    assert type(torch.zeros(1)) is torch.Tensor


def test_accumulated_gradients_are_there_from_the_start():
    with fake_tensors():
        layer = _Square()
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        make_optimizer_states(optimizer)
        counts = [
            count_step(
                layer, optimizer=optimizer, batch=_NoBatch(), gradient_clipping=0.0, accumulates=accumulates
            )
            for accumulates in (False, True)
        ]
    at_start = [
        sum(
            count.made[event.storage].num_bytes
            for event in count.events
            if event.operation == 0 and event.is_made
        )
        for count in counts
    ]
    assert at_start[1] - at_start[0] == 30 * 50 * 4


class _NoBatch:
    frames = features = None
    mask = torch.zeros(7)


class _Square(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(30, 50))

    def forward(self, batch):
        from lofi.protocols import StepLosses

        return StepLosses(total=(self.weight * self.weight).sum())
