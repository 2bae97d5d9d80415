"""Keys and shapes of public checkpoints, as their projects' module definitions give them: no file of theirs is needed.

Each function returns key -> shape, and names the definition that it was read from.
"""

import re

import timm
import torch
import torchvision

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def filled(shapes, *, seed=0, scale=0.05):
    """Random tensors of these shapes. Running variances are so small that an epsilon shows, weights of batch norms then too, so
    that values stay finite; those of other norms lie near 1."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
            continue
        value = torch.randn(shape, generator=generator) * scale
        if key.endswith("running_var"):
            value = value.abs() + 0.02
        elif key.endswith("weight") and len(shape) == 1:
            value = value + (0.15 if key.replace("weight", "running_var") in shapes else 1)
        state[key] = value
    return state


def unfilled(shapes):
    """Tensors of these shapes that take no memory."""
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def prefixed(prefix, shapes):
    return {prefix + key: shape for key, shape in shapes.items()}


def layer(name, *shape, bias=True):
    return {f"{name}.weight": shape, **({f"{name}.bias": (shape[0],)} if bias else {})}


def norm(name, width):
    return layer(name, width)


def batch_norm(name, width):
    return {f"{name}.{part}": (width,) for part in BATCH_NORM} | {f"{name}.num_batches_tracked": ()}


def videomae_encoder(*, width, depth, patch=16, hidden=None):
    """VisionTransformer of modeling_finetune.py, github.com/MCG-NJU/VideoMAE (V2's is the same), without norm and head."""
    hidden = hidden or 4 * width
    shapes = layer("patch_embed.proj", width, 3, 2, patch, patch)
    for index in range(depth):
        block = f"blocks.{index}"
        shapes |= norm(f"{block}.norm1", width)
        shapes |= {f"{block}.attn.q_bias": (width,), f"{block}.attn.v_bias": (width,)}
        shapes |= layer(f"{block}.attn.qkv", 3 * width, width, bias=False)
        shapes |= layer(f"{block}.attn.proj", width, width)
        shapes |= norm(f"{block}.norm2", width)
        shapes |= layer(f"{block}.mlp.fc1", hidden, width) | layer(f"{block}.mlp.fc2", width, hidden)
    return shapes


def videomae_finetuned(*, classes=400, **size):
    width = size["width"]
    return videomae_encoder(**size) | norm("fc_norm", width) | layer("head", classes, width)


def videomae_pretrained(*, decoder_width=8, decoder_depth=1, patch=16, **size):
    """PretrainVisionTransformer of modeling_pretrain.py."""
    width = size["width"]
    decoder = videomae_encoder(width=decoder_width, depth=decoder_depth, patch=patch)
    decoder = {key: shape for key, shape in decoder.items() if not key.startswith("patch_embed")}
    return (
        prefixed("encoder.", videomae_encoder(patch=patch, **size) | norm("norm", width))
        | prefixed("decoder.", decoder | norm("norm", decoder_width))
        | prefixed("decoder.", layer("head", 3 * 2 * patch * patch, decoder_width))
        | layer("encoder_to_decoder", decoder_width, width, bias=False)
        | {"mask_token": (1, 1, decoder_width)}
    )


def hugging_face_videomae(*, width, depth, patch=16, classes=400):
    """VideoMAEForVideoClassification of transformers (convert_videomae_to_pytorch.py has the names)."""
    shapes = layer("videomae.embeddings.patch_embeddings.projection", width, 3, 2, patch, patch)
    for index in range(depth):
        block = f"videomae.encoder.layer.{index}"
        attention = f"{block}.attention.attention"
        shapes |= {f"{attention}.q_bias": (width,), f"{attention}.v_bias": (width,)}
        for part in ("query", "key", "value"):
            shapes |= layer(f"{attention}.{part}", width, width, bias=False)
        shapes |= layer(f"{block}.attention.output.dense", width, width)
        shapes |= layer(f"{block}.intermediate.dense", 4 * width, width)
        shapes |= layer(f"{block}.output.dense", width, 4 * width)
        shapes |= norm(f"{block}.layernorm_before", width) | norm(f"{block}.layernorm_after", width)
    return shapes | norm("fc_norm", width) | layer("classifier", classes, width)


def mmaction2_videomae(*, width, depth, patch=16, classes=400):
    """VisionTransformer of mmaction/models/backbones/vit_mae.py, with mmcv's FFN; without its position table."""
    shapes = layer("patch_embed.projection", width, 3, 2, patch, patch)
    for index in range(depth):
        block = f"blocks.{index}"
        shapes |= norm(f"{block}.norm1", width)
        shapes |= {f"{block}.attn.q_bias": (width,), f"{block}.attn.v_bias": (width,)}
        shapes |= layer(f"{block}.attn.qkv", 3 * width, width, bias=False)
        shapes |= layer(f"{block}.attn.proj", width, width)
        shapes |= norm(f"{block}.norm2", width)
        shapes |= layer(f"{block}.mlp.layers.0.0", 4 * width, width)
        shapes |= layer(f"{block}.mlp.layers.1", width, 4 * width)
    return prefixed("backbone.", shapes | norm("fc_norm", width)) | layer("cls_head.fc_cls", classes, width)


def mmaction2_swin(*, width, depths, heads, window=(8, 7, 7), classes=400, last_norm="norm3"):
    """SwinTransformer3D of mmaction/models/backbones/swin.py; the Video-Swin-Transformer repository says `norm` for `norm3`."""
    volume = window[0] * window[1] * window[2]
    table = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
    shapes = layer("patch_embed.proj", width, 3, 2, 4, 4) | norm("patch_embed.norm", width)
    for stage, (depth, num_heads) in enumerate(zip(depths, heads, strict=True)):
        wide = width * 2**stage
        for index in range(depth):
            block = f"layers.{stage}.blocks.{index}"
            shapes |= norm(f"{block}.norm1", wide)
            shapes |= {f"{block}.attn.relative_position_bias_table": (table, num_heads)}
            shapes |= {f"{block}.attn.relative_position_index": (volume, volume)}
            shapes |= layer(f"{block}.attn.qkv", 3 * wide, wide) | layer(f"{block}.attn.proj", wide, wide)
            shapes |= norm(f"{block}.norm2", wide)
            shapes |= layer(f"{block}.mlp.fc1", 4 * wide, wide) | layer(f"{block}.mlp.fc2", wide, 4 * wide)
        if stage < len(depths) - 1:
            shapes |= layer(f"layers.{stage}.downsample.reduction", 2 * wide, 4 * wide, bias=False)
            shapes |= norm(f"layers.{stage}.downsample.norm", 4 * wide)
    shapes |= norm(last_norm, wide)
    return prefixed("backbone.", shapes) | layer("cls_head.fc_cls", classes, wide)


def conv_2plus1d(name, num_in, num_out, *, kernel):
    """Conv2plus1d of mmaction/models/common/conv2plus1d.py: middle channels by its own widths and kernel."""
    time, side = kernel
    middle = int(3 * num_in * num_out * side * side / (num_in * side * side + 3 * num_out))
    return (
        layer(f"{name}.conv_s", middle, num_in, 1, side, side, bias=False)
        | batch_norm(f"{name}.bn_s", middle)
        | layer(f"{name}.conv_t", num_out, middle, time, 1, 1, bias=False)
    )


def mmaction2_r2plus1d(*, blocks=(3, 4, 6, 3), base=64, classes=400):
    """ResNet2Plus1d with the settings of configs/_base_/models/r2plus1d_r34.py."""
    shapes = conv_2plus1d("conv1.conv", 3, base, kernel=(3, 7)) | batch_norm("conv1.bn", base)
    width = base
    for stage, num_blocks in enumerate(blocks):
        wide = base * 2**stage
        for index in range(num_blocks):
            block = f"layer{stage + 1}.{index}"
            shapes |= conv_2plus1d(f"{block}.conv1.conv", width, wide, kernel=(3, 3))
            shapes |= batch_norm(f"{block}.conv1.bn", wide)
            shapes |= conv_2plus1d(f"{block}.conv2.conv", wide, wide, kernel=(3, 3))
            shapes |= batch_norm(f"{block}.conv2.bn", wide)
            if width != wide:
                shapes |= conv_2plus1d(f"{block}.downsample.conv", width, wide, kernel=(1, 1))
                shapes |= batch_norm(f"{block}.downsample.bn", wide)
            width = wide
    return prefixed("backbone.", shapes) | layer("cls_head.fc_cls", classes, width)


def tsp_r2plus1d(*, blocks, own_middle, heads):
    """TSP's Model around torchvision's VideoResNet, and for 34 layers around ig65m's: its second convolutions of a stage's first
    block have middle channels of their own (288, 576, 1152), torchvision's 18 the first one's (230, 460, 921)."""
    shapes = layer("stem.0", 45, 3, 1, 7, 7, bias=False) | batch_norm("stem.1", 45)
    shapes |= layer("stem.3", 64, 45, 3, 1, 1, bias=False) | batch_norm("stem.4", 64)
    middles = {(64, 64): 144, (64, 128): 230, (128, 128): 288, (128, 256): 460, (256, 256): 576}
    middles |= {(256, 512): 921, (512, 512): 1152}
    width = 64
    for stage, num_blocks in enumerate(blocks):
        wide = 64 * 2**stage
        for index in range(num_blocks):
            block = f"layer{stage + 1}.{index}"
            first = middles[width, wide]
            second = middles[wide, wide] if own_middle else first
            for number, num_in, middle in ((1, width, first), (2, wide, second)):
                shapes |= layer(f"{block}.conv{number}.0.0", middle, num_in, 1, 3, 3, bias=False)
                shapes |= batch_norm(f"{block}.conv{number}.0.1", middle)
                shapes |= layer(f"{block}.conv{number}.0.3", wide, middle, 3, 1, 1, bias=False)
                shapes |= batch_norm(f"{block}.conv{number}.1", wide)
            if width != wide:
                shapes |= layer(f"{block}.downsample.0", wide, width, 1, 1, 1, bias=False)
                shapes |= batch_norm(f"{block}.downsample.1", wide)
            width = wide
    return prefixed("features.", shapes) | {key: shape for head in heads for key, shape in head.items()}


def library(network, *, of="torchvision"):
    """A network of torchvision or timm by name, head and all."""
    create = torchvision.models.get_model if of == "torchvision" else timm.create_model
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in create(network).state_dict().items()}


