import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lofi.data.decode import DecodeError
from lofi.data.feature_failures import record_failures
from lofi.data.feature_store import (
    FeatureManifest,
    create_feature_directory,
    write_feature,
)
from lofi.data.feature_windows import FeatureWindows, interpolate_rows
from lofi.data.frame_windows import DataConfig, FrameWindows
from lofi.data.grid import GridConfig
from lofi.data.samples import SampleKey, collate
from lofi.fidelity import Fidelity
from lofi.segments import Window

FULL = Fidelity(num_snippets=8, frames=3, height=24, width=40)
CLIP = Fidelity(num_snippets=1, frames=3, height=24, width=40)
WHOLE = Window(
    video="long", start_sec=0.0, end_sec=4.0, video_duration_sec=4.0, segments=((1.0, 2.5, 1), (0.0, 4.0, 0))
)


def images_of(frames):
    """(L, C, T, H, W) -> (L * T, H, W, C)."""
    return frames.permute(0, 2, 3, 4, 1).flatten(0, 1).numpy()


def dataset(windows, videos, *, grid=None, seed=3, **keys):
    return FrameWindows(windows, videos, grid=grid or GridConfig(), seed=seed, **keys)


def test_sample_holds_each_cells_frames_in_order(numbered_videos, numbers_in):
    sample = dataset([WHOLE], numbered_videos)[SampleKey(index=0, fidelity=FULL)]
    assert sample.frames.shape == (8, 3, 3, 24, 40)
    assert sample.frames.dtype == torch.uint8
    # cells of 5 frames, their centre inside frame 2: frames 1, 2, 3 of each
    assert numbers_in(images_of(sample.frames)) == [5 * cell + k for cell in range(8) for k in (1, 2, 3)]
    assert sample.mask.tolist() == [True] * 8
    assert sample.targets.segments.tolist() == [[2.0, 5.0], [0.0, 8.0]]
    assert sample.targets.labels.tolist() == [1, 0]


def test_a_quarter_of_the_snippets_is_a_quarter_of_the_frames_over_the_whole_video(
    numbered_videos, numbers_in
):
    data = dataset([WHOLE], numbered_videos)
    time = FULL.reduced(time=4)
    sample = data[SampleKey(index=0, fidelity=time, training=True)]
    assert numbers_in(images_of(sample.frames)) == [9, 10, 11, 29, 30, 31]
    assert data.num_frames_decoded == time.num_snippets * time.frames == 6
    assert sample.targets.segments.tolist() == [[0.5, 1.25], [0.0, 2.0]]


def test_frames_are_decoded_at_the_size_of_the_step(numbered_videos, numbers_in):
    space = FULL.reduced(space=2)
    sample = dataset([WHOLE], numbered_videos)[SampleKey(index=0, fidelity=space)]
    assert sample.frames.shape == (8, 3, 3, 12, 20)
    assert numbers_in(images_of(sample.frames))[:3] == [1, 2, 3]


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (GridConfig(frame_stride=4), [1, 5, 9, 11, 15, 19, 21, 25, 29, 31, 35, 39]),
        (GridConfig(frame_rate=5.0), [3, 5, 7, 13, 15, 17, 23, 25, 27, 33, 35, 37]),
    ],
)
def test_stride_and_rate_of_the_grid_space_the_frames(numbered_videos, numbers_in, grid, expected):
    fidelity = Fidelity(num_snippets=4, frames=3, height=24, width=40)
    sample = dataset([WHOLE], numbered_videos, grid=grid)[SampleKey(index=0, fidelity=fidelity)]
    assert numbers_in(images_of(sample.frames)) == expected


