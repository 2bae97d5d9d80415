"""Windows -> samples of frames, decoded at the step's own fidelity.

A sample is asked for by a `SampleKey`, which carries its fidelity: frames are decoded at the step's own size, and only the
frames that it needs; targets are in snippet index of the step's number of snippets. All that is random depends on (seed,
epoch, index) alone, so a sample is the same in whatever process and order it is made.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lofi.batches import Views
from lofi.data.crops import crop_generator, crop_video, snippets_inside
from lofi.data.data_config import BLUR_SIGMA_PIXELS, DataConfig, changes_frames
from lofi.data.decode import VideoReader, open_video
from lofi.data.frame_cache import MAX_CACHED_CLIP_FRAMES, FrameCache
from lofi.data.grid import (
    GridConfig,
    frame_indices,
    frame_step_sec,
    snippet_frame_times_sec,
)
from lofi.data.packed_windows import PackedWindows
from lofi.data.reading_process import ReadingProcess, RemoteReader
from lofi.data.samples import SampleKey, WindowSample, failed_sample, window_mask
from lofi.data.video_info import DecodeError, DecoderChoice, Resize, VideoInfo, check_duration
from lofi.fidelity import Fidelity
from lofi.progress import say
from lofi.segments import Window, window_targets

__all__ = ["DataConfig", "FrameWindows", "decoded_fidelity", "sample_generator"]

MAX_KNOWN_FRAMES = 2_000_000
"""Frames whose times a process remembers, over all videos (some 40 MiB); what was used longest ago is forgotten."""


class FrameWindows(Dataset[WindowSample]):
    """Windows of videos, decoded. Indexed by `SampleKey`."""

    def __init__(
        self,
        windows: Iterable[Window],
        paths: Mapping[str, Path],
        *,
        grid: GridConfig,
        seed: int,
        resize: Resize = "crop",
        flip: bool = False,
        random_crop: float = 1.0,
        jitter: bool = False,
        frame_cache: str | Path | None = None,
        on_decode_error: Literal["stop", "skip"] = "stop",
        mirror_unsafe: Collection[int] = (),
        color_jitter: float = 0.0,
        grayscale: float = 0.0,
        blur: float = 0.0,
        snippet_jitter: float = 0.0,
        decoder: DecoderChoice = "auto",
        decode_timeout_sec: float | None = None,
        process: ReadingProcess | None = None,
        infos: Mapping[str, VideoInfo] | None = None,
    ) -> None:
        """Decoded windows.

        Args:
            windows: one sample each; whole videos where the grid has training: crops, each cropped anew in training.
            paths: the file of each window's video, by name.
            grid: where a snippet's frames lie.
            seed: of what is drawn in training.
            resize: how frames become height x width.
            flip: mirror half of the windows in training.
            random_crop: in training, decode frames so many times as high and wide, and show a place of them.
            jitter: in training, draw the place of the frames inside their window anew each epoch, where a window is a
                single snippet (L = 1); otherwise it is the middle. For clips: a detector's targets would not follow.
            frame_cache: folder for decoded frames; None keeps none.
            on_decode_error: stop raises DecodeError; skip gives an empty, masked sample with the failure in it.
            mirror_unsafe: class indices; a window that shows one of these is not mirrored.
            color_jitter: in training, brightness, contrast and saturation each change by up to this part.
            grayscale: in training, the share of windows shown without colours.
            blur: in training, the share of windows that are blurred.
            snippet_jitter: in training, draw the place of each snippet in its cell anew each epoch: 0 the middle, 1 anywhere.
            decoder: as `open_video` takes it.
            decode_timeout_sec: read in a child that is ended when nothing comes of it for so long; None reads in this process.
            process: such a child that there is already; a worker starts its own.
            infos: of videos that were opened before, by name.
        """
        self.windows = PackedWindows(windows)
        self.paths = dict(paths)
        self.num_frames_decoded = 0
        """Frames read from video files by this process."""
        self._grid = grid
        self._seed = seed
        self._resize = resize
        self._flip = flip
        self._random_crop = random_crop
        self._jitter = jitter
        self._cache = None if frame_cache is None else FrameCache(frame_cache)
        self._on_decode_error = on_decode_error
        self._mirror_unsafe = frozenset(mirror_unsafe)
        self._color_jitter = color_jitter
        self._grayscale = grayscale
        self._blur = blur
        self._changes_frames = changes_frames(
            flip=flip, random_crop=random_crop, shares=(color_jitter, grayscale, blur)
        )
        self._snippet_jitter = snippet_jitter
        self._decoder = decoder
        self._process = process
        if process is None and decode_timeout_sec is not None:
            self._process = ReadingProcess(timeout_sec=decode_timeout_sec, decoder=decoder)
        self._infos: OrderedDict[str, VideoInfo] = OrderedDict(infos or {})
        self._named: set[str] = set()
        self._open: tuple[str, VideoReader | RemoteReader] | None = None

    def __len__(self) -> int:
        return len(self.windows)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open video, which must not travel to another process."""
        return {**self.__dict__, "_open": None}

    def __getitem__(self, key: SampleKey) -> WindowSample:
        window = self.windows[key.index]
        if key.training and self._grid.training == "crops":
            window = self._crop(window, key)
        return self.read(window, key)

    def read(self, window: Window, key: SampleKey) -> WindowSample:
        """The sample of a window of one of the videos, such as a part of the key's own."""
        try:
            return self._read(window, key)
        except DecodeError as error:
            self._open = None
            if self._on_decode_error == "stop":
                raise DecodeError(window.video, f"{error.reason} ({self.paths[window.video]})") from None
            generator = sample_generator(self._seed, epoch=key.epoch, index=key.index)
            return failed_sample(
                window,
                error.reason,
                frames=_no_frames(self._decoded(key)),
                view=self._view(key, generator, is_mirrored=False),
            )

    def _read(self, window: Window, key: SampleKey) -> WindowSample:
        fidelity = key.fidelity
        check_duration(window.video, self._info(window.video), annotated_sec=window.video_duration_sec)
        generator = sample_generator(self._seed, epoch=key.epoch, index=key.index)
        is_mirrored, place = bool(generator.random() < 0.5), generator.random()
        may_mirror = self._flip and not any(label in self._mirror_unsafe for _, _, label in window.segments)
        view = self._view(key, generator, is_mirrored=is_mirrored and may_mirror)
        decoded = self._decoded(key)
        is_moved = self._jitter and key.training and fidelity.num_snippets == 1
        if is_moved:
            images = self._moved_clip(window, decoded, self._indices(window, fidelity, place=place))
        else:
            places: float | np.ndarray = 0.5
            if key.training and self._snippet_jitter > 0:
                drawn = generator.random((fidelity.num_snippets, 1)) - 0.5
                places = 0.5 + self._snippet_jitter * drawn
            images = self._images(window.video, self._indices(window, fidelity, place=places), decoded)
        return WindowSample(
            window=window,
            targets=window_targets(window, num_snippets=fidelity.num_snippets),
            mask=window_mask(window, num_snippets=fidelity.num_snippets),
            frames=_as_frames(images, decoded),
            view=view,
        )

    def _crop(self, video: Window, key: SampleKey) -> Window:
        """Of a whole video, in snippets of the step's own number in `window_sec`, or in the whole video with mode: rescale."""
        duration_sec = video.video_duration_sec
        step_sec = (self._grid.window_sec or duration_sec) / key.fidelity.num_snippets
        return crop_video(
            video,
            origin_sec=0.0,
            step_sec=step_sec,
            num_snippets=snippets_inside(duration_sec, step_sec=step_sec),
            window_snippets=key.fidelity.num_snippets,
            share=self._grid.crop_share,
            visible=self._grid.crop_visible,
            generator=crop_generator(self._seed, epoch=key.epoch, index=key.index),
        )

    def _decoded(self, key: SampleKey) -> Fidelity:
        """The size at which frames are decoded."""
        return decoded_fidelity(key.fidelity, random_crop=self._random_crop if key.training else 1.0)

    def _view(self, key: SampleKey, generator: np.random.Generator, *, is_mirrored: bool) -> Views | None:
        """What the encoder sees of the decoded frames; None where that is always all of them, as they are."""
        if not (key.training and self._changes_frames):
            return None
        fidelity, decoded = key.fidelity, self._decoded(key)
        top = generator.integers(decoded.height - fidelity.height + 1)
        left = generator.integers(decoded.width - fidelity.width + 1)
        factors = None
        if self._color_jitter > 0:
            drawn = 1 + self._color_jitter * generator.uniform(-1, 1, size=(1, 3))
            factors = torch.from_numpy(drawn.astype(np.float32))
        is_grey = torch.tensor([generator.random() < self._grayscale]) if self._grayscale > 0 else None
        sigma = None
        if self._blur > 0:
            is_blurred, drawn_sigma = generator.random() < self._blur, generator.uniform(*BLUR_SIGMA_PIXELS)
            sigma = torch.tensor([drawn_sigma if is_blurred else 0.0], dtype=torch.float32)
        return Views(
            height=fidelity.height,
            width=fidelity.width,
            top=torch.tensor([top]),
            left=torch.tensor([left]),
            is_mirrored=torch.tensor([is_mirrored]),
            color_factors=factors,
            is_grey=is_grey,
            blur_sigma=sigma,
        )

    def _indices(self, window: Window, fidelity: Fidelity, *, place: float | np.ndarray) -> np.ndarray:
        """(L * T,) the frames of the window. place: 0.5, or from 0 to 1 where in its cell each snippet lies, () or (L, 1)."""
        info = self._info(window.video)
        cell_sec = window.length_sec / fidelity.num_snippets
        step_sec = frame_step_sec(self._grid, fps=info.fps, cell_sec=cell_sec, frames=fidelity.frames)
        slack_sec = max(0.0, cell_sec - fidelity.frames * step_sec)
        times_sec = snippet_frame_times_sec(
            window.start_sec,
            window.end_sec,
            num_snippets=fidelity.num_snippets,
            frames=fidelity.frames,
            step_sec=step_sec,
        )
        return frame_indices(
            (times_sec + (place - 0.5) * slack_sec).ravel(),
            num_frames=info.num_frames,
            fps=info.fps,
            timestamps_sec=info.timestamps_sec,
        )

    def _moved_clip(self, window: Window, fidelity: Fidelity, indices: np.ndarray) -> np.ndarray:
        """The frames of a clip whose place changes each epoch; cached as all the frames that it may ever need."""
        first = int(self._indices(window, fidelity, place=0.0).min())
        last = int(self._indices(window, fidelity, place=1.0).max())
        if self._cache is None or last - first >= MAX_CACHED_CLIP_FRAMES:
            return self._decode(window.video, indices, fidelity)
        return self._images(window.video, np.arange(first, last + 1), fidelity)[indices - first]

    def _images(self, video: str, indices: np.ndarray, fidelity: Fidelity) -> np.ndarray:
        """(n, H, W, 3), from the cache where there is one."""
        if self._cache is None:
            return self._decode(video, indices, fidelity)
        return self._cache.frames(
            self.paths[video],
            indices,
            height=fidelity.height,
            width=fidelity.width,
            resize=self._resize,
            decoder=self._decoder,
            read=lambda: self._decode(video, indices, fidelity),
        )

    def _decode(self, video: str, indices: np.ndarray, fidelity: Fidelity) -> np.ndarray:
        reader = self._reader(video)
        before = reader.num_frames_decoded
        images = reader.read(indices, height=fidelity.height, width=fidelity.width, resize=self._resize)
        self.num_frames_decoded += reader.num_frames_decoded - before
        self._name_decoder(video, reader.info)
        return images

    def _name_decoder(self, video: str, info: VideoInfo) -> None:
        """Say once which video PyAV reads in decord's place."""
        if info.decoder_reason is not None and video not in self._named:
            self._named.add(video)
            say(f"{video}: read by PyAV, not decord: {info.decoder_reason}")

    def _info(self, video: str) -> VideoInfo:
        info = self._infos.pop(video, None)
        if info is None:
            path = self.paths[video]
            if self._cache is None or not path.is_file():
                info = self._reader(video).info
            else:
                info = self._cache.video_info(
                    path, read=lambda: self._reader(video).info, decoder=self._decoder
                )
        self._infos[video] = info  # as the last one
        while (
            len(self._infos) > 1 and sum(each.num_frames for each in self._infos.values()) > MAX_KNOWN_FRAMES
        ):
            self._infos.popitem(last=False)
        return info

    def _reader(self, video: str) -> VideoReader | RemoteReader:
        """The video, open; the last one stays open for the next window of the same video."""
        if self._open is None or self._open[0] != video:
            self._open = None
            path, info = self.paths[video], self._infos.get(video)
            if self._process is None:
                self._open = (video, open_video(path, info=info, decoder=self._decoder))
            else:
                self._open = (video, self._process.open(path, info=info))
        return self._open[1]


def decoded_fidelity(fidelity: Fidelity, *, random_crop: float) -> Fidelity:
    """The size at which frames are decoded for a training step of this fidelity (`DataConfig.random_crop`)."""
    return replace(
        fidelity,
        height=round(fidelity.height * random_crop),
        width=round(fidelity.width * random_crop),
    )


def sample_generator(seed: int, *, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch, the same in every process."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, index)))


def _as_frames(images: np.ndarray, fidelity: Fidelity) -> Tensor:
    """(L * T, H, W, 3) uint8 -> (L, 3, T, H, W), a copy of its own."""
    images_LTHWC = images.reshape(fidelity.num_snippets, fidelity.frames, *images.shape[1:])
    return torch.from_numpy(np.array(images_LTHWC.transpose(0, 4, 1, 2, 3), order="C"))


def _no_frames(fidelity: Fidelity) -> Tensor:
    """(L, 3, T, H, W) uint8, black."""
    shape = (fidelity.num_snippets, 3, fidelity.frames, fidelity.height, fidelity.width)
    return torch.zeros(shape, dtype=torch.uint8)
