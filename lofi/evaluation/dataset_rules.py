"""What the field does on each dataset: thresholds, subsets, labels that are no classes, videos left out.

A score is comparable only where it was made on the same instances. So the annotation file that is given decides which
videos count, and nothing is left out unless asked for (`exclude`); what is known of a dataset's files is written beside
its rules. Sources, by tag:

- [AN] ActivityNet's toolkit (github.com/activitynet/ActivityNet, Evaluation/): tIoU 0.5:0.95:0.05, AR over the same at 1
  to 100 proposals per video; videos that YouTube lost are left out, of ground truth and predictions alike.
- [PR] `average_recall_vs_nr_proposals`, the script that papers on proposals for THUMOS14 share: AR over 0.5:1.0:0.05, up
  to 1000 proposals. It counts in frames, ends included, where ours (ActivityNet's AR) has seconds: near, not equal.
- [OT] OpenTAD (github.com/sming256/OpenTAD): configs/_base_/datasets/*, tools/prepare_data/*/README.md.
- [AF] ActionFormer (github.com/happyharrycn/actionformer_release): its annotation files and issues 65 and 107.
- [TH] the THUMOS14 challenge: readme.txt of its temporal annotations, crcv.ucf.edu/THUMOS14.
- [TT] TadTR's list of ignored videos, "SSN/PGCN/AFSD/MUSES"; HYPJUDY/Decouple-SSAD, issue 23, on the same three.
- [EK] EPIC-KITCHENS-100's evaluation (github.com/epic-kitchens/C2-Action-Detection,
  EvaluationCode/evaluate_detection_json_ek100.py): verbs, nouns and actions (the pair) from one file of predictions,
  each over the classes that occur in the annotations.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from lofi.evaluation.average_recall import RECALL_TIOUS
from lofi.evaluation.tables import GroundTruth, Predictions, few_names
from lofi.segments import LabelledSegment

AMBIGUOUS = "Ambiguous"
"""THUMOS14's label of stretches that may or may not show an action."""


def _tious(first: float, last: float, step: float) -> tuple[float, ...]:
    """From first to last, both included, as the decimals that they are written as."""
    return tuple(round(first + index * step, 6) for index in range(round((last - first) / step) + 1))


@dataclass(frozen=True, kw_only=True)
class DatasetRules:
    """How one dataset is evaluated, where the command does not say otherwise."""

    name: str
    tious: tuple[float, ...]
    """Thresholds of mAP."""
    subsets: tuple[str, ...]
    """What files call the subset that is evaluated; the first that a file has is taken."""
    recall_tious: tuple[float, ...] = RECALL_TIOUS
    """Thresholds that AR is averaged over."""
    max_proposals: int = 100
    """AR is given up to this number of proposals per video."""
    recall_multiples: tuple[int, ...] = (1, 5)
    """k of recall at k x."""
    ambiguous_label: str | None = None
    """A label that is no class: its stretches count neither way, under a protocol that heeds them."""
    label_part: Literal["verb", "noun"] | None = None
    """Where labels are pairs "verb,noun" ("12,34"): the part that is scored. None scores labels as they are."""
    doubtful: Mapping[str, str] = field(default_factory=dict)
    """Videos that some evaluations leave out -> why, and who. In the score unless excluded."""


_ACTIVITYNET = DatasetRules(
    name="activitynet13",
    tious=_tious(0.5, 0.95, 0.05),
    subsets=("validation", "val"),  # [AN]
)
# Files differ in what they call the test set: "Test" [AF], "test" (G-TAD), "validation" beside "training" [OT].
_THUMOS_SUBSETS = ("test", "Test", "testing", "validation")
_EPIC = DatasetRules(
    name="epic_kitchens100",
    tious=_tious(0.1, 0.5, 0.1),
    subsets=("validation", "val"),  # [EK] and [OT]
)

DATASET_RULES: dict[str, DatasetRules] = {
    rules.name: rules
    for rules in (
        DatasetRules(  # [TH], [AF], [OT], [TT], [PR]
            name="thumos14",
            tious=_tious(0.3, 0.7, 0.1),
            subsets=_THUMOS_SUBSETS,
            recall_tious=_tious(0.5, 1.0, 0.05),
            max_proposals=1000,
            ambiguous_label=AMBIGUOUS,
            doubtful={
                # 22 of its 29 instances lie after its end (up to 713.7 s of 176.3 s) in [TH] and in [AF]'s file.
                "video_test_0000270": "annotated beyond its end; left out by OpenTAD, G-TAD, SSN and AFSD",
                # In [TH] with an Ambiguous stretch alone; 213 videos with it, 212 without, as in [AF]'s file.
                "video_test_0001292": "has no instance; left out by ActionFormer, OpenTAD, G-TAD, SSN and AFSD",
                # 210 videos, as in G-TAD's file. Nothing in its annotations shows the error.
                "video_test_0001496": "said to be annotated wrongly; left out by G-TAD, SSN and AFSD",
            },
        ),
        DatasetRules(  # [OT]
            name="multithumos",
            tious=_tious(0.1, 0.9, 0.1),
            subsets=_THUMOS_SUBSETS,
            doubtful={"video_test_0000270": "22 of its 43 instances lie after its end"},
        ),
        _ACTIVITYNET,
        replace(_ACTIVITYNET, name="activitynet12"),
        replace(_ACTIVITYNET, name="hacs"),  # [OT]
        replace(_ACTIVITYNET, name="fineaction"),  # [OT]
        _EPIC,
        replace(_EPIC, name="epic_kitchens100_verb", label_part="verb"),
        replace(_EPIC, name="epic_kitchens100_noun", label_part="noun"),
        # [OT]
        DatasetRules(name="ego4d_mq", tious=_tious(0.1, 0.5, 0.1), subsets=("val", "validation")),
        DatasetRules(name="charades", tious=_tious(0.1, 0.9, 0.1), subsets=("testing", "test")),
    )
}
"""What `--dataset` takes. Scores of EPIC-KITCHENS' verbs and nouns come from the same files of action pairs."""