def test_uneven_video_is_sampled_in_time_not_by_count(numbered_videos, numbers_in):
    window = Window(video="uneven", start_sec=0.0, end_sec=7.2, video_duration_sec=7.2)
    fidelity = Fidelity(num_snippets=4, frames=1, height=24, width=40)
    sample = dataset([window], numbered_videos)[SampleKey(index=0, fidelity=fidelity)]
    # centres 0.9, 2.7, 4.5, 6.3 s; after 1.5 s a frame lasts 0.4 s
    assert numbers_in(images_of(sample.frames)) == [9, 18, 22, 27]


def test_what_lies_past_the_end_is_masked_and_repeats_the_last_frame(numbered_videos, numbers_in):
    window = Window(video="short", start_sec=0.0, end_sec=4.0, video_duration_sec=2.3)
    fidelity = Fidelity(num_snippets=4, frames=2, height=24, width=40)
    sample = dataset([window], numbered_videos)[SampleKey(index=0, fidelity=fidelity)]
    assert sample.mask.tolist() == [True, True, False, False]
    assert numbers_in(images_of(sample.frames)) == [4, 5, 14, 15, 22, 22, 22, 22]


SEGMENT = Window(video="long", start_sec=0.5, end_sec=3.5, video_duration_sec=4.0, segments=((0.5, 3.5, 1),))


def test_a_training_clip_moves_inside_its_segment_and_a_test_clip_is_its_middle(numbered_videos, numbers_in):
    data = dataset([SEGMENT] * 2, numbered_videos, jitter=True)
    starts = []
    for epoch in range(30):
        sample = data[SampleKey(index=1, fidelity=CLIP, epoch=epoch, training=True)]
        numbers = numbers_in(images_of(sample.frames))
        assert np.diff(numbers).tolist() == [1, 1]
        starts.append(numbers[0])
    assert min(starts) >= 5
    assert max(starts) <= 32
    assert len(set(starts)) > 10
    test = data[SampleKey(index=1, fidelity=CLIP, epoch=5)]
    assert numbers_in(images_of(test.frames)) == [19, 20, 21]


@pytest.mark.parametrize(("fidelity", "jitter"), [(FULL, True), (CLIP, False)])
def test_windows_of_several_snippets_or_without_jitter_do_not_move_in_training(
    numbered_videos, fidelity, jitter
):
    data = dataset([WHOLE], numbered_videos, jitter=jitter)
    still = data[SampleKey(index=0, fidelity=fidelity)]
    for epoch in range(3):
        trained = data[SampleKey(index=0, fidelity=fidelity, epoch=epoch, training=True)]
        assert torch.equal(trained.frames, still.frames)


def test_a_sample_depends_on_seed_epoch_and_index_alone(numbered_videos):
    def drawn(data, keys):
        samples = [data[key] for key in keys]
        return [(s.frames, torch.stack([s.view.top, s.view.left, s.view.is_mirrored])) for s in samples]

    keys = [SampleKey(index=i, fidelity=CLIP, epoch=e, training=True) for i in range(3) for e in range(3)]
    options = {"flip": True, "jitter": True, "random_crop": 1.3}
    first = dataset([SEGMENT] * 3, numbered_videos, **options)
    second = pickle.loads(pickle.dumps(first))
    forward, backward = drawn(first, keys), drawn(second, keys[::-1])[::-1]
    for part in range(2):
        assert all(torch.equal(a[part], b[part]) for a, b in zip(forward, backward, strict=True))
    others = drawn(dataset([SEGMENT] * 3, numbered_videos, **options, seed=4), keys)
    for part in range(2):
        assert not all(torch.equal(a[part], b[part]) for a, b in zip(forward, others, strict=True))


def test_flip_mirrors_about_half_of_the_training_windows_and_no_others(numbered_videos):
    plain, flipping = dataset([WHOLE], numbered_videos), dataset([WHOLE], numbered_videos, flip=True)
    small = Fidelity(num_snippets=2, frames=2, height=12, width=20)
    num_mirrored = 0
    for epoch in range(40):
        key = SampleKey(index=0, fidelity=small, epoch=epoch, training=True)
        flipped = flipping[key]
        assert torch.equal(flipped.frames, plain[key].frames)
        assert (flipped.view.height, flipped.view.width) == (12, 20)
        assert (int(flipped.view.top), int(flipped.view.left)) == (0, 0)
        num_mirrored += bool(flipped.view.is_mirrored)
        assert flipping[replace(key, training=False)].view is None
        assert plain[key].view is None
    assert 10 <= num_mirrored <= 30


