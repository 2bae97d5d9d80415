"""Weights of this program: a run's `weights.safetensors` ("encoder.*" beside "head.*"), or an encoder's state dict alone."""

from collections.abc import Mapping

from torch import Tensor

from lofi.encoders.weights.families.family import Family, Renames, Translated, rename_keys

WRAPPED_BLOCKS: Renames = (
    (r"^stem\.block\.", "stem."),
    (r"^(layer\d\.\d+)\.block\.conv1\.net\.", r"\1.conv1."),
    (r"^(layer\d\.\d+)\.block\.", r"\1."),
)
"""Runs of before `tsm` and `tsm_resnet` were one encoder: the latter wrapped torchvision's blocks."""


def translate_run(state: Mapping[str, Tensor]) -> Translated:
    """Take the encoder out of a detector, a classifier or whatever else was trained with it."""
    return rename_keys(
        state,
        renames=((r"^encoder\.", ""), *WRAPPED_BLOCKS),
        dropped=((r"^(?!encoder\.)", "a module beside the encoder"),),
    )


RUN = Family(
    name="lofi",
    source="a run of this program",
    marker=r"^encoder\.",
    translate=translate_run,
    is_own=True,
)

PLAIN = Family(
    name="plain",
    source="an encoder's own names, or names that no family here has",
    marker=r"",
    translate=rename_keys,
    is_own=True,
)
