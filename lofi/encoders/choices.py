"""The recipe's `encoder:` block: one dataclass per encoder, and the function that builds it.

An encoder's module and the library that it is made of (torchvision, timm) are imported when it is built and not
before, so that a command pays for the encoder that its recipe names alone. The encoders that are built here are bare:
`build.build_encoder` loads their weights and freezes what does not learn.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from lofi.encoders.freezing import NormMode
from lofi.encoders.options import check_choice, check_encoder_options, check_lora
from lofi.encoders.videomae_sizes import SIZES


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """The `tiny` encoder. Its norms are per snippet: there is nothing to freeze."""

    channels: tuple[int, ...] = (16, 32, 64)
    """Channels of the three stages; the last is D."""
    dropout: float = 0.0
    """Share of a feature's elements set to zero in training, in [0, 1)."""
    weights: str | None = None
    """Initial weights: a file of this program or a run directory; none is random."""
    allow_unmatched: tuple[str, ...] = ()
    """Tensors that need not match those of `weights`: names of the file or of the encoder, * for any run of characters."""
    frozen_stages: int = 0
    """First stages that do not learn: 0 to 3."""

    def __post_init__(self) -> None:
        if len(self.channels) != 3 or min(self.channels) < 1:
            raise ValueError(
                f"encoder.channels is {list(self.channels)}; it must be three numbers, each at least 1."
            )
        check_encoder_options(self, num_stages=3)


def build_tiny(config: TinyConfig) -> nn.Module:
    from lofi.encoders.tiny import Tiny

    return Tiny(channels=tuple(config.channels), dropout=config.dropout)


@dataclass(frozen=True, kw_only=True)
class TsmConfig:
    """The `tsm` encoder; D is the width that the network gives to its last linear layer: 512 for ResNet-18 and 34, 2048 for 50."""

    library: Literal["torchvision", "timm"] = "torchvision"
    """Whose network."""
    network: str = "resnet18"
    """The library's name of a ResNet, ResNeXt, RegNet or ConvNeXt, such as resnext50_32x4d, convnext_tiny, regnety_032."""
    temporal_shift_fraction: float = 0.125
    """Share of the channels shifted each way, 0 to 0.5; 0 is the image network per frame. TSM's weights need 0.125."""
    dropout: float = 0.0
    """Share of a feature's elements set to zero in training, in [0, 1)."""
    weights: str | None = None
    """Initial weights: a file, a run directory, or a name such as torchvision:DEFAULT (`weights/sources.py`); none is random."""
    allow_unmatched: tuple[str, ...] = ()
    """Tensors that need not match those of `weights`: names of the file or of the encoder, * for any run of characters."""
    norm: NormMode = "frozen"
    """Batch norms: frozen, affine (statistics frozen, weights learn) or train. Without effect on ConvNeXt, which has none."""
    frozen_stages: int = 0
    """First stages that do not learn: 0 to 5; the stem is the first."""

    def __post_init__(self) -> None:
        check_choice("library", self.library, ("torchvision", "timm"))
        check_encoder_options(self, num_stages=5)


def build_tsm(config: TsmConfig) -> nn.Module:
    from lofi.encoders.tsm import Tsm

    return Tsm(
        library=config.library,
        network=config.network,
        temporal_shift_fraction=config.temporal_shift_fraction,
        dropout=config.dropout,
    )


@dataclass(frozen=True, kw_only=True)
class R2plus1dConfig:
    """The `r2plus1d` encoder; D is 512."""

    depth: Literal[18, 34] = 18
    """Layers. torchvision has weights for 18."""
    layout: Literal["published", "mmaction2"] = "published"
    """Whose network of 34 layers: that of TSP's and other weights, or MMAction2's."""
    dropout: float = 0.0
    """Share of a feature's elements set to zero in training, in [0, 1)."""
    weights: str | None = None
    """Initial weights: a file, a run directory, or a name such as torchvision:DEFAULT (`weights/sources.py`); none is random."""
    allow_unmatched: tuple[str, ...] = ()
    """Tensors that need not match those of `weights`: names of the file or of the encoder, * for any run of characters."""
    norm: NormMode = "frozen"
    """Batch norms: frozen, affine (statistics frozen, weights learn) or train."""
    frozen_stages: int = 0
    """First stages that do not learn: 0 to 5; the stem is the first."""

    def __post_init__(self) -> None:
        if self.depth not in (18, 34):
            raise ValueError(f"encoder.depth is {self.depth}; it must be 18 or 34.")
        check_choice("layout", self.layout, ("published", "mmaction2"))
        if self.layout == "mmaction2" and self.depth != 34:
            raise ValueError(
                f"encoder.layout: mmaction2 has 34 layers, not {self.depth}; set encoder.depth: 34."
            )
        check_encoder_options(self, num_stages=5)