def test_a_random_crop_decodes_larger_frames_in_training_and_shows_all_places_of_them(numbered_videos):
    data = dataset([WHOLE], numbered_videos, random_crop=1.25)
    small = Fidelity(num_snippets=2, frames=2, height=12, width=20)
    tops, lefts = set(), set()
    for epoch in range(60):
        sample = data[SampleKey(index=0, fidelity=small, epoch=epoch, training=True)]
        assert sample.frames.shape == (2, 3, 2, 15, 25)
        assert (sample.view.height, sample.view.width) == (12, 20)
        assert not sample.view.is_mirrored
        tops.add(int(sample.view.top))
        lefts.add(int(sample.view.left))
    assert tops == set(range(15 - 12 + 1))
    assert lefts == set(range(25 - 20 + 1))
    assert data[SampleKey(index=0, fidelity=small)].frames.shape == (2, 3, 2, 12, 20)


def test_a_batch_has_the_views_of_its_samples_one_that_could_not_be_decoded_among_them(
    numbered_videos, tmp_path
):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing" * 30)
    windows = [WHOLE, replace(WHOLE, video="bad")]
    paths = {**numbered_videos, "bad": broken}
    data = dataset(windows, paths, random_crop=1.5, flip=True, on_decode_error="skip")
    samples = [data[SampleKey(index=index, fidelity=CLIP, training=True)] for index in (0, 1)]
    batch = collate(samples)
    assert batch.views.top.tolist() == [int(sample.view.top) for sample in samples]
    assert batch.views.is_mirrored.shape == (2,)
    assert batch.failures[0][0] == "bad"


def test_cached_samples_equal_decoded_ones_and_decode_nothing(numbered_videos, tmp_path):
    plain = dataset([WHOLE, SEGMENT], numbered_videos, jitter=True)
    keys = [SampleKey(index=0, fidelity=FULL, epoch=e, training=True) for e in range(2)]
    keys += [SampleKey(index=1, fidelity=CLIP, epoch=e, training=True) for e in range(6)]
    cached = dataset([WHOLE, SEGMENT], numbered_videos, jitter=True, frame_cache=tmp_path)
    for key in keys:
        assert torch.equal(cached[key].frames, plain[key].frames)
    # the window's 24 frames once, and once the 30 or so that a clip of the segment may need
    assert 24 + 30 <= cached.num_frames_decoded <= 24 + 32
    again = dataset([WHOLE, SEGMENT], numbered_videos, jitter=True, frame_cache=tmp_path)
    for key in keys:
        assert torch.equal(again[key].frames, plain[key].frames)
    assert again.num_frames_decoded == 0


def test_a_long_segments_clips_are_decoded_and_not_cached(numbered_videos, tmp_path, monkeypatch):
    monkeypatch.setattr("lofi.data.frame_windows.MAX_CACHED_CLIP_FRAMES", 20)
    data = dataset([SEGMENT], numbered_videos, jitter=True, frame_cache=tmp_path)
    for epoch in range(4):
        _ = data[SampleKey(index=0, fidelity=CLIP, epoch=epoch, training=True)]
    assert data.num_frames_decoded == 12
    assert not list(tmp_path.rglob("*.npy"))


@pytest.fixture
def broken(tmp_path, numbered_videos):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video at all" * 50)
    return {**numbered_videos, "broken": path}


BROKEN = Window(video="broken", start_sec=0.0, end_sec=4.0, video_duration_sec=4.0, segments=((1.0, 2.0, 0),))


