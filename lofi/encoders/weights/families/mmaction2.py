"""Weights of MMAction2, whose recognizers have the network under `backbone` and the classifier under `cls_head`.

A convolution and its norm are one module there (`conv1.conv`, `conv1.bn`), a temporal shift wraps the convolution
(`conv1.conv.net`), and a (2+1)D convolution is `conv_s`, `bn_s`, `conv_t`. Its VideoMAE is in `videomae.py`.
"""

from collections.abc import Mapping

from torch import Tensor

from lofi.encoders.weights.families.family import OLD_HEAD, Family, Renames, Translated, rename_keys

DROPPED = ((r"^cls_head\.", OLD_HEAD),)

CONV_AND_NORM: Renames = (
    (r"^backbone\.", ""),
    (r"\.conv\.net\.", ".conv."),
    (r"downsample\.conv\.", "downsample.0."),
    (r"downsample\.bn\.", "downsample.1."),
)

RESNET: Renames = (
    *CONV_AND_NORM,
    (r"conv(\d)\.conv\.", r"conv\1."),
    (r"conv(\d)\.bn\.", r"bn\1."),
)

R2PLUS1D: Renames = (
    *CONV_AND_NORM,
    (r"^conv1\.conv\.conv_s\.", "stem.0."),
    (r"^conv1\.conv\.bn_s\.", "stem.1."),
    (r"^conv1\.conv\.conv_t\.", "stem.3."),
    (r"^conv1\.bn\.", "stem.4."),
    (r"\.conv(\d)\.conv\.", r".conv\1.0."),
    (r"\.conv(\d)\.bn\.", r".conv\1.1."),
    (r"\.conv_s\.", ".0."),
    (r"\.bn_s\.", ".1."),
    (r"\.conv_t\.", ".3."),
)


def translate_resnet(state: Mapping[str, Tensor]) -> Translated:
    """ResNetTSM (and plain ResNet) to torchvision's ResNet."""
    return rename_keys(state, renames=RESNET, dropped=DROPPED)


def translate_r2plus1d(state: Mapping[str, Tensor]) -> Translated:
    """ResNet2Plus1d to the names of torchvision's VideoResNet. It is another network than TSP's and torchvision's: a maximum is
    taken after its stem, and its shortcuts are (2+1)D convolutions too."""
    return rename_keys(state, renames=R2PLUS1D, dropped=DROPPED)


def translate_swin(state: Mapping[str, Tensor]) -> Translated:
    """SwinTransformer3D (also of the Video-Swin-Transformer repository) to torchvision's, which has stages and the mergings
    between them in one list."""
    return rename_keys(state, renames=SWIN, dropped=DROPPED)


SWIN: Renames = (
    (r"^backbone\.", ""),
    (r"^layers\.(\d+)\.blocks\.", lambda match: f"features.{2 * int(match[1])}."),
    (r"^layers\.(\d+)\.downsample\.", lambda match: f"features.{2 * int(match[1]) + 1}."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^norm3\.", "norm."),
)

MMACTION2_SWIN = Family(
    name="mmaction2 swin",
    source="MMAction2's or Video-Swin-Transformer's Swin",
    marker=r"^(backbone\.)?layers\.0\.blocks\.0\.attn\.relative_position_bias_table$",
    translate=translate_swin,
)

MMACTION2_R2PLUS1D = Family(
    name="mmaction2 r2plus1d",
    source="MMAction2's R(2+1)D",
    marker=r"^backbone\.conv1\.conv\.conv_s\.",
    translate=translate_r2plus1d,
)

MMACTION2_RESNET = Family(
    name="mmaction2 tsm",
    source="MMAction2's TSM",
    marker=r"^backbone\.conv1\.conv\.weight$",
    translate=translate_resnet,
)
