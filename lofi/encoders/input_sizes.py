"""What sizes of input each encoder takes, and its native fidelity: the one that its public weights were trained at.

Plain numbers, so that a recipe can be refused before a library is imported and data are looked for. Of the `image`
encoder the network must be asked (`image.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lofi.encoders.videomae_sizes import SIZES, TUBELET
from lofi.fidelity import Fidelity


@dataclass(frozen=True, kw_only=True)
class InputSizes:
    """The sizes that one encoder takes."""

    encoder: str
    """As messages name it."""
    native: Fidelity
    """Of one snippet: what the public weights were trained at."""
    native_is_known: bool = True
    """Else the network must be asked, and messages do not name it."""
    least_frames: int = 1
    least_side: int = 1
    """Pixels."""
    frames_unit: int = 1
    """What T must be a multiple of."""
    height_unit: int = 1
    width_unit: int = 1
    """What H and W must be multiples of, pixels."""
    reason: str = ""
    """Why there is a least size, or a unit; follows the encoder's name."""

    @property
    def native_text(self) -> str:
        """T x H x W."""
        return f"{self.native.frames} x {self.native.height} x {self.native.width}"

    def check(self, fidelity: Fidelity) -> None:
        """Raise ValueError, naming the nearest usable values and the native ones, for a fidelity that is not taken."""
        native = f" Native are {self.native_text} (frames x height x width)." if self.native_is_known else ""
        least = {"frames": self.least_frames, "height": self.least_side, "width": self.least_side}
        if any(getattr(fidelity, name) < value for name, value in least.items()):
            usable = ", ".join(
                f"{name} {max(value, getattr(fidelity, name))}" for name, value in least.items() if value > 1
            )
            raise ValueError(
                f"fidelity {fidelity} is too small for {self.encoder}, which {self.reason}; nearest usable: {usable}.{native}"
            )
        units = {"frames": self.frames_unit, "height": self.height_unit, "width": self.width_unit}
        for name, unit in units.items():
            value = getattr(fidelity, name)
            if value % unit:
                lower, upper = value // unit * unit, (value // unit + 1) * unit
                nearest = f"{lower} or {upper}" if lower else f"{upper}"
                raise ValueError(
                    f"fidelity {fidelity}: {name} {value} is no multiple of {unit}: {self.encoder} {self.reason}; nearest usable: "
                    f"{name} {nearest}.{native}"
                )


def one_snippet(*, frames: int, side: int) -> Fidelity:
    """Of square frames."""
    return Fidelity(num_snippets=1, frames=frames, height=side, width=side)


TINY = InputSizes(
    encoder="tiny",
    native=one_snippet(frames=4, side=32),
    least_side=9,  # the last feature map must keep two positions a side: one is no sample to take statistics of
    reason="divides height and width by 8",
)
TSM = InputSizes(
    encoder="tsm",
    native=one_snippet(frames=8, side=224),
    least_frames=2,
    least_side=32,
    reason="divides height and width by 32, and shifts channels between frames unless encoder.temporal_shift_fraction is 0",
)
R2PLUS1D = InputSizes(
    encoder="r2plus1d",
    native=one_snippet(frames=16, side=112),
    least_side=16,
    reason="divides height and width by 16",
)
R2PLUS1D_MMACTION2 = InputSizes(
    encoder="r2plus1d",
    native=one_snippet(frames=8, side=224),  # of its 8x8x1 weights; those of 32x2x1 saw 32 frames
    least_side=32,
    reason="divides height and width by 32 in this layout",
)
RESNET3D = replace(R2PLUS1D, encoder="resnet3d")
S3D = InputSizes(
    encoder="s3d",
    native=one_snippet(frames=128, side=224),
    # One position of the last feature map. (torch 2.15's backward pass crashes on a CPU for smaller inputs, such as 5 x 17 x 18.)
    least_frames=8,
    least_side=32,
    reason="divides time by 8 and space by 32",
)
SWIN3D = InputSizes(encoder="swin3d", native=one_snippet(frames=32, side=224))
MVIT = InputSizes(
    encoder="mvit",
    native=one_snippet(frames=16, side=224),
    least_side=32,
    reason="divides height and width by 32",
)


def tsm_sizes(*, temporal_shift_fraction: float, side: int = 224) -> InputSizes:
    """`side`: pixels that the network's public weights were trained on. Without the shift a single frame will do."""
    if temporal_shift_fraction > 0:
        return replace(TSM, native=one_snippet(frames=8, side=side))
    reason = "divides height and width by 32"
    return replace(TSM, native=one_snippet(frames=8, side=side), least_frames=1, reason=reason)


def videomae_sizes(*, patch: int) -> InputSizes:
    """`patch`: pixels a side of a tubelet."""
    return InputSizes(
        encoder="videomae",
        native=one_snippet(frames=16, side=224),
        frames_unit=TUBELET,
        height_unit=patch,
        width_unit=patch,
        reason=f"has tubelets of {TUBELET} x {patch} x {patch}",
    )


INPUT_SIZES: dict[str, Callable[[Any], InputSizes]] = {
    "tiny": lambda config: TINY,
    "tsm": lambda config: replace(
        tsm_sizes(temporal_shift_fraction=config.temporal_shift_fraction),
        native_is_known=config.library == "torchvision",
    ),
    "r2plus1d": lambda config: R2PLUS1D_MMACTION2 if config.layout == "mmaction2" else R2PLUS1D,
    "resnet3d": lambda config: RESNET3D,
    "s3d": lambda config: S3D,
    "swin3d": lambda config: SWIN3D,
    "mvit": lambda config: MVIT,
    "videomae": lambda config: videomae_sizes(patch=SIZES[config.size].patch),
}
"""Name of an encoder -> from its configuration to what it takes. `image` is not here: its network must be asked."""
