"""PAL (a reconstruction): the map inverts the paste, bins are aligned, the loss is InfoNCE, every gradient path is exact."""

import math
import zlib
from functools import partial

import numpy as np
import pytest
import torch
from pretext_clips import D, MeanEncoder, clip_batch
from reference.slow_pasting import aligned, info_nce, pasted_frames
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import roi_align

from lofi.batches import Views
from lofi.gradients.checkpointed import encode_checkpointed
from lofi.gradients.chunked import encode_chunked
from lofi.gradients.joint import encode_joint
from lofi.objectives.composed_frames import BLEND_STEPS, ComposedEncoder, FrameMap, views_of
from lofi.objectives.contrastive_queue import KeyQueue
from lofi.objectives.momentum_encoder import MomentumCopy
from lofi.objectives.pal import PalConfig, build_pal, outside_region
from lofi.objectives.pasting import draw_pairs
from lofi.objectives.region_alignment import align_regions
from lofi.objectives.running_scale import RunningScale

SNIPPETS, FRAMES = 6, 4
NUM_FRAMES = SNIPPETS * FRAMES


def draw(videos="abcde", *, is_there=None, seed=0, max_scale=2.0):
    return draw_pairs(
        list(videos),
        is_there=is_there or [True] * len(videos),
        num_frames=NUM_FRAMES,
        core_frames=(6, 12),
        max_scale=max_scale,
        generator=np.random.default_rng(seed),
    )


def test_a_region_is_pasted_frame_by_frame_as_a_loop_pastes_it():
    for seed in range(5):
        pastes = draw(seed=seed).query
        found = pastes.frame_map(num_frames=NUM_FRAMES).first
        expected = pasted_frames(
            pastes.background, pastes.source, pastes.core, pastes.region, num_frames=NUM_FRAMES
        )
        assert [[divmod(frame, NUM_FRAMES) for frame in video] for video in found.tolist()] == expected


def test_the_map_inverts_the_paste():
    times = np.linspace(0, NUM_FRAMES, 50)[None].repeat(5, axis=0)
    pairs = draw(seed=3)
    for pastes in (pairs.query, pairs.key):
        np.testing.assert_allclose(pastes.in_synthetic(pastes.in_source(times)), times, atol=1e-9)
        np.testing.assert_allclose(pastes.in_synthetic(pastes.core.astype(float)), pastes.region)
        frames = pastes.frame_map(num_frames=NUM_FRAMES).first
        for video, (start, end) in enumerate(pastes.region):
            shown = frames[video, start:end] - pastes.source[video] * NUM_FRAMES
            back = pastes.in_synthetic(np.broadcast_to(shown + 0.5, (5, len(shown))))[video]
            longest_step = max(1.0, (end - start) / np.diff(pastes.core[video])[0])
            assert np.abs(back - (np.arange(start, end) + 0.5)).max() <= longest_step / 2 + 1e-9


def test_a_region_is_pasted_on_two_other_videos():
    for seed in range(20):
        pairs = draw("aabbc", seed=seed)
        assert pairs.is_valid.all()
        names = np.array(list("aabbc"))
        assert (names[pairs.query.background] != names).all()
        assert (names[pairs.key.background] != names).all()
        assert (pairs.query.background != pairs.key.background).all()
        assert (names[pairs.query.background] != names[pairs.key.background]).all()
        assert (pairs.query.core == pairs.key.core).all()


def test_windows_that_could_not_be_decoded_take_no_part():
    pairs = draw("abcd", is_there=[True, True, False, True])
    assert pairs.is_valid.tolist() == [True, True, False, True]
    assert 2 not in {*pairs.query.background[pairs.is_valid], *pairs.key.background[pairs.is_valid]}
    assert not draw("abc", is_there=[True, True, False]).is_valid.any()


def test_scales_stay_within_their_bound_and_reach_both_ways():
    ratios = []
    for seed in range(40):
        for pastes in (draw(seed=seed).query, draw(seed=seed).key):
            lengths = np.diff(pastes.region, axis=1) / np.diff(pastes.core, axis=1)
            ratios += lengths.flatten().tolist()
            assert (pastes.region[:, 0] >= 0).all()
            assert (pastes.region[:, 1] <= NUM_FRAMES).all()
    assert 1 / 2.1 < min(ratios) < 0.6
    assert 1.7 < max(ratios) < 2.1