def build_r2plus1d(config: R2plus1dConfig) -> nn.Module:
    from lofi.encoders.video_resnet import open_r2plus1d

    return open_r2plus1d(depth=config.depth, layout=config.layout, dropout=config.dropout)


@dataclass(frozen=True, kw_only=True)
class Resnet3dConfig:
    """The `resnet3d` encoder; D is 512."""

    network: Literal["r3d_18", "mc3_18"] = "r3d_18"
    """torchvision's name."""
    dropout: float = 0.0
    """Share of a feature's elements set to zero in training, in [0, 1)."""
    weights: str | None = None
    """Initial weights: a file, a run directory, or torchvision:NAME; none is random."""
    allow_unmatched: tuple[str, ...] = ()
    """Tensors that need not match those of `weights`: names of the file or of the encoder, * for any run of characters."""
    norm: NormMode = "frozen"
    """Batch norms: frozen, affine (statistics frozen, weights learn) or train."""
    frozen_stages: int = 0
    """First stages that do not learn: 0 to 5; the stem is the first."""

    def __post_init__(self) -> None:
        check_choice("network", self.network, ("r3d_18", "mc3_18"))
        check_encoder_options(self, num_stages=5)


def build_resnet3d(config: Resnet3dConfig) -> nn.Module:
    from lofi.encoders.video_resnet import open_resnet3d

    return open_resnet3d(network=config.network, dropout=config.dropout)


@dataclass(frozen=True, kw_only=True)
class S3dConfig:
    """The `s3d` encoder; D is 1024."""

    dropout: float = 0.0
    """Share of a feature's elements set to zero in training, in [0, 1)."""
    weights: str | None = None
    """Initial weights: a file, a run directory, or torchvision:NAME; none is random."""
    allow_unmatched: tuple[str, ...] = ()
    """Tensors that need not match those of `weights`: names of the file or of the encoder, * for any run of characters."""
    norm: NormMode = "frozen"
    """Batch norms: frozen, affine (statistics frozen, weights learn) or train."""
    frozen_stages: int = 0
    """First stages that do not learn: 0 to 5; the stem is the first."""

    def __post_init__(self) -> None:
        check_encoder_options(self, num_stages=5)


def build_s3d(config: S3dConfig) -> nn.Module:
    from lofi.encoders.s3d import S3d

    return S3d(dropout=config.dropout)


@dataclass(frozen=True, kw_only=True)
class Swin3dConfig:
    """The `swin3d` encoder. Its norms are per position: there is nothing to freeze."""

    size: Literal["tiny", "small", "base"] = "tiny"
    """Video Swin T, S, B. D is 768, 768, 1024."""
    drop_path: float = 0.0
    """Share of the snippets for which the last block's branches are dropped in training, rising from 0; in [0, 1)."""
    dropout: float = 0.0
    """Share of a feature's elements set to zero in training, in [0, 1)."""
    weights: str | None = None
    """Initial weights: a file, a run directory, or torchvision:NAME; none is random."""
    allow_unmatched: tuple[str, ...] = ()
    """Tensors that need not match those of `weights`: names of the file or of the encoder, * for any run of characters."""
    frozen_stages: int = 0
    """First stages that do not learn: 0 to 5; the patches' embedding is the first."""

    def __post_init__(self) -> None:
        check_choice("size", self.size, ("tiny", "small", "base"))
        check_encoder_options(self, num_stages=5)


def build_swin3d(config: Swin3dConfig) -> nn.Module:
    from lofi.encoders.swin3d import NETWORKS, Swin3d

    return Swin3d(network=NETWORKS[config.size], drop_path=config.drop_path, dropout=config.dropout)


@dataclass(frozen=True, kw_only=True)
class MvitConfig:
    """The `mvit` encoder (v2, S); D is 768. Its norms are per position: there is nothing to freeze."""

    drop_path: float = 0.0
    """Share of the snippets for which the last block's branches are dropped in training, rising from 0; in [0, 1)."""
    dropout: float = 0.0
    """Share of a feature's elements set to zero in training, in [0, 1)."""
    weights: str | None = None
    """Initial weights: a file, a run directory, or torchvision:NAME; none is random."""
    allow_unmatched: tuple[str, ...] = ()
    """Tensors that need not match those of `weights`: names of the file or of the encoder, * for any run of characters."""
    frozen_stages: int = 0
    """First stages that do not learn: the patches' embedding, then each of 16 blocks."""

    def __post_init__(self) -> None:
        check_encoder_options(self, num_stages=17)


def build_mvit(config: MvitConfig) -> nn.Module:
    from lofi.encoders.mvit import Mvit

    return Mvit(drop_path=config.drop_path, dropout=config.dropout)


