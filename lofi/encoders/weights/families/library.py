"""Weights of torchvision and timm, under the names of their modules, and whatever others save of these modules."""

from lofi.encoders.weights.families.family import Family, rename_keys

HEAD = r"^(fc|head|heads|classifier|head_dist|head_drop)\."

LIBRARY = Family(
    name="library",
    source="torchvision or timm",
    marker=(
        r"^(conv1\.weight|stem\.0\.weight|stem\.conv\.weight"  # ResNets of images and of videos, RegNet
        r"|features\.0\.0\.|features\.0\.(weight|norm)|stages\.\d+\."  # Swin, S3D, ConvNeXt
        r"|patch_embed\.proj\.weight|conv_proj\.weight)"  # vision transformers, MViT
    ),
    translate=rename_keys,
    head=HEAD,
)