def test_alignment_is_that_of_a_loop_and_of_torchvision():
    torch.manual_seed(1)
    features = torch.randn(3, 7, 5, dtype=torch.float64)
    regions = torch.tensor([[0.0, 7.0], [1.3, 4.9], [5.5, 6.0]], dtype=torch.float64)
    found = align_regions(features, regions, bins=4, samples=2)
    expected = [
        aligned(rows.tolist(), region.tolist(), bins=4, samples=2)
        for rows, region in zip(features, regions, strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    boxes = [torch.tensor([[start, 0.0, end, 1.0]], dtype=torch.float64) for start, end in regions]
    picture = features.transpose(1, 2)[:, :, None]
    library = roi_align(picture, boxes, (1, 4), sampling_ratio=2, aligned=True)[:, :, 0].transpose(1, 2)
    torch.testing.assert_close(found, library)


def numbered_windows(num_windows):
    """(B, L, 1, T, 1, 2) uint8: every frame shows its number, and the left side of it one more than the right."""
    numbers = torch.arange(num_windows * NUM_FRAMES, dtype=torch.uint8).reshape(
        num_windows, SNIPPETS, 1, FRAMES
    )
    return torch.stack([numbers + 1, numbers], dim=-1)[..., None, :]


def test_frames_are_gathered_from_the_windows_that_the_map_names():
    frames = numbered_windows(5)
    frame_map = draw().query.frame_map(num_frames=NUM_FRAMES)
    places = frame_map.snippets(frames=FRAMES)
    assert places.shape == (5, SNIPPETS, 1 + FRAMES)
    shown = ComposedEncoder(torch.nn.Identity(), frames, views=None).frames_at(places.flatten(0, 1))
    assert shown.shape == (5 * SNIPPETS, 1, FRAMES, 1, 2)
    assert shown[..., 1].flatten().tolist() == frame_map.first.flatten().tolist()


def test_a_synthetic_video_has_one_view_for_region_and_background():
    views = Views(
        height=1,
        width=1,
        top=torch.zeros(5, dtype=torch.int64),
        left=torch.tensor([0, 1, 0, 1, 0]),
        is_mirrored=torch.zeros(5, dtype=torch.bool),
    )
    query = draw(seed=2).query
    of_videos = views_of(views, torch.from_numpy(query.background))
    frame_map = query.frame_map(num_frames=NUM_FRAMES)
    composed = ComposedEncoder(torch.nn.Identity(), numbered_windows(5), views=of_videos)
    shown = composed.frames_at(frame_map.snippets(frames=FRAMES).flatten(0, 1)).reshape(5, NUM_FRAMES)
    expected = frame_map.first + 1 - views.left.numpy()[query.background][:, None]
    assert shown.tolist() == expected.tolist()


def test_blended_frames_are_weighted_means_in_whole_numbers():
    frame_map = FrameMap(
        first=np.zeros((1, 4), dtype=np.int64),
        second=np.full((1, 4), 3),
        blend=np.array([[0, BLEND_STEPS, 100, 128]]),
    )
    frames = torch.tensor([10, 0, 0, 210], dtype=torch.uint8).reshape(1, 1, 1, 4, 1, 1)
    composed = ComposedEncoder(torch.nn.Identity(), frames, views=None)
    shown = composed.frames_at(frame_map.snippets(frames=4).flatten(0, 1)).flatten()
    assert shown.tolist() == [10, 210, round(10 + 200 * 100 / 255), round(10 + 200 * 128 / 255)]


def make(encode=encode_joint, **options):
    torch.manual_seed(5)
    config = PalConfig(**{"bins": 3, "projection_width": 5, "queue": 20, **options})
    encoder = MeanEncoder(frames=FRAMES)
    module = build_pal(config, encoder=encoder, encode=encode, feature_width=D, key_chunk=4).double()
    module.queue.keys.copy_(torch.nn.functional.normalize(torch.randn(config.queue, 5).double(), dim=1))
    return module


def stretches(num_windows=4, **options):
    return clip_batch([None] * num_windows, num_snippets=SNIPPETS, frames=FRAMES, **options)


@pytest.mark.parametrize(
    ("background_negatives", "bin_negatives"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_the_loss_is_that_of_a_loop_over_bins(background_negatives, bin_negatives):
    module = make(
        background_negatives=background_negatives,
        bin_negatives=bin_negatives,
        momentum=0.0,
        temperature=0.3,
    )
    batch = stretches(masked=(1,), num_windows=5)
    torch.manual_seed(8)
    pairs = module._draw(batch, generator=np.random.default_rng(int(torch.randint(2**62, ()))))
    module.queue.owners[:7] = torch.tensor([zlib.crc32(b"v3")] * 3 + [zlib.crc32(b"v0")] * 4)
    keys, owners = module.queue.keys.tolist(), module.queue.owners.tolist()
    torch.manual_seed(8)
    found = module(batch)

    def encoded(pastes):
        frames = pastes.frame_map(num_frames=NUM_FRAMES).first
        flat = batch.frames.transpose(2, 3).flatten(0, 2)  # (B * F, C, H, W)
        videos = flat[torch.from_numpy(frames)].unflatten(1, (SNIPPETS, FRAMES)).transpose(2, 3)
        return torch.stack([module.encoder(video) for video in videos])

    def projected(vectors):
        scaled = module.scale(vectors)  # its moments are those that the step has left
        return torch.nn.functional.normalize(module.projection(scaled), dim=-1).tolist()

    losses = []
    with torch.no_grad():
        query, key = encoded(pairs.query), encoded(pairs.key)
        for index in np.flatnonzero(pairs.is_valid):
            regions = [side.region[index] / FRAMES for side in (pairs.query, pairs.key)]
            both = [
                projected(torch.tensor(aligned(video[index].tolist(), region, bins=3, samples=2)).double())
                for video, region in zip((query, key), regions, strict=True)
            ]
            name = zlib.crc32(batch.windows[index].video.encode())
            negatives = [key for key, owner in zip(keys, owners, strict=True) if owner != name]
            assert len(negatives) == {0: 16, 3: 17}.get(index, 20)
            own = []
            if background_negatives:
                beside = outside_region(pairs.key, batch)[index]
                own = projected(key[index][beside])
            for place, (one, other) in enumerate(zip(*both, strict=True)):
                bins = both[1][:place] + both[1][place + 1 :] if bin_negatives else []
                losses.append(info_nce(one, other, negatives + own + bins, temperature=0.3))
    assert len(losses) == 4 * 3
    assert found.total.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize(
    "encode", [partial(encode_chunked, chunk_size=5), encode_checkpointed], ids=["chunked", "checkpointed"]
)
def test_gradients_of_the_other_paths_equal_joint_ones(encode):
    def gradients(path):
        module = make(path)
        torch.manual_seed(8)
        module(stretches()).total.backward()
        return [parameter.grad for parameter in module.parameters()]

    for joint, other in zip(gradients(encode_joint), gradients(encode), strict=True):
        assert (joint != 0).any()
        torch.testing.assert_close(other, joint, rtol=1e-9, atol=1e-12)


class CopiedFrames(TorchDispatchMode):
    """Notes the bytes of every uint8 tensor that an operation makes; views make none."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.uint8:
            there = {each.untyped_storage().data_ptr() for each in args if isinstance(each, torch.Tensor)}
            storage = made.untyped_storage()
            if storage.data_ptr() not in there:
                self.sizes.append(storage.nbytes())
        return made


def test_pasting_copies_the_frames_of_the_chunk_that_is_encoded_and_no_others():
    batch = stretches()
    snippet_bytes = batch.frames[0, 0].nbytes
    module = make(partial(encode_chunked, chunk_size=5))
    with CopiedFrames() as forward:
        total = module(batch).total
    queries, keys = [5] * 4 + [4], [4] * 6  # snippets of each chunk: 4 synthetic videos of 6, twice
    assert forward.sizes == [count * snippet_bytes for count in (*queries, *keys)]
    with CopiedFrames() as backward:
        total.backward()
    assert backward.sizes == [count * snippet_bytes for count in [5] * 4]  # the last chunk was kept


def test_the_key_encoder_is_a_moving_average_and_never_trains():
    module = make(momentum=0.75)
    start = [parameter.clone() for parameter in module.encoder.parameters()]
    with torch.no_grad():
        for parameter in module.encoder.parameters():
            parameter.add_(1.0)
    module(stretches())
    for before, key in zip(start, module.key_encoder.buffers(), strict=True):
        torch.testing.assert_close(key, before + 0.25)
    module.eval()
    copies = [buffer.clone() for buffer in module.buffers()]
    module(stretches())
    assert all(torch.equal(one, other) for one, other in zip(copies, module.buffers(), strict=True))


def test_exported_weights_hold_neither_copies_nor_queue_but_buffers_do():
    module = make()
    assert {name.partition(".")[0] for name in module.state_dict()} == {"encoder", "projection"}
    names = {name.partition(".")[0] for name, _ in module.named_buffers()}
    assert names == {"key_encoder", "key_projection", "queue", "scale"}
    assert {name.partition(".")[0] for name, _ in module.named_parameters()} == {"encoder", "projection"}


def test_a_copy_of_frozen_norms_computes_the_same():
    norm = torch.nn.BatchNorm1d(3).eval()
    norm.running_mean.uniform_()
    x = torch.randn(4, 3)
    assert torch.equal(MomentumCopy(norm)(x), norm(x))
    assert MomentumCopy(norm).state_dict() == {}


def test_features_are_scaled_by_running_moments():
    scale = RunningScale(2, momentum=0.5).double()
    rows = torch.randn(2, 3, 4, 2).double() * 3 + 1000
    assert torch.equal(scale(rows[0]), rows[0])
    all_count = torch.ones(3, dtype=torch.bool)
    for step in rows:
        scale.follow(step, is_valid=all_count)
    flat = rows.flatten(1, 2)
    mean = flat[0].mean(dim=0) / 3 + flat[1].mean(dim=0) * 2 / 3
    square = flat[0].square().mean(dim=0) / 3 + flat[1].square().mean(dim=0) * 2 / 3
    torch.testing.assert_close(scale(flat), (flat - mean) / (square - mean.square()).sqrt())


def test_moments_are_those_of_the_windows_that_count():
    steps = torch.randn(3, 3, 4, 2).double()
    is_valid = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    steps[~is_valid] = torch.nan
    masked, chosen = (RunningScale(2, momentum=0.5).double() for _ in range(2))
    for step, valid in zip(steps, is_valid, strict=True):
        masked.follow(step, is_valid=valid)
    for step, valid in ((steps[0], is_valid[0]), (steps[2], is_valid[2])):
        chosen.follow(step[valid], is_valid=valid[valid])
    torch.testing.assert_close(masked.moments, chosen.moments)
    assert masked.weight == chosen.weight


def test_the_queue_holds_the_newest_keys():
    queue = KeyQueue(size=5, width=2)
    for first in (0, 3, 6):
        numbers = torch.arange(first, first + 3)
        queue.push(numbers.float()[:, None].expand(3, 2), numbers)
    assert queue.keys[:, 0].tolist() == queue.owners.tolist() == [5.0, 6.0, 7.0, 8.0, 4.0]
    assert int(queue.next_place) == 4


def test_an_encoder_that_knows_the_video_agrees_and_chance_is_said():
    module = make()
    rows = module.measure(stretches(num_windows=6))
    assert rows.shape == (6, 4)
    found = module.summarise(rows)
    assert found.details["chance"] == pytest.approx(1 / (6 * 3))
    assert 0 <= found.score <= found.details["video_agreement"] <= 1
    again = module.measure(stretches(num_windows=6))
    assert torch.equal(rows, again)
    few = module.measure(stretches(num_windows=2))
    assert few.isnan().all()


def test_a_batch_of_two_windows_is_refused():
    with pytest.raises(ValueError, match="batch has 2 windows; .* at least 3 for each rank"):
        make()(stretches(num_windows=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_region": 0.6}, "min_region and max_region"),
        ({"max_region": 1.5}, "min_region and max_region"),
        ({"max_scale": 0.5}, "max_scale is 0.5"),
        ({"bins": 0}, "bins is 0"),
        ({"temperature": 0}, "temperature is 0"),
        ({"momentum": 1}, r"momentum is 1; it must lie in \[0, 1\)"),
        ({"weights": "best"}, "weights: best needs validation"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PalConfig(**options)


def test_first_losses_are_near_those_of_a_guess():
    module = make(queue=4000, temperature=10.0)
    assert module(stretches()).total.item() == pytest.approx(math.log(4001), abs=0.2)