@pytest.mark.parametrize("use_cache", [False, True])
def test_a_video_that_cannot_be_decoded_stops_with_its_name(broken, tmp_path, use_cache):
    data = dataset([BROKEN], broken, frame_cache=tmp_path / "cache" if use_cache else None)
    with pytest.raises(DecodeError, match=r"^broken cannot be decoded: it is not a video file.*broken\.mp4"):
        _ = data[SampleKey(index=0, fidelity=FULL)]


@pytest.mark.parametrize("use_cache", [False, True])
def test_a_video_that_vanished_is_a_decode_error(numbered_videos, tmp_path, use_cache):
    paths = {"broken": tmp_path / "gone.mp4"}
    data = dataset([BROKEN], paths, frame_cache=tmp_path / "cache" if use_cache else None)
    with pytest.raises(DecodeError, match="there is no such file"):
        _ = data[SampleKey(index=0, fidelity=FULL)]


def test_a_skipped_video_is_an_empty_masked_sample_that_is_counted(broken):
    data = dataset([BROKEN, WHOLE], broken, on_decode_error="skip")
    batch = collate([data[SampleKey(index=index, fidelity=FULL)] for index in (0, 1)])
    assert batch.mask.any(dim=1).tolist() == [False, True]
    assert batch.frames.shape == (2, 8, 3, 3, 24, 40)
    assert not batch.frames[0].any()
    assert len(batch.targets[0].labels) == 0
    ((video, reason),) = batch.failures
    assert video == "broken"
    assert "not a video file" in reason


@pytest.mark.parametrize("use_cache", [False, True])
def test_a_video_shorter_than_annotated_stops_or_is_skipped_with_both_numbers(
    numbered_videos, tmp_path, use_cache
):
    window = Window(video="short", start_sec=0.0, end_sec=4.0, video_duration_sec=4.0)
    cache = tmp_path / "cache" if use_cache else None
    match = (
        r"^short cannot be decoded: it ends after 2\.30 s, but its annotated duration is 4\.00 s.*short\.mp4"
    )
    for _ in range(2):
        data = dataset([window], numbered_videos, frame_cache=cache)
        with pytest.raises(DecodeError, match=match):
            _ = data[SampleKey(index=0, fidelity=FULL)]
    skipping = dataset([window], numbered_videos, frame_cache=cache, on_decode_error="skip")
    sample = skipping[SampleKey(index=0, fidelity=FULL)]
    assert not sample.mask.any()
    assert sample.failure[0] == "short"


def test_collate_keeps_order_and_leaves_out_what_is_not_there(numbered_videos):
    windows = [WHOLE, replace(WHOLE, video="short", video_duration_sec=2.3)]
    data = dataset(windows, numbered_videos)
    batch = collate([data[SampleKey(index=index, fidelity=FULL)] for index in (1, 0)])
    assert [window.video for window in batch.windows] == ["short", "long"]
    assert batch.mask.shape == (2, 8)
    assert batch.features is None
    assert batch.failures == ()


def manifest(grid, *, num_snippets):
    return FeatureManifest(
        encoder={"name": "tiny"},
        weights_sha256="0",
        fidelity={"num_snippets": num_snippets, "frames": 2, "height": 8, "width": 8},
        grid=grid,
        feature_width=3,
        versions={},
    )


def with_snippets(num_snippets):
    return Fidelity(num_snippets=num_snippets, frames=1, height=1, width=1)


@pytest.fixture
def rescaled(tmp_path):
    directory = create_feature_directory(tmp_path / "rescaled", manifest({"mode": "rescale"}, num_snippets=6))
    features = np.arange(18, dtype=np.float32).reshape(6, 3) ** 2
    write_feature(directory, "long", features)
    return directory, features