def as_tsm(state):
    """torchvision's ResNet -> the names of the temporal-shift-module project: data parallel, shifted convolutions wrapped, a new
    head. Of tensors or shapes."""
    renamed = {}
    for key, value in state.items():
        if key.startswith("fc."):
            renamed[f"module.new_{key}"] = value
        else:
            key = re.sub(r"^(layer\d\.\d+\.conv1)\.", r"\1.net.", key)
            renamed[f"module.base_model.{key}"] = value
    return renamed


def as_mmaction2_tsm(state):
    """torchvision's ResNet -> the names of MMAction2's ResNetTSM: convolution and norm inside one module. Of tensors or shapes."""
    renamed = {}
    for key, value in state.items():
        if key.startswith("fc."):
            renamed[f"cls_head.fc_cls.{key.removeprefix('fc.')}"] = value
            continue
        key = re.sub(r"downsample\.0\.", "downsample.conv.", key)
        key = re.sub(r"downsample\.1\.", "downsample.bn.", key)
        key = re.sub(r"^(layer\d\.\d+)\.conv1\.", r"\1.conv1.conv.net.", key)
        key = re.sub(r"^(layer\d\.\d+)\.conv([23])\.", r"\1.conv\2.conv.", key)
        key = re.sub(r"^conv1\.", "conv1.conv.", key)
        key = re.sub(r"(^|\.)bn(\d)\.", r"\1conv\2.bn.", key)
        renamed[f"backbone.{key}"] = value
    return renamed
