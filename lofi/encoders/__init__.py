"""Snippet encoders: a short run of frames -> ONE vector. `build.build_encoder` makes one ready for use."""

from typing import Any

from lofi.encoders.image import ImageConfig, build_image
from lofi.encoders.mvit import MvitConfig, build_mvit
from lofi.encoders.r2plus1d import R2plus1dConfig, build_r2plus1d
from lofi.encoders.resnet3d import Resnet3dConfig, build_resnet3d
from lofi.encoders.s3d import S3dConfig, build_s3d
from lofi.encoders.swin3d import Swin3dConfig, build_swin3d
from lofi.encoders.tiny import TinyConfig, build_tiny
from lofi.encoders.tsm import TsmConfig, build_tsm
from lofi.encoders.tsm_resnet import TsmResnetConfig, build_tsm_resnet
from lofi.encoders.videomae import VideomaeConfig, build_videomae

ENCODERS: dict[str, tuple[type[Any], Any]] = {
    "tiny": (TinyConfig, build_tiny),
    "tsm_resnet": (TsmResnetConfig, build_tsm_resnet),
    "tsm": (TsmConfig, build_tsm),
    "r2plus1d": (R2plus1dConfig, build_r2plus1d),
    "resnet3d": (Resnet3dConfig, build_resnet3d),
    "s3d": (S3dConfig, build_s3d),
    "swin3d": (Swin3dConfig, build_swin3d),
    "mvit": (MvitConfig, build_mvit),
    "videomae": (VideomaeConfig, build_videomae),
    "image": (ImageConfig, build_image),
}
