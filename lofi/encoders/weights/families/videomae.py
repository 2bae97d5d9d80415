"""Weights of VideoMAE (Tong et al., NeurIPS 2022) and VideoMAE V2: their own files, MMAction2's and Hugging Face's.

All three have separate biases of queries and values, none of keys; here they are one bias of `qkv` with zeros
between, as timm's attention wants it. A fine-tuned model ends in `fc_norm` (on the mean of its tokens) and a head. A
pre-trained one has its encoder under `encoder.`, a decoder, and a norm of every token in place of `fc_norm`: like
VideoMAE's own fine-tuning we do not use that norm, and `fc_norm` starts as built. The position table is the fixed
sine table and not read; a learnt one is no such table and does not fit.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lofi.encoders.position_table import sine_table
from lofi.encoders.weights.families.family import OLD_HEAD, Family, Renames, Translated, rename_keys

PREFIX = r"^(model\.|module\.|encoder\.|backbone\.)?"

PRETRAINING = "of the decoder of pre-training"
TOKEN_NORM = "the norm of every token, which pre-training has and a mean-pooled encoder has not"
SINE_TABLE = "the sine position table, which the encoder computes"

DROPPED = (
    (r"^(decoder\.|encoder_to_decoder\.|mask_token$)", PRETRAINING),
    (PREFIX + r"norm\.", TOKEN_NORM),
    (PREFIX + r"(head|cls_head)\.", OLD_HEAD),
)

HUGGING_FACE_DROPPED = (
    (r"^(decoder\.|encoder_to_decoder\.|mask_token$|position_embeddings$)", PRETRAINING),
    (r"^(videomae\.)?layernorm\.", TOKEN_NORM),
    (r"^classifier\.", OLD_HEAD),
)


def translate_videomae(state: Mapping[str, Tensor]) -> Translated:
    """VideoMAE's own files, pre-trained or fine-tuned."""
    return _translate(state, renames=((PREFIX, ""),), dropped=DROPPED)


def translate_mmaction2(state: Mapping[str, Tensor]) -> Translated:
    """MMAction2's VisionTransformer (mmaction/models/backbones/vit_mae.py)."""
    renames = (
        (PREFIX, ""),
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"\.mlp\.layers\.0\.0\.", ".mlp.fc1."),
        (r"\.mlp\.layers\.1\.", ".mlp.fc2."),
    )
    return _translate(state, renames=renames, dropped=DROPPED)


def translate_hugging_face(state: Mapping[str, Tensor]) -> Translated:
    """`VideoMAEForVideoClassification`, `VideoMAEForPreTraining` and `VideoMAEModel` of transformers."""
    renames = (
        (r"^videomae\.", ""),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^encoder\.layer\.", "blocks."),
        (r"\.attention\.attention\.", ".attn."),
        (r"\.attention\.output\.dense\.", ".attn.proj."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
    )
    return _translate(state, renames=renames, dropped=HUGGING_FACE_DROPPED)


def _translate(
    state: Mapping[str, Tensor], *, renames: Renames, dropped: tuple[tuple[str, str], ...]
) -> Translated:
    renamed = rename_keys(state, renames=renames, dropped=dropped)
    tensors, keys, left_out = dict(renamed.tensors), dict(renamed.keys), dict(renamed.dropped)

    def join(name: str, parts: dict[str, Tensor], sources: list[str]) -> None:
        tensors[name] = torch.cat(list(parts.values()))
        keys[name] = tuple(key for source in sources for key in keys.pop(source))
        for source in sources:
            del tensors[source]

    for attention in sorted(
        {match[1] for name in tensors if (match := re.match(r"(blocks\.\d+\.attn)\.", name))}
    ):
        weights = [f"{attention}.{part}.weight" for part in ("query", "key", "value")]
        if all(name in tensors for name in weights):
            join(f"{attention}.qkv.weight", {name: tensors[name] for name in weights}, weights)
        biases = [f"{attention}.q_bias", f"{attention}.v_bias"]
        if all(name in tensors for name in biases):
            query, value = (tensors[name] for name in biases)
            parts = {"query": query, "key": torch.zeros_like(value), "value": value}
            join(f"{attention}.qkv.bias", parts, biases)
    position = tensors.get("pos_embed")
    if position is not None and position.ndim == 3 and len(position) == 1:
        table = sine_table(position.shape[1], width=position.shape[2])
        if torch.allclose(position[0].float(), table, atol=1e-3):
            left_out[keys.pop("pos_embed")[0]] = SINE_TABLE
            del tensors["pos_embed"]
    is_pretrained = TOKEN_NORM in left_out.values() and not any(
        name.startswith("fc_norm.") for name in tensors
    )
    reason = "pre-training has none; it starts as built, as in VideoMAE's own fine-tuning"
    fresh = {f"fc_norm.{part}": reason for part in ("weight", "bias")} if is_pretrained else {}
    return Translated(tensors=tensors, keys=keys, dropped=left_out, fresh=fresh)


VIDEOMAE = Family(
    name="videomae",
    source="VideoMAE's own repository (V1 or V2)",
    marker=r"^((model|module|encoder)\.)?blocks\.\d+\.attn\.q_bias$",
    translate=translate_videomae,
)

MMACTION2_VIDEOMAE = Family(
    name="mmaction2 videomae",
    source="MMAction2's VideoMAE",
    marker=r"^backbone\.blocks\.\d+\.attn\.q_bias$",
    translate=translate_mmaction2,
)

HUGGING_FACE_VIDEOMAE = Family(
    name="hugging face videomae",
    source="Hugging Face transformers' VideoMAE",
    marker=r"^(videomae\.)?embeddings\.patch_embeddings\.projection\.",
    translate=translate_hugging_face,
)
