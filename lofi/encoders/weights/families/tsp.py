"""Weights of TSP (Alwassel et al., ICCVW 2021): a video ResNet of torchvision, or its R(2+1)D-34, under `features`.

Beside it one classifier (`fc`, trained for actions: TAC) or two (`fc1` for actions, `fc2` for foreground: TSP).
"""

from collections.abc import Mapping

from torch import Tensor

from lofi.encoders.weights.families.family import OLD_HEAD, Family, Translated, rename_keys


def translate_tsp(state: Mapping[str, Tensor]) -> Translated:
    """To torchvision's names."""
    return rename_keys(
        state, renames=((r"^features\.", ""),), dropped=((r"^(features\.)?fc[12]?\.", OLD_HEAD),)
    )


TSP = Family(
    name="tsp",
    source="TSP's releases (tsp_on_..., tac_on_...)",
    marker=r"^features\.(stem|layer1)\.",
    translate=translate_tsp,
)
