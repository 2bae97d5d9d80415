"""What the field's evaluators do differently, as named rules; `PROTOCOLS` has ours and three of theirs.

Where no two scores are equal, the ground truth has no duplicate and every label is known, the ActivityNet toolkit,
OpenTAD and ActionFormer return the same mAP, and "default" returns it as well. Where they part:

| rule | default | activitynet | opentad | thumos14 |
|---|---|---|---|---|
| an instance given twice (label, times within 1e-3 s) | counts twice | counts twice | counts once | counts twice |
| an instance of no length | counts | counts | dropped | counts |
| a predicted label without an instance in the subset | ignored | refused | ignored | ignored |
| average precision | interpolated | interpolated | interpolated | at each hit |
| tIoU equal to the threshold | a hit | a hit | a hit | no hit |
| who chooses | the best-scored prediction | same | same | each instance in the order of the file |
| a false positive that overlaps Ambiguous | counts | counts | counts | left out |
| union | sum - intersection | same | same | hull, ends in either order |
| prediction and instance whose union is 0 | a hit if the same | a hit (0 / 0) | tIoU 0 | tIoU 0 |
| equal scores | start, end, name of the video | order of an unstable sort | same | video, then file |
| equal tIoUs | the latest instance | the last of the file | same | the best-scored prediction |

"default" alone does not depend on the order of the file (on that of its "classes" by rounding alone). Recall orders equal
scores by the same rule as mAP. Default's measure is the official toolkit's, also on ActivityNet's own
annotations with their 19 duplicates and 3 instances of no length: they count, and are reported. A reversed prediction
never hits under default and opentad.

Sources: ActivityNet's toolkit (Evaluation/eval_detection.py); OpenTAD (opentad/evaluations/mAP.py); the THUMOS14
challenge's TH14evalDet_Updated.m and TH14eventdetpr.m.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One evaluator's rules; the fields are the rows of the table above."""

    name: str
    duplicates_count: bool = True
    """Whether an instance given again (same video and label, both times within 1e-3 s) is one more to be found."""
    zero_length_counts: bool = True
    """Whether an annotated instance whose end is not after its start is one to be found."""
    unknown_labels: Literal["ignored", "refused"] = "ignored"
    """Predictions whose label has no instance in the subset."""
    is_interpolated: bool = True
    """The area under the envelope of precision (as VOC 2011), or under precision as it is."""
    is_strict: bool = False
    """Whether tIoU must lie above the threshold."""
    chooser: Literal["prediction", "instance"] = "prediction"
    """prediction: best score first, each takes the free instance with the largest tIoU. instance: in the order of the
    file, each takes the free prediction with the largest tIoU."""
    ambiguous_is_left_out: bool = False
    """Whether a false positive that overlaps a stretch of `GroundTruth.ambiguous` is taken away."""
    union: Literal["sum", "hull"] = "sum"
    """sum: both lengths less the intersection. hull: from the first to the last time, each segment's ends put in order."""
    empty_union: Literal["same", "hit", "none"] = "same"
    """tIoU 0 / 0. same: 1 where prediction and instance have the same start and end, else 0. hit: above every other tIoU
    (NaN is not below the threshold). none: 0."""
    ties: Literal["time", "unstable", "video"] = "time"
    """Order of equal scores. time: start, end, name of the video. unstable: numpy's argsort()[::-1] of the class in the
    order of the file, which differs between CPUs. video: name of the video, then the order of the file."""
    equal_tious: Literal["latest", "last"] = "latest"
    """Which of the instances at equal tIoU a prediction takes: latest by time, or last in the file."""


PROTOCOLS: dict[str, Protocol] = {
    "default": Protocol(name="default"),
    "activitynet": Protocol(
        name="activitynet",
        unknown_labels="refused",
        empty_union="hit",
        ties="unstable",
        equal_tious="last",
    ),
    "opentad": Protocol(
        name="opentad",
        duplicates_count=False,
        zero_length_counts=False,
        empty_union="none",
        ties="unstable",
        equal_tious="last",
    ),
    "thumos14": Protocol(
        name="thumos14",
        is_interpolated=False,
        is_strict=True,
        chooser="instance",
        ambiguous_is_left_out=True,
        union="hull",
        empty_union="none",
        ties="video",
        equal_tious="last",
    ),
}


def protocol_named(name: str) -> Protocol:
    """The protocol of this name. Raises ValueError with those that exist."""
    if name not in PROTOCOLS:
        raise ValueError(f"protocol {name!r} does not exist; there are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