CUSTOM_RULES = replace(_ACTIVITYNET, name="custom", subsets=("validation", "val", "test", "testing"))
"""Without `--dataset`."""


def default_subset(rules: DatasetRules, available: Collection[str]) -> str:
    """The subset of a file that the dataset is evaluated on.

    Raises:
        ValueError: the file has none of the usual names.
    """
    for name in rules.subsets:
        if name in available:
            return name
    raise ValueError(
        f"no subset of the annotations is called {' or '.join(rules.subsets)}, as {rules.name} has it; they have "
        f"{', '.join(sorted(available))}. Name the one to evaluate."
    )


def ground_truth_of(
    videos: Mapping[str, Sequence[LabelledSegment]],
    *,
    rules: DatasetRules,
    classes: Sequence[str],
    durations_sec: Mapping[str, float] | None = None,
    ambiguous: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    exclude: Collection[str] = (),
) -> GroundTruth:
    """The instances of one subset as the dataset's rules count them.

    Args:
        videos: video -> instances, of all videos of the subset.
        rules: of the dataset.
        classes: names, those that are no classes included.
        durations_sec: video -> duration where it is known.
        ambiguous: further stretches that count neither way, as from `video_lists.read_ambiguous`.
        exclude: videos to leave out. Give the same to `predictions_of`.

    Raises:
        ValueError: `exclude` or `ambiguous` names none of the videos; a label is none of the classes; no instance is left.
    """
    left_out = set(exclude) & set(videos)
    if exclude and not left_out:
        raise ValueError(
            f"none of the {len(exclude)} videos to exclude ({few_names(exclude)}) is one of the {len(videos)} of the subset "
            f"({few_names(videos)})."
        )
    if ambiguous is not None and not set(ambiguous) & set(videos):
        raise ValueError(
            f"none of the {len(ambiguous)} videos with ambiguous stretches ({few_names(ambiguous)}) is one of the "
            f"{len(videos)} of the subset ({few_names(videos)})."
        )
    part = _part_of(rules)
    stretches = {video: list(rows) for video, rows in (ambiguous or {}).items()}
    instances: dict[str, list[LabelledSegment]] = {}
    for video, segments in videos.items():
        if video in left_out:
            continue
        instances[video] = []
        for row in segments:
            if row.label == rules.ambiguous_label:
                stretches.setdefault(video, []).append((row.start_sec, row.end_sec))
            else:
                instances[video].append(
                    LabelledSegment(start_sec=row.start_sec, end_sec=row.end_sec, label=part(row.label))
                )
    names = dict.fromkeys(part(name) for name in classes if name != rules.ambiguous_label)
    return GroundTruth.of(
        instances,
        classes=tuple(names),
        durations_sec=durations_sec,
        ambiguous={video: rows for video, rows in stretches.items() if video in instances},
    )


def predictions_of(
    predictions: Predictions, *, rules: DatasetRules, exclude: Collection[str] = ()
) -> Predictions:
    """The predictions that the dataset's rules count, with the labels that they are scored by.

    Predictions in excluded videos are dropped: they are neither right nor wrong.
    """
    excluded = set(exclude)
    is_kept = np.array([video not in excluded for video in predictions.videos], dtype=bool)
    kept = predictions
    if not is_kept.all():
        kept = predictions.select(is_kept[predictions.video])
    if rules.label_part is None:
        return kept
    part = _part_of(rules)
    names = [part(label) for label in kept.labels]
    index = {name: number for number, name in enumerate(dict.fromkeys(names))}
    new_label = np.array([index[name] for name in names], dtype=np.int32)
    return Predictions(
        videos=kept.videos,
        labels=tuple(index),
        video=kept.video,
        label=new_label[kept.label],
        start=kept.start,
        end=kept.end,
        score=kept.score,
    )


def doubtful_videos(truth: GroundTruth, *, rules: DatasetRules) -> dict[str, str]:
    """Videos in the score that some evaluations of this dataset leave out -> why, and who."""
    return {video: why for video, why in rules.doubtful.items() if video in truth.videos}


def _part_of(rules: DatasetRules) -> Callable[[str], str]:
    """Label of a file -> label that is scored."""
    place = {None: None, "verb": 0, "noun": 1}[rules.label_part]
    if place is None:
        return str

    def part(label: str) -> str:
        pieces = [piece.strip() for piece in label.split(",")]
        if len(pieces) != 2 or not all(pieces):
            raise ValueError(
                f"the label {label!r} is no pair of verb and noun, such as '12,34', as {rules.name} needs. Labels that "
                f"are {rules.label_part}s already are scored by epic_kitchens100."
            )
        return pieces[place]

    return part