@dataclass(frozen=True, kw_only=True)
class VideomaeConfig:
    """The `videomae` encoder. Its norms are per tubelet: there is nothing to freeze."""

    size: Literal["small", "base", "large", "huge", "giant"] = "base"
    """ViT-S, B, L, H, g. D is 384, 768, 1024, 1280, 1408."""
    feature: Literal["snippet", "tubelet"] = "snippet"
    """snippet: one vector per snippet; tubelet: one for each 2 frames of it, so that a head sees L * T / 2 positions. tubelet needs
    snippets that touch (grid.spread_frames)."""
    adapters: Literal["none", "beside", "alone"] = "none"
    """Bottlenecks with a temporal convolution after each block: none, beside weights that learn, or alone (all else is
    frozen)."""
    lora_rank: int = 0
    """Rank of LoRA's updates of the attention's layers (4 to 32 are usual); they and the norms are then all that learns. 0: none."""
    drop_path: float = 0.0
    """Share of the snippets for which the last block's branches are dropped in training, rising from 0; in [0, 1)."""
    dropout: float = 0.0
    """Share of a feature's elements set to zero in training, in [0, 1)."""
    weights: str | None = None
    """Initial weights: a file or a run directory; none is random."""
    allow_unmatched: tuple[str, ...] = ()
    """Tensors that need not match those of `weights`: names of the file or of the encoder, * for any run of characters."""
    frozen_stages: int = 0
    """First stages that do not learn: the embedding, then each block."""

    def __post_init__(self) -> None:
        check_choice("size", self.size, SIZES)
        check_choice("adapters", self.adapters, ("none", "beside", "alone"))
        check_choice("feature", self.feature, ("snippet", "tubelet"))
        check_encoder_options(self, num_stages=SIZES[self.size].depth + 1)
        check_lora(self)
        if self.lora_rank and self.adapters != "none":
            raise ValueError(
                f"encoder.lora_rank is {self.lora_rank} and encoder.adapters: {self.adapters}; take one of the two."
            )
        if self.frozen_stages and self.adapters == "alone":
            raise ValueError(
                f"encoder.frozen_stages is {self.frozen_stages}, which has no effect with encoder.adapters: alone, where "
                "everything else is frozen; remove it."
            )


def build_videomae(config: VideomaeConfig) -> nn.Module:
    from lofi.encoders.videomae import Videomae

    return Videomae(
        SIZES[config.size],
        has_adapters=config.adapters != "none",
        adapters_alone=config.adapters == "alone",
        lora_rank=config.lora_rank,
        feature_per_tubelet=config.feature == "tubelet",
        drop_path=config.drop_path,
        dropout=config.dropout,
    )


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """The `image` encoder; D is the model's own width."""

    network: str = "vit_small_patch16_224"
    """timm's name, such as vit_base_patch16_clip_224.openai, vit_small_patch14_dinov2.lvd142m, convnextv2_tiny."""
    temporal: Literal["mean", "convolution"] = "mean"
    """mean: of the frames' vectors; convolution: a bottleneck with a convolution over the frames before that."""
    feature: Literal["snippet", "frame"] = "snippet"
    """snippet: one vector per snippet; frame: one for each frame, without the mean, so that a head sees L * T positions. frame needs
    snippets that touch (grid.spread_frames)."""
    lora_rank: int = 0
    """Of vision transformers: rank of LoRA's updates of the attention's layers (4 to 32 are usual); they, the norms and the
    temporal convolution are then all that learns. 0: none."""
    dropout: float = 0.0
    """Share of a feature's elements set to zero in training, in [0, 1)."""
    weights: str | None = None
    """Initial weights: a file, a run directory, or a library's name; none is random."""
    allow_unmatched: tuple[str, ...] = ()
    """Tensors that need not match those of `weights`: names of the file or of the encoder, * for any run of characters."""
    norm: NormMode = "frozen"
    """Batch norms, where the model has any: frozen, affine (statistics frozen, weights learn) or train."""
    frozen_stages: int = 0
    """First stages that do not learn: of a vision transformer its embedding, then each block; else 0, or 1 for the model."""

    def __post_init__(self) -> None:
        check_choice("temporal", self.temporal, ("mean", "convolution"))
        check_choice("feature", self.feature, ("snippet", "frame"))
        check_encoder_options(self)
        check_lora(self)


def build_image(config: ImageConfig) -> nn.Module:
    from lofi.encoders.image import ImageEncoder

    return ImageEncoder(
        network=config.network,
        has_convolution=config.temporal == "convolution",
        dropout=config.dropout,
        lora_rank=config.lora_rank,
        feature_per_frame=config.feature == "frame",
    )
