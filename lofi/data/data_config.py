"""The recipe's `data:` block."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

AUGMENTATIONS = (
    "flip",
    "mirror_unsafe_classes",
    "random_crop",
    "color_jitter",
    "grayscale",
    "blur",
    "snippet_jitter",
)
"""Options that change frames in training, and have no effect elsewhere."""

BLUR_SIGMA_PIXELS = (0.1, 2.0)
"""From which data.blur draws (MoCo-v2)."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The recipe's `data:` block: what is read, and how."""

    annotations: str
    """Path of annotations.json."""
    videos: str | None = None
    """Folder of the video files, where an encoder runs."""
    features: str | None = None
    """Feature directory, where a head is trained on features from disk."""
    joined_features: list[str] | None = None
    """Feature directories whose features stand beside those of data.features, row by row: a head then sees two streams, such as
    those of a classification encoder and of a boundary-sensitive one. All on the same grid."""
    standardize_features: bool = False
    """Bring each element of features from disk to zero mean and unit deviation, over the training videos: for encoders whose
    features share a large mean and differ by little. The moments become part of the run's weights."""
    training_subset: str = "training"
    """Name of the subset in annotations.json to train on."""
    validation_subset: str = "validation"
    """Name of the subset in annotations.json to evaluate on."""
    resize: Literal["crop", "stretch"] = "crop"
    """crop keeps the shape of things and loses the edges of the frame; stretch keeps all of the frame."""
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """What decodes: auto is decord, and PyAV for the videos that decord would get wrong, which are named; decord refuses them."""
    decode_timeout_sec: float | None = 120.0
    """Seconds without a decoded frame after which a video counts as one that cannot be decoded. Videos are read by a child
    of each process that reads, which may crash or hang without harm; null reads them in the process itself."""
    flip: bool = False
    """In training, mirror half of the windows left to right (a whole window at a time, on the device)."""
    mirror_unsafe_classes: list[str] | None = None
    """Names of classes that a mirror turns into others ("turn left"): a window that shows one is not mirrored. Only with
    flip: true."""
    random_crop: float = 1.0
    """In training, decode frames this many times as high and as wide as the fidelity says, and cut out its height x width
    (on the device) at a place drawn for each window and epoch; 1 to 2, 1 cuts out nothing."""
    color_jitter: float = 0.0
    """In training, change brightness, contrast and saturation by a factor within 1 - this to 1 + this each, drawn for each
    window and epoch (on the device); 0 to 0.9, 0 changes nothing."""
    grayscale: float = 0.0
    """In training, the share of windows shown without colours, drawn for each window and epoch (on the device); 0 to 1.
    MoCo-v2's is 0.2."""
    blur: float = 0.0
    """In training, the share of windows blurred by a Gaussian whose deviation is drawn from 0.1 to 2 pixels, for each window and
    epoch (on the device); 0 to 1. MoCo-v2's is 0.5, at 224 pixels: smaller frames lose more by it."""
    snippet_jitter: float = 0.0
    """In training, where in its share of the window each snippet lies: 0 in the middle, 1 anywhere, drawn for each snippet and
    epoch. The targets do not move, so that boundaries blur by up to half a snippet."""
    frame_cache: str | None = None
    """Folder for decoded frames, which later epochs read in place of the videos; null keeps none."""
    workers: int = 0
    """Processes that decode, per rank; 0 decodes in the training process. An epoch's batches follow
    from its number alone, however many there are."""
    on_decode_error: Literal["stop", "skip"] = "stop"
    """A video that cannot be decoded stops the run, or is skipped and counted. With data.features: one that could not be
    when they were extracted, and has none."""
    clips_per_segment: int = 1
    """Clips drawn from each annotated segment and epoch. Only for objectives that train on clips."""
    labelled_share: float = 1.0
    """Share of the training videos that is used, drawn by the recipe's seed, every class at least once; 0 to 1."""
    repeat_labelled: bool = False
    """Repeat the windows of that share until an epoch has as many steps as all training videos would make: equal steps for
    every share, with the same epochs and schedule. Only with a labelled_share below 1."""

    @property
    def changes_frames(self) -> bool:
        """Whether training shows something else than the decoded frames as they are."""
        return changes_frames(
            flip=self.flip,
            random_crop=self.random_crop,
            shares=(self.color_jitter, self.grayscale, self.blur),
        )

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"data.workers is {self.workers}; it must be at least 0.")
        if self.clips_per_segment < 1:
            raise ValueError(f"data.clips_per_segment is {self.clips_per_segment}; it must be at least 1.")
        if not 0 < self.labelled_share <= 1:
            raise ValueError(f"data.labelled_share is {self.labelled_share}; it must lie in (0, 1].")
        if self.repeat_labelled and self.labelled_share == 1:
            raise ValueError("data.repeat_labelled has no effect with data.labelled_share: 1; remove it.")
        if not 1 <= self.random_crop <= 2:
            raise ValueError(f"data.random_crop is {self.random_crop}; it must lie in 1 to 2.")
        if self.resize not in ("crop", "stretch"):
            raise ValueError(f"data.resize is {self.resize!r}; it must be crop or stretch.")
        if self.decoder not in ("auto", "decord", "pyav"):
            raise ValueError(f"data.decoder is {self.decoder!r}; it must be auto, decord or pyav.")
        if self.decode_timeout_sec is not None and not self.decode_timeout_sec > 0:
            raise ValueError(
                f"data.decode_timeout_sec is {self.decode_timeout_sec}; it must be positive, or null."
            )
        if not 0 <= self.color_jitter <= 0.9:
            raise ValueError(f"data.color_jitter is {self.color_jitter}; it must lie in 0 to 0.9.")
        for name in ("grayscale", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.{name} is {getattr(self, name)}; it must lie in 0 to 1.")
        if not 0 <= self.snippet_jitter <= 1:
            raise ValueError(f"data.snippet_jitter is {self.snippet_jitter}; it must lie in 0 to 1.")
        if self.mirror_unsafe_classes is not None and not self.flip:
            raise ValueError("data.mirror_unsafe_classes has no effect without data.flip: true; remove it.")
        if self.snippet_jitter > 0 and self.frame_cache is not None:
            raise ValueError(
                "data.frame_cache cannot serve data.snippet_jitter, which takes other frames in each epoch; remove one."
            )
        if self.on_decode_error not in ("stop", "skip"):
            raise ValueError(f"data.on_decode_error is {self.on_decode_error!r}; it must be stop or skip.")
        if not self.annotations:
            raise ValueError("data.annotations is empty; it must be the path of an annotation file.")
        if self.videos is None and self.features is None:
            raise ValueError("data.videos and data.features are both missing; one of them must be given.")
        if self.joined_features is not None and (self.features is None or not self.joined_features):
            raise ValueError(
                f"data.joined_features is {self.joined_features}; it stands beside data.features, and must name a directory."
            )
        if self.standardize_features and self.features is None:
            raise ValueError("data.standardize_features is for data.features; remove one of the two.")
        if self.videos is None:
            for key, is_set in (
                ("flip", self.flip),
                ("random_crop", self.random_crop != 1),
                ("color_jitter", self.color_jitter != 0),
                ("grayscale", self.grayscale != 0),
                ("blur", self.blur != 0),
                ("snippet_jitter", self.snippet_jitter != 0),
                ("decoder", self.decoder != "auto"),
                ("frame_cache", self.frame_cache is not None),
            ):
                if is_set:
                    raise ValueError(f"data.{key} has no effect without data.videos; remove it.")


def changes_frames(*, flip: bool, random_crop: float, shares: Iterable[float]) -> bool:
    """Whether training shows something else than the decoded frames as they are; `shares`: of colours, greys and blur."""
    return flip or random_crop > 1 or any(share > 0 for share in shares)
