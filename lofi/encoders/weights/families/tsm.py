"""Weights of the temporal-shift-module repository (Lin et al., ICCV 2019): TSN around torchvision's ResNet.

`base_model.*` is the ResNet, whose shifted convolutions lie one module deeper (`conv1.net`); `new_fc` is the
classifier.
"""

from collections.abc import Mapping

from torch import Tensor

from lofi.encoders.weights.families.family import OLD_HEAD, Family, Translated, rename_keys


def translate_tsm(state: Mapping[str, Tensor]) -> Translated:
    """To torchvision's names."""
    return rename_keys(
        state,
        renames=((r"^base_model\.", ""), (r"^(layer\d\.\d+)\.conv1\.net\.", r"\1.conv1.")),
        dropped=((r"^(new_fc|base_model\.(fc|classifier))\.", OLD_HEAD),),
    )


TSM = Family(
    name="tsm",
    source="the repository of TSM (temporal-shift-module)",
    marker=r"^base_model\.",
    translate=translate_tsm,
)
