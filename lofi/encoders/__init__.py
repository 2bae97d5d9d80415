"""Snippet encoders: a short run of frames -> ONE vector. `build.build_encoder` makes one ready for use."""

from typing import Any

from lofi.encoders.r2plus1d import R2plus1dConfig, build_r2plus1d
from lofi.encoders.tiny import TinyConfig, build_tiny
from lofi.encoders.tsm_resnet import TsmResnetConfig, build_tsm_resnet
from lofi.encoders.videomae import VideomaeConfig, build_videomae

ENCODERS: dict[str, tuple[type[Any], Any]] = {
    "tiny": (TinyConfig, build_tiny),
    "tsm_resnet": (TsmResnetConfig, build_tsm_resnet),
    "r2plus1d": (R2plus1dConfig, build_r2plus1d),
    "videomae": (VideomaeConfig, build_videomae),
}
