"""Gradient paths: how the loss reaches the snippet encoder. The same protocol, so the difference IS the method."""

from lofi.gradients.choices import (
    CheckpointedConfig,
    ChunkedConfig,
    DetachedConfig,
    JointConfig,
    SampledConfig,
    build_checkpointed,
    build_chunked,
    build_detached,
    build_joint,
    build_sampled,
)

GRADIENTS = {
    "joint": (JointConfig, build_joint),
    "checkpointed": (CheckpointedConfig, build_checkpointed),
    "chunked": (ChunkedConfig, build_chunked),
    "sampled": (SampledConfig, build_sampled),
    "detached": (DetachedConfig, build_detached),
}
