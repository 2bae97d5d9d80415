"""Any image model of timm, frame by frame: for domains with good image encoders (CLIP, DINO, SigLIP, ...).

A snippet's feature is the mean of its frames' features (what the model gives to its last linear layer), or the mean
after a bottleneck with a convolution over the frames (`temporal_adapter`), which can see order and starts as the
plain mean.

timm's plain vision transformers take any size that their patches divide: their position tables are interpolated by
timm (bicubic). They are checkpointed, frozen and given learning rates block by block; any other model is one block
and one stage.

frames (N,3,T,H,W) uint8 -> (N*T,3,H,W) float -> the image model -> (N,T,D) [-> temporal convolution] -> mean (N,D),
or (N,T,D) with a feature per frame.
"""

from functools import partial
from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lofi.encoders.dropout import SnippetDropout, remove_drop_path
from lofi.encoders.input_sizes import InputSizes
from lofi.encoders.lora import add_lora
from lofi.encoders.normalize_frames import NormalizeFrames
from lofi.encoders.open_network import open_network
from lofi.encoders.temporal_adapter import TemporalAdapter
from lofi.fidelity import Fidelity
from lofi.protocols import RunBlock, call_block


class ImageEncoder(nn.Module):
    """A `protocols.SnippetEncoder`."""

    def __init__(
        self,
        *,
        network: str,
        has_convolution: bool = False,
        dropout: float = 0.0,
        lora_rank: int = 0,
        feature_per_frame: bool = False,
    ) -> None:
        super().__init__()
        self.timm_name = network
        model: Any = _open_network(network)
        _refuse_draws(model, network)
        about = model.pretrained_cfg
        self.network = model
        self.feature_width: int = model.head_hidden_size
        self.has_temporal_convolution = has_convolution
        self.is_vit = isinstance(model, VisionTransformer)
        self.fixed_size = (
            None if self.is_vit or not about.get("fixed_input_size") else about["input_size"][1:]
        )
        self.input_sizes = _input_sizes(model, network)
        self.normalize = NormalizeFrames(mean=about["mean"], std=about["std"])
        self.adapter = TemporalAdapter(self.feature_width) if has_convolution else None
        self.dropout = SnippetDropout(dropout)
        self.frames_per_feature = 1 if feature_per_frame else None
        if lora_rank:
            if not (self.is_vit and all(hasattr(block, "attn") for block in model.blocks)):
                raise ValueError(
                    f"encoder.lora_rank is {lora_rank}, but {network} is no plain vision transformer, with one "
                    "attention in each block; set it to 0."
                )
            add_lora(self, model.blocks, rank=lora_rank)

    @property
    def stages(self) -> list[nn.Module]:
        """What `frozen_stages` counts."""
        network: Any = self.network
        return [network.patch_embed, *network.blocks] if self.is_vit else [network]

    @property
    def all_blocks(self) -> list[nn.Module]:
        """What `run_block` runs, in order."""
        network: Any = self.network
        blocks = [*self.stages, network.norm] if self.is_vit else [network]
        return blocks if self.adapter is None else [*blocks, self.adapter]

    def forward(
        self, frames: Tensor, *, snippet_seeds: Tensor | None = None, run_block: RunBlock = call_block
    ) -> Tensor:
        """frames (N, 3, T, H, W) uint8 -> (N, D) or (N, T, D); see `protocols.SnippetEncoder`."""
        x_FCHW = self.normalize(frames, order="NTCHW").flatten(0, 1)
        num_frames = frames.shape[2]
        features_FD = self._vit(x_FCHW, run_block) if self.is_vit else run_block(self.network, x_FCHW)
        features_NTD = features_FD.unflatten(0, (-1, num_frames))
        if self.adapter is not None:
            features_NTD = run_block(self.adapter, features_NTD, num_frames)
        features = features_NTD.mean(dim=1) if self.frames_per_feature is None else features_NTD
        return self.dropout(features, snippet_seeds=snippet_seeds)

    def _vit(self, x: Tensor, run_block: RunBlock) -> Tensor:
        """timm's `forward`, block by block."""
        network: Any = self.network
        x = network.norm_pre(network._pos_embed(run_block(network.patch_embed, x)))
        for block in network.blocks:
            x = run_block(block, x)
        features: Tensor = network.forward_head(run_block(network.norm, x), pre_logits=True)
        return features

    def check_fidelity(self, fidelity: Fidelity) -> None:
        """Sides that a vision transformer's patches divide; the one size of a model that has one; else any."""
        if self.fixed_size is not None and (fidelity.height, fidelity.width) != tuple(self.fixed_size):
            height, width = self.fixed_size
            raise ValueError(
                f"fidelity {fidelity}: {self.timm_name} takes one size alone; nearest usable: height {height}, width {width}."
            )
        self.input_sizes.check(fidelity)


def _open_network(name: str) -> nn.Module:
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise ValueError(
            f"encoder.network is {name!r}, which timm {timm.__version__} lacks"
            + (f"; it has {', '.join(near)}, ..." if near else "")
            + "."
        )
    network = open_network(partial(timm.create_model, name, num_classes=0))
    if isinstance(network, VisionTransformer):
        network = open_network(partial(timm.create_model, name, num_classes=0, dynamic_img_size=True))
    remove_drop_path(network)
    return network


def _input_sizes(network: Any, name: str) -> InputSizes:
    """Single frames of the model's own size; of a vision transformer, whole patches."""
    _, height, width = network.pretrained_cfg["input_size"]
    native = Fidelity(num_snippets=1, frames=1, height=height, width=width)
    if not isinstance(network, VisionTransformer):
        return InputSizes(encoder=name, native=native)
    patch_height, patch_width = network.patch_embed.patch_size
    return InputSizes(
        encoder=name,
        native=native,
        height_unit=patch_height,
        width_unit=patch_width,
        reason=f"has patches of {patch_height} x {patch_width}",
    )


def _refuse_draws(network: nn.Module, name: str) -> None:
    """A model that draws for itself in training would depend on the other snippets of the call."""
    for module in network.modules():
        if isinstance(module, nn.Dropout) and module.p:
            raise ValueError(
                f"encoder.network {name!r} has a dropout of {module.p}, whose draws depend on the other snippets; take another "
                "network."
            )
