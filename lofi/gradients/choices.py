"""The recipe's `gradient:` block: one dataclass per gradient path, and the function that it stands for."""

from dataclasses import dataclass
from functools import partial

from lofi.gradients.checkpointed import encode_checkpointed
from lofi.gradients.chunked import encode_chunked
from lofi.gradients.detached import encode_detached
from lofi.gradients.joint import encode_joint
from lofi.gradients.sampled import encode_sampled
from lofi.protocols import GradientPath


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """All snippets at once, every activation kept. No options."""


@dataclass(frozen=True, kw_only=True)
class CheckpointedConfig:
    """All snippets at once, every block recomputed in the backward pass."""

    offload: bool = False
    """Keep the blocks' inputs in the host's memory: less memory on the device, two copies over the bus per step. (The
    chunked path needs less of both; this is for encoders whose snippets cannot be taken apart.) Without effect on a CPU."""


@dataclass(frozen=True, kw_only=True)
class ChunkedConfig:
    """A chunk of snippets at a time, each recomputed in the backward pass; exact."""

    chunk_size: int = 8
    """Snippets encoded together."""
    checkpoint_blocks: bool = False
    """Also checkpoint each block inside a chunk: less memory, one more forward pass."""

    def __post_init__(self) -> None:
        _check_chunk_size(self.chunk_size)


@dataclass(frozen=True, kw_only=True)
class SampledConfig:
    """A drawn share of the chunks carries gradient."""

    chunk_size: int = 8
    """Snippets encoded, and drawn, together."""
    share: float = 0.3
    """Of the chunks that carry gradient, in (0, 1]."""
    rescale: bool = False
    """Divide the encoder's gradient by the drawn share, which makes it unbiased."""
    recompute: bool = False
    """Recompute the drawn chunks in the backward pass, one at a time: the memory of one chunk, whatever the share."""

    def __post_init__(self) -> None:
        _check_chunk_size(self.chunk_size)
        if not 0 < self.share <= 1:
            raise ValueError(f"gradient.share is {self.share}; it must lie in (0, 1].")
        if self.rescale and self.share == 1:
            raise ValueError("gradient.rescale has no effect with gradient.share: 1; remove it.")


@dataclass(frozen=True, kw_only=True)
class DetachedConfig:
    """The encoder is frozen."""

    chunk_size: int = 64
    """Snippets encoded together; with features from disk it has no effect and must not be set."""

    def __post_init__(self) -> None:
        _check_chunk_size(self.chunk_size)


def build_joint(config: JointConfig) -> GradientPath:
    return encode_joint


def build_checkpointed(config: CheckpointedConfig) -> GradientPath:
    return partial(encode_checkpointed, offload=config.offload)


def build_chunked(config: ChunkedConfig) -> GradientPath:
    return partial(encode_chunked, chunk_size=config.chunk_size, checkpoint_blocks=config.checkpoint_blocks)


def build_sampled(config: SampledConfig) -> GradientPath:
    return partial(
        encode_sampled,
        chunk_size=config.chunk_size,
        share=config.share,
        rescale=config.rescale,
        recompute=config.recompute,
    )


def build_detached(config: DetachedConfig) -> GradientPath:
    return partial(encode_detached, chunk_size=config.chunk_size)


def _check_chunk_size(chunk_size: int) -> None:
    if chunk_size < 1:
        raise ValueError(f"gradient.chunk_size is {chunk_size}; it must be at least 1.")
