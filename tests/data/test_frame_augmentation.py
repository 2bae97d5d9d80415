"""What training changes of a window's frames: place of its snippets, mirror, colours. One draw for all frames of a window."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from lofi.batches import Views
from lofi.data.data_config import DataConfig
from lofi.data.frame_windows import FrameWindows
from lofi.data.grid import GridConfig
from lofi.data.samples import SampleKey, collate
from lofi.fidelity import Fidelity
from lofi.gradients.prefetch import BLUR_RADIUS, blur, recolour, remove_colour, show
from lofi.segments import Window

FULL = Fidelity(num_snippets=8, frames=2, height=24, width=40)
LEFT, WAVE = 1, 0


def window_of(*labels):
    return Window(
        video="long",
        start_sec=0.0,
        end_sec=4.0,
        video_duration_sec=4.0,
        segments=tuple((0.5, 3.0, label) for label in labels),
    )


def dataset(windows, videos, **keys):
    return FrameWindows(windows, videos, grid=GridConfig(), seed=3, **keys)


def training_key(index=0, *, epoch, fidelity=FULL):
    return SampleKey(index=index, fidelity=fidelity, epoch=epoch, training=True)


def numbers_of(sample, numbers_in):
    """(L, T) numbers of the frames that a sample shows."""
    frames = sample.frames.permute(0, 2, 3, 4, 1).flatten(0, 1).numpy()
    return np.array(numbers_in(frames)).reshape(sample.frames.shape[0], -1)


@pytest.mark.parametrize("time", [1, 4])
def test_snippets_are_spread_over_the_window_jittered_in_training_and_centred_in_evaluation(
    numbered_videos, numbers_in, time
):
    fidelity = FULL.reduced(time=time)
    cell = 40 // fidelity.num_snippets
    plain, jittered = (dataset([window_of()], numbered_videos, snippet_jitter=share) for share in (0.0, 1.0))
    evaluated = numbers_of(jittered[SampleKey(index=0, fidelity=fidelity)], numbers_in)
    centre = (np.arange(fidelity.num_snippets) + 0.5) * cell
    assert np.abs(evaluated.mean(axis=1) + 0.5 - centre).max() <= 0.5
    np.testing.assert_array_equal(
        evaluated, numbers_of(plain[training_key(epoch=3, fidelity=fidelity)], numbers_in)
    )
    places = []
    for epoch in range(25):
        drawn = numbers_of(jittered[training_key(epoch=epoch, fidelity=fidelity)], numbers_in)
        assert (np.diff(drawn, axis=1) == 1).all()
        assert (drawn // cell == np.arange(fidelity.num_snippets)[:, None]).all()  # each in its own cell
        places.append(drawn[:, 0] % cell)
    found = {int(place) for place in np.unique(places)}
    assert found <= set(range(cell - 1))
    assert len(found) >= 0.7 * (cell - 1)
    assert any(len(set(each.tolist())) > 1 for each in places)  # each snippet for itself


def test_half_a_jitter_stays_in_the_middle_half(numbered_videos, numbers_in):
    fidelity = FULL.reduced(time=4)  # two cells of 20 frames, of which a snippet takes 2
    data = dataset([window_of()], numbered_videos, snippet_jitter=0.5)
    samples = [data[training_key(epoch=epoch, fidelity=fidelity)] for epoch in range(25)]
    starts = np.stack([numbers_of(sample, numbers_in)[:, 0] % 20 for sample in samples])
    assert 4 <= starts.min() < 7
    assert 11 < starts.max() <= 14


def test_a_window_that_shows_a_class_that_a_mirror_changes_is_never_mirrored(numbered_videos):
    windows = [window_of(WAVE), window_of(WAVE, LEFT), window_of()]
    data = dataset(windows, numbered_videos, flip=True, mirror_unsafe=[LEFT])
    other = dataset(windows, numbered_videos, flip=True)
    mirrored = np.array(
        [[bool(data[training_key(i, epoch=e)].view.is_mirrored) for i in range(3)] for e in range(12)]
    )
    freely = np.array(
        [[bool(other[training_key(i, epoch=e)].view.is_mirrored) for i in range(3)] for e in range(12)]
    )
    assert not mirrored[:, 1].any()
    assert freely[:, 1].any()
    np.testing.assert_array_equal(mirrored[:, [0, 2]], freely[:, [0, 2]])


def test_colours_are_drawn_once_for_a_window_and_leave_the_other_draws_alone(numbered_videos):
    data = dataset([window_of()], numbered_videos, flip=True, random_crop=1.25, color_jitter=0.4)
    plain = dataset([window_of()], numbered_videos, flip=True, random_crop=1.25)
    drawn = []
    for epoch in range(20):
        view, other = (each[training_key(epoch=epoch)].view for each in (data, plain))
        assert (view.top, view.left, view.is_mirrored) == (other.top, other.left, other.is_mirrored)
        assert other.color_factors is None
        assert view.color_factors.shape == (1, 3)
        drawn.append(view.color_factors[0])
    drawn = torch.stack(drawn)
    assert drawn.min() >= 0.6
    assert drawn.max() <= 1.4
    assert (drawn.std(dim=0) > 0.1).all()
    assert data[SampleKey(index=0, fidelity=FULL)].view is None
    batch = collate([data[training_key(epoch=epoch)] for epoch in (4, 7)])
    assert torch.equal(batch.views.color_factors, drawn[[4, 7]])


@pytest.mark.parametrize("factors", [(0.7, 1.0, 1.0), (1.0, 1.3, 1.0), (1.0, 1.0, 0.6), (0.9, 0.8, 1.2)])
def test_colours_change_as_torchvision_changes_them(factors):
    # of middle levels, since torchvision cuts off and rounds after each of the three
    frames = torch.randint(90, 160, (2, 3, 1, 6, 7), dtype=torch.uint8, generator=torch.manual_seed(1))
    found = recolour(frames, torch.tensor([factors, (1.0, 1.0, 1.0)]))
    expected = frames[0, :, 0]
    for adjust, factor in zip(
        (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation),
        factors,
        strict=True,
    ):
        expected = adjust(expected, factor)
    assert (found[0, :, 0].int() - expected.int()).abs().max() <= 3
    assert torch.equal(found[1], frames[1])


def test_grey_and_blur_are_drawn_once_for_a_window_and_leave_the_other_draws_alone(numbered_videos):
    data = dataset([window_of()], numbered_videos, color_jitter=0.4, grayscale=0.25, blur=0.5)
    plain = dataset([window_of()], numbered_videos, color_jitter=0.4)
    views = [data[training_key(epoch=epoch)].view for epoch in range(80)]
    other = [plain[training_key(epoch=epoch)].view for epoch in range(80)]
    assert all(torch.equal(a.color_factors, b.color_factors) for a, b in zip(views, other, strict=True))
    assert other[0].is_grey is None
    grey, sigma = (torch.cat([getattr(view, key) for view in views]) for key in ("is_grey", "blur_sigma"))
    assert 10 <= grey.sum() <= 32
    assert 25 <= (sigma > 0).sum() <= 55
    drawn = sigma[sigma > 0]
    assert 0.1 <= drawn.min() < 0.5
    assert 1.6 < drawn.max() <= 2.0
    batch = collate([data[training_key(epoch=epoch)] for epoch in (4, 7)])
    assert torch.equal(batch.views.blur_sigma, sigma[[4, 7]])


def test_colours_are_taken_away_as_torchvision_takes_them():
    frames = torch.randint(0, 256, (2, 3, 4, 6, 7), dtype=torch.uint8, generator=torch.manual_seed(1))
    found = remove_colour(frames, torch.tensor([True, False]))
    expected = reference.rgb_to_grayscale(frames[0].transpose(0, 1), num_output_channels=3).transpose(0, 1)
    assert (found[0].int() - expected.int()).abs().max() <= 1
    assert torch.equal(found[1], frames[1])


def test_frames_are_blurred_as_torchvision_blurs_them():
    frames = torch.randint(0, 256, (4, 3, 2, 9, 11), dtype=torch.uint8, generator=torch.manual_seed(1))
    sigmas = [0.1, 0.0, 0.9, 2.0]
    found = blur(frames, torch.tensor(sigmas))
    kernel = [2 * BLUR_RADIUS + 1] * 2
    for snippet, sigma in enumerate(sigmas):
        expected = frames[snippet]
        if sigma > 0:
            expected = reference.gaussian_blur(frames[snippet], kernel_size=kernel, sigma=[sigma, sigma])
        assert (found[snippet].int() - expected.int()).abs().max() <= (1 if sigma > 0 else 0)


def test_a_snippets_colours_do_not_depend_on_what_it_is_encoded_with():
    frames = torch.randint(0, 256, (6, 3, 2, 12, 14), dtype=torch.uint8, generator=torch.manual_seed(1))
    views = Views(
        height=9,
        width=10,
        top=torch.tensor([3, 0]),
        left=torch.tensor([1, 4]),
        is_mirrored=torch.tensor([True, False]),
        color_factors=torch.tensor([[1.2, 0.7, 1.4], [0.8, 1.3, 0.5]]),
        is_grey=torch.tensor([False, True]),
        blur_sigma=torch.tensor([1.5, 0.0]),
    ).per_snippet(3)
    whole = show(frames, views)
    parts = [show(*each) for each in zip(frames.split(4), views.split(4), strict=True)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole[0], whole[3])


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"decoder": "ffmpeg"}, r"data\.decoder is 'ffmpeg'; it must be auto, decord or pyav"),
        ({"decode_timeout_sec": 0.0}, r"data\.decode_timeout_sec is 0\.0; it must be positive, or null"),
        ({"color_jitter": 1.0}, r"data\.color_jitter is 1\.0; it must lie in 0 to 0\.9"),
        ({"grayscale": 1.5}, r"data\.grayscale is 1\.5; it must lie in 0 to 1"),
        ({"videos": None, "features": "f", "blur": 0.5}, r"data\.blur has no effect"),
        ({"snippet_jitter": 1.5}, r"data\.snippet_jitter is 1\.5; it must lie in 0 to 1"),
        (
            {"mirror_unsafe_classes": ["left"]},
            r"data\.mirror_unsafe_classes has no effect without data\.flip",
        ),
        ({"snippet_jitter": 1.0, "frame_cache": "c"}, r"data\.frame_cache cannot serve data\.snippet_jitter"),
        ({"videos": None, "features": "f", "color_jitter": 0.4}, r"data\.color_jitter has no effect"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_key(keys, match):
    with pytest.raises(ValueError, match=match):
        DataConfig(**{"annotations": "a.json", "videos": "videos", **keys})