def test_features_of_the_same_length_come_as_they_are(rescaled):
    directory, features = rescaled
    sample = FeatureWindows([WHOLE], directory, grid=GridConfig())[
        SampleKey(index=0, fidelity=with_snippets(6))
    ]
    assert torch.equal(sample.features, torch.from_numpy(features))
    assert sample.features.dtype == torch.float32
    assert sample.frames is None
    assert sample.mask.all()
    assert sample.targets.segments.tolist() == [[1.5, 3.75], [0.0, 6.0]]


@pytest.mark.parametrize("num_snippets", [1, 3, 4, 11])
def test_features_of_another_length_are_interpolated_as_torch_does(rescaled, num_snippets):
    directory, features = rescaled
    sample = FeatureWindows([WHOLE], directory, grid=GridConfig())[
        SampleKey(index=0, fidelity=with_snippets(num_snippets))
    ]
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(features).T[None], size=num_snippets, mode="linear", align_corners=False
    )[0].T
    torch.testing.assert_close(sample.features, expected)


SLIDING = GridConfig(mode="sliding", window_sec=10.0, overlap=0.5)


@pytest.fixture
def dense(tmp_path):
    """A video of 23 s with a row every 2 s: rows at 1, 3, ..., 21 s and the one at 23 s left out."""
    grid = {"mode": "sliding", "window_sec": 10.0}
    directory = create_feature_directory(tmp_path / "dense", manifest(grid, num_snippets=5))
    features = np.random.default_rng(1).normal(size=(11, 3)).astype(np.float32)
    write_feature(directory, "v", features)
    return directory, features


def slide(start, *, duration=23.0):
    return Window(video="v", start_sec=start, end_sec=start + 10, video_duration_sec=duration)


def test_a_window_on_the_lattice_is_a_slice_of_the_dense_rows(dense):
    directory, features = dense
    data = FeatureWindows([slide(0.0), slide(4.0), slide(20.0)], directory, grid=SLIDING)
    key = SampleKey(index=0, fidelity=with_snippets(5))
    assert torch.equal(data[key].features, torch.from_numpy(features[0:5]))
    assert torch.equal(data[replace(key, index=1)].features, torch.from_numpy(features[2:7]))
    past = data[replace(key, index=2)]
    assert past.mask.tolist() == [True, False, False, False, False]
    assert torch.equal(past.features, torch.from_numpy(features[[10] * 5]))


def test_a_window_between_the_rows_is_interpolated_at_its_centres(dense):
    directory, features = dense
    sample = FeatureWindows([slide(13.0)], directory, grid=SLIDING)[
        SampleKey(index=0, fidelity=with_snippets(5))
    ]
    expected = (features[6:11] + features[[7, 8, 9, 10, 10]]) / 2  # centres 14, 16, ..., 22 s
    np.testing.assert_allclose(sample.features.numpy(), expected, rtol=1e-6)


def test_features_on_another_kind_of_grid_are_refused(dense, rescaled):
    with pytest.raises(ValueError, match=r"grid\.mode is rescale, but the features in .* mode: sliding"):
        FeatureWindows([WHOLE], dense[0], grid=GridConfig())
    with pytest.raises(ValueError, match=r"grid\.mode is sliding, but the features in .* mode: rescale"):
        FeatureWindows([slide(0.0)], rescaled[0], grid=SLIDING)


def test_features_of_another_duration_are_refused(dense):
    with pytest.raises(ValueError, match=r"v\.npy has 11 rows, but a video of 40 s has 20"):
        FeatureWindows([slide(0.0, duration=40.0)], dense[0], grid=SLIDING)


