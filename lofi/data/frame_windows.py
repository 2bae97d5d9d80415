"""Windows -> samples of frames, decoded at the step's own fidelity; and the recipe's `data:` block.

A sample is asked for by a `SampleKey`, which carries its fidelity: frames are decoded at the step's own size, and only the
frames that it needs; targets are in snippet index of the step's number of snippets. All that is random depends on (seed,
epoch, index) alone, so a sample is the same in whatever process and order it is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lofi.batches import Views
from lofi.data.decode import DecodeError, Resize, VideoInfo, VideoReader, check_duration, open_video
from lofi.data.frame_cache import MAX_CACHED_CLIP_FRAMES, FrameCache
from lofi.data.grid import (
    GridConfig,
    frame_indices,
    frame_step_sec,
    snippet_frame_times_sec,
)
from lofi.data.samples import SampleKey, WindowSample, failed_sample, window_mask
from lofi.fidelity import Fidelity
from lofi.segments import Window, window_targets


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The recipe's `data:` block: what is read, and how."""

    annotations: str
    """Path of annotations.json."""
    videos: str | None = None
    """Folder of the video files, where an encoder runs."""
    features: str | None = None
    """Feature directory, where a head is trained on features from disk."""
    training_subset: str = "training"
    """Name of the subset in annotations.json to train on."""
    validation_subset: str = "validation"
    """Name of the subset in annotations.json to evaluate on."""
    resize: Literal["crop", "stretch"] = "crop"
    """crop keeps the shape of things and loses the edges of the frame; stretch keeps all of the frame."""
    flip: bool = False
    """In training, mirror half of the windows left to right (a whole window at a time, on the device)."""
    random_crop: float = 1.0
    """In training, decode frames this many times as high and as wide as the fidelity says, and cut out its height x width
    (on the device) at a place drawn for each window and epoch; 1 to 2, 1 cuts out nothing."""
    frame_cache: str | None = None
    """Folder for decoded frames, which later epochs read in place of the videos; null keeps none."""
    workers: int = 0
    """Processes that decode, per rank; 0 decodes in the training process. They are started anew for each epoch (a second
    or so each, once per epoch), so that an epoch's batches follow from its number alone."""
    on_decode_error: Literal["stop", "skip"] = "stop"
    """A video that cannot be decoded stops the run, or is skipped and counted. With data.features: one that could not be
    when they were extracted, and has none."""
    clips_per_segment: int = 1
    """Clips drawn from each annotated segment and epoch. Only for objectives that train on clips."""
    labelled_share: float = 1.0
    """Share of the training videos that is used, drawn by the recipe's seed, every class at least once; 0 to 1."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"data.workers is {self.workers}; it must be at least 0.")
        if self.clips_per_segment < 1:
            raise ValueError(f"data.clips_per_segment is {self.clips_per_segment}; it must be at least 1.")
        if not 0 < self.labelled_share <= 1:
            raise ValueError(f"data.labelled_share is {self.labelled_share}; it must lie in (0, 1].")
        if not 1 <= self.random_crop <= 2:
            raise ValueError(f"data.random_crop is {self.random_crop}; it must lie in 1 to 2.")
        if self.resize not in ("crop", "stretch"):
            raise ValueError(f"data.resize is {self.resize!r}; it must be crop or stretch.")
        if self.on_decode_error not in ("stop", "skip"):
            raise ValueError(f"data.on_decode_error is {self.on_decode_error!r}; it must be stop or skip.")
        if not self.annotations:
            raise ValueError("data.annotations is empty; it must be the path of an annotation file.")
        if self.videos is None and self.features is None:
            raise ValueError("data.videos and data.features are both missing; one of them must be given.")
        if self.videos is None:
            for key, is_set in (
                ("flip", self.flip),
                ("random_crop", self.random_crop != 1),
                ("frame_cache", self.frame_cache is not None),
            ):
                if is_set:
                    raise ValueError(f"data.{key} has no effect without data.videos; remove it.")


class FrameWindows(Dataset[WindowSample]):
    """Windows of videos, decoded. Indexed by `SampleKey`."""

    def __init__(
        self,
        windows: Sequence[Window],
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
    ) -> None:
        """Decoded windows.

        Args:
            windows: one sample each.
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
        """
        self.windows = list(windows)
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
        self._infos: dict[str, VideoInfo] = {}
        self._open: tuple[str, VideoReader] | None = None

    def __len__(self) -> int:
        return len(self.windows)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open video, which must not travel to another process."""
        return {**self.__dict__, "_open": None}

    def __getitem__(self, key: SampleKey) -> WindowSample:
        return self.read(self.windows[key.index], key)

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
        view = self._view(key, generator, is_mirrored=is_mirrored and self._flip)
        decoded = self._decoded(key)
        is_moved = self._jitter and key.training and fidelity.num_snippets == 1
        indices = self._indices(window, fidelity, place=place if is_moved else 0.5)
        if is_moved:
            images = self._moved_clip(window, decoded, indices)
        else:
            images = self._images(window.video, indices, decoded)
        return WindowSample(
            window=window,
            targets=window_targets(window, num_snippets=fidelity.num_snippets),
            mask=window_mask(window, num_snippets=fidelity.num_snippets),
            frames=_as_frames(images, decoded),
            view=view,
        )

    def _decoded(self, key: SampleKey) -> Fidelity:
        """The size at which frames are decoded."""
        return decoded_fidelity(key.fidelity, random_crop=self._random_crop if key.training else 1.0)

    def _view(self, key: SampleKey, generator: np.random.Generator, *, is_mirrored: bool) -> Views | None:
        """What the encoder sees of the decoded frames; None where that is always all of them, as they are."""
        if not key.training or not (self._flip or self._random_crop > 1):
            return None
        fidelity, decoded = key.fidelity, self._decoded(key)
        top = generator.integers(decoded.height - fidelity.height + 1)
        left = generator.integers(decoded.width - fidelity.width + 1)
        return Views(
            height=fidelity.height,
            width=fidelity.width,
            top=torch.tensor([top]),
            left=torch.tensor([left]),
            is_mirrored=torch.tensor([is_mirrored]),
        )

    def _indices(self, window: Window, fidelity: Fidelity, *, place: float) -> np.ndarray:
        """(L * T,) the frames of the window. place: 0.5, or from 0 to 1 where in its window a single snippet lies."""
        info = self._info(window.video)
        step_sec = frame_step_sec(self._grid, fps=info.fps)
        slack_sec = max(0.0, window.length_sec - fidelity.frames * step_sec)
        times_sec = snippet_frame_times_sec(
            window.start_sec,
            window.end_sec,
            num_snippets=fidelity.num_snippets,
            frames=fidelity.frames,
            step_sec=step_sec,
        )
        return frame_indices(
            times_sec.ravel() + (place - 0.5) * slack_sec,
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
            read=lambda: self._decode(video, indices, fidelity),
        )

    def _decode(self, video: str, indices: np.ndarray, fidelity: Fidelity) -> np.ndarray:
        reader = self._reader(video)
        before = reader.num_frames_decoded
        images = reader.read(indices, height=fidelity.height, width=fidelity.width, resize=self._resize)
        self.num_frames_decoded += reader.num_frames_decoded - before
        return images

    def _info(self, video: str) -> VideoInfo:
        if video not in self._infos:
            path = self.paths[video]
            if self._cache is None or not path.is_file():
                self._infos[video] = self._reader(video).info
            else:
                self._infos[video] = self._cache.video_info(path, read=lambda: self._reader(video).info)
        return self._infos[video]

    def _reader(self, video: str) -> VideoReader:
        """The video, open; the last one stays open for the next window of the same video."""
        if self._open is None or self._open[0] != video:
            self._open = None
            self._open = (video, open_video(self.paths[video], info=self._infos.get(video)))
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
