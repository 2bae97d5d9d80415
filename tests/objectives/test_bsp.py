"""BSP: the maps of the four boundaries, their types, and a loss that every gradient path gives alike."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretext_clips import D, MeanEncoder, clip_batch

from lofi.gradients.chunked import encode_chunked
from lofi.gradients.joint import encode_joint
from lofi.objectives.boundaries import BOUNDARIES, SNIPPETS, boundary_clips, other_class
from lofi.objectives.bsp import BspConfig, build_bsp
from lofi.objectives.composed_frames import BLEND_STEPS
from lofi.objectives.tac import NO_LABEL

FRAMES = 8
WINDOW = SNIPPETS * FRAMES


def draw(*, seed=0, others=(1, 0, 0), blend_frames=2, speed=2.0):
    clips = boundary_clips(
        np.array(others),
        frames=FRAMES,
        blend_frames=blend_frames,
        speed=speed,
        generator=np.random.default_rng(seed),
    )
    shape = (len(others), len(BOUNDARIES), FRAMES)
    return (each.reshape(shape) for each in (clips.first, clips.second, clips.blend))


def stretch_of(frame):
    """(window, whether it is of the partner's stretch)."""
    return frame // WINDOW, frame % WINDOW >= WINDOW // 2


@pytest.mark.parametrize("seed", range(10))
def test_each_type_shows_what_it_says(seed):
    first, second, blend = draw(seed=seed)
    for index, other in enumerate((1, 0, 0)):
        none, different, same, speed = first[index]
        for clip in (none, different, speed):
            assert {stretch_of(frame) for frame in clip} == {(index, False)}
        assert (np.diff(none) == 1).all()
        assert (np.diff(different) == 1).all()
        assert {stretch_of(frame) for frame in second[index, 1]} == {(other, False)}
        assert (np.diff(second[index, 1]) == 1).all()
        sides = [stretch_of(frame) for frame in same]
        change = sides.index((index, True))
        assert FRAMES // 4 <= change <= FRAMES - FRAMES // 4
        assert sides == [(index, False)] * change + [(index, True)] * (FRAMES - change)
        assert (np.delete(np.diff(same), change - 1) == 1).all()
        assert sorted(set(np.diff(speed))) == [1, 2]
        assert np.count_nonzero(np.diff(np.diff(speed))) == 1, "one change of speed"
        assert (blend[index, [0, 2, 3]] == 0).all()


def test_two_classes_are_blended_over_a_few_frames():
    for seed in range(10):
        _, _, blend = draw(seed=seed, blend_frames=3)
        for weights in blend[:, 1]:
            assert (np.diff(weights) >= 0).all()
            assert (weights[0], weights[-1]) == (0, BLEND_STEPS)
            between = (weights > 0) & (weights < BLEND_STEPS)
            assert 2 <= between.sum() <= 3
    _, _, hard = draw(blend_frames=0)
    assert set(np.unique(hard)) == {0, BLEND_STEPS}


@pytest.mark.parametrize("speed", [1.5, 2.0])
def test_two_speeds_stay_inside_their_stretch_and_either_comes_first(speed):
    faster_first = set()
    for seed in range(20):
        first, _, _ = draw(seed=seed, speed=speed)
        for clip in first[:, 3]:
            assert {stretch_of(frame)[1] for frame in clip} == {False}
            steps = np.diff(clip)
            faster_first.add(steps[: FRAMES // 2].sum() > steps[FRAMES // 2 :].sum())
    assert faster_first == {True, False}


def test_the_other_class_is_another_window_that_was_decoded():
    labels, is_there = [0, 0, 1, 1, 2], [True, True, False, True, True]
    for seed in range(10):
        others = other_class(labels, is_there=is_there, generator=np.random.default_rng(seed))
        for index, other in enumerate(others):
            if is_there[index]:
                assert labels[other] != labels[index]
                assert is_there[other]
    alone = other_class([3, 3], is_there=[True, True], generator=np.random.default_rng(0))
    assert alone.tolist() == [0, 1]


def make(encode=encode_joint, **options):
    torch.manual_seed(5)
    config = BspConfig(**options)
    encoder = MeanEncoder(frames=FRAMES)
    return build_bsp(config, encoder=encoder, encode=encode, feature_width=D).double()


def stretches(labels=(2, 0, 2, 1), **options):
    return clip_batch(list(labels), num_snippets=SNIPPETS, frames=FRAMES, **options)


def test_the_loss_is_that_of_a_loop_over_clips():
    module = make()
    batch = stretches()
    torch.manual_seed(4)
    generator = np.random.default_rng(int(torch.randint(2**62, ())))
    others = other_class([2, 0, 2, 1], is_there=[True] * 4, generator=generator)
    clips = boundary_clips(others, frames=FRAMES, blend_frames=2, speed=2.0, generator=generator)
    flat = batch.frames.transpose(2, 3).flatten(0, 2).double()
    losses = []
    for number in range(4 * len(BOUNDARIES)):
        shown = []
        for place in range(FRAMES):
            weight = clips.blend[number, place] / BLEND_STEPS
            one, other = flat[clips.first[number, place]], flat[clips.second[number, place]]
            shown.append(((1 - weight) * one + weight * other + 1e-9).round())
        feature = module.encoder(torch.stack(shown, dim=1)[None])[0]
        losses.append(-F.log_softmax(module.type_head(feature), dim=0)[number % len(BOUNDARIES)])
    torch.manual_seed(4)
    found = module(batch)
    assert found.total.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-3)


def test_chunked_gradients_equal_joint_ones():
    def gradients(encode):
        module = make(encode)
        torch.manual_seed(8)
        module(stretches()).total.backward()
        return [parameter.grad for parameter in module.parameters()]

    chunked = gradients(partial(encode_chunked, chunk_size=3))
    for joint, other in zip(gradients(encode_joint), chunked, strict=True):
        assert (joint != 0).any()
        torch.testing.assert_close(other, joint, rtol=1e-9, atol=1e-12)


def test_windows_that_were_not_decoded_or_have_no_other_class_carry_no_such_clips():
    rows = make().measure(stretches(labels=(1, 1, None), masked=(2,)))
    types = rows[:, 0].reshape(3, len(BOUNDARIES))
    assert types[:2, [0, 2, 3]].tolist() == [[0, 2, 3]] * 2
    assert types[:, 1].isnan().all()
    assert types[2].isnan().all()
    _, _, kinds = make()._clips(stretches(), generator=np.random.default_rng(0))
    assert NO_LABEL not in kinds


def test_what_is_measured_is_the_mean_over_the_types():
    module = make()
    with torch.no_grad():
        module.type_head.weight.zero_()
        module.type_head.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 0.0]))  # says same_class
    found = module.summarise(module.measure(stretches()))
    assert found.score == 0.25
    assert found.details == {"none": 0.0, "different_class": 0.0, "same_class": 1.0, "speed": 0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 1.0}, "more than 1 and at most 2"),
        ({"blend_share": 1.5}, "must lie in 0 to 1"),
        ({"validate_every_epochs": 0}, "must be at least 1, or null"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BspConfig(**options)