def test_rows_of_snippets_that_start_with_the_video_stand_for_their_own_centres(tmp_path):
    """Snippets of 16 frames every 4 at 4 per second: rows at 2, 3, 4, ... s."""
    grid = {"mode": "sliding", "window_sec": 5.0}
    made = replace(manifest(grid, num_snippets=5), first_row_sec=2.0)
    directory = create_feature_directory(tmp_path / "inside", made)
    write_feature(directory, "v", np.arange(20 * 3, dtype=np.float32).reshape(20, 3))
    window = Window(video="v", start_sec=5.0, end_sec=10.0, video_duration_sec=23.0)
    data = FeatureWindows([window], directory, grid=GridConfig(mode="sliding", window_sec=5.0))
    sample = data[SampleKey(index=0, fidelity=with_snippets(5))]  # centres 5.5, ..., 9.5 s
    np.testing.assert_allclose(sample.features[:, 0].numpy(), [10.5, 13.5, 16.5, 19.5, 22.5])


def test_videos_without_features_are_named_before_training(rescaled):
    windows = [WHOLE, replace(WHOLE, video="other"), replace(WHOLE, video="third")]
    with pytest.raises(FileNotFoundError, match="2 of 3 videos have no features in .*: other, third"):
        FeatureWindows(windows, rescaled[0], grid=GridConfig())


def test_a_video_that_extraction_could_not_decode_stops_with_its_reason(rescaled):
    directory, _ = rescaled
    record_failures(directory, {"other": "the file is empty.", "elsewhere": "it is damaged."})
    windows = [WHOLE, replace(WHOLE, video="other")]
    with pytest.raises(
        ValueError, match=r"other has no features, .* the file is empty\. .*on_decode_error: skip"
    ) as e:
        FeatureWindows(windows, directory, grid=GridConfig())
    assert "further" not in str(e.value)
    with pytest.raises(FileNotFoundError, match="1 of 2 videos have no features in .*: third"):
        FeatureWindows(
            [*windows, replace(WHOLE, video="third")], directory, grid=GridConfig(), on_decode_error="skip"
        )


def test_a_video_that_extraction_could_not_decode_is_an_empty_masked_sample_where_it_may_be_skipped(rescaled):
    directory, features = rescaled
    record_failures(directory, {"other": "the file is empty."})
    windows = [replace(WHOLE, video="other"), WHOLE]
    data = FeatureWindows(windows, directory, grid=GridConfig(), on_decode_error="skip")
    batch = collate([data[SampleKey(index=index, fidelity=with_snippets(6))] for index in (0, 1)])
    assert batch.mask.any(dim=1).tolist() == [False, True]
    assert batch.features.shape == (2, 6, 3)
    assert not batch.features[0].any()
    assert torch.equal(batch.features[1], torch.from_numpy(features))
    assert len(batch.targets[0].labels) == 0
    assert batch.frames is None
    assert batch.failures == (("other", "the file is empty."),)


@given(st.lists(st.floats(0, 4), min_size=1, max_size=9))
def test_interpolation_is_numpys(positions):
    rows = np.array([[0, 5], [2, 1], [3, 3], [8, -2], [1, 0]], dtype=np.float32)
    expected = np.stack([np.interp(positions, np.arange(5), column) for column in rows.T], axis=1)
    np.testing.assert_allclose(interpolate_rows(rows, np.array(positions)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"workers": -1}, r"data\.workers is -1"),
        ({"clips_per_segment": 0}, r"data\.clips_per_segment is 0"),
        ({"resize": "pad"}, r"data\.resize is 'pad'"),
        ({"on_decode_error": "ignore"}, r"data\.on_decode_error is 'ignore'"),
        ({"videos": None}, r"data\.videos and data\.features are both missing"),
        ({"videos": None, "features": "f", "flip": True}, r"data\.flip has no effect"),
        ({"videos": None, "features": "f", "random_crop": 1.2}, r"data\.random_crop has no effect"),
        ({"random_crop": 0.9}, r"data\.random_crop is 0.9; it must lie in 1 to 2"),
        ({"videos": None, "features": "f", "frame_cache": "c"}, r"data\.frame_cache has no effect"),
    ],
)
def test_wrong_data_block_is_refused_by_key(keys, match):
    with pytest.raises(ValueError, match=match):
        DataConfig(**{"annotations": "a.json", "videos": "videos", **keys})
