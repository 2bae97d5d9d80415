"""Snippet encoders: a short run of frames -> ONE vector. `build.build_encoder` makes one ready for use."""

from typing import Any

from lofi.encoders.choices import (
    ImageConfig,
    MvitConfig,
    R2plus1dConfig,
    Resnet3dConfig,
    S3dConfig,
    Swin3dConfig,
    TinyConfig,
    TsmConfig,
    VideomaeConfig,
    build_image,
    build_mvit,
    build_r2plus1d,
    build_resnet3d,
    build_s3d,
    build_swin3d,
    build_tiny,
    build_tsm,
    build_videomae,
)

ENCODERS: dict[str, tuple[type[Any], Any]] = {
    "tiny": (TinyConfig, build_tiny),
    "tsm": (TsmConfig, build_tsm),
    "r2plus1d": (R2plus1dConfig, build_r2plus1d),
    "resnet3d": (Resnet3dConfig, build_resnet3d),
    "s3d": (S3dConfig, build_s3d),
    "swin3d": (Swin3dConfig, build_swin3d),
    "mvit": (MvitConfig, build_mvit),
    "videomae": (VideomaeConfig, build_videomae),
    "image": (ImageConfig, build_image),
}

FORMER_ENCODERS = {
    "tsm_resnet": "tsm with network: resnet18, resnet34 or resnet50 (once its depth), and names its tensors otherwise. "
    "The weights of its runs load by encoder.weights: RUN; the run itself is for the version that trained it",
}
"""A name that recipes and manifests of earlier versions have -> what it is now."""
