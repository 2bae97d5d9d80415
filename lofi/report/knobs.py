"""What a sweep turns from one comparison to the next, and how pages speak of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One quantity, of which every comparison of a sweep has a value between 0 and 1."""

    key: str
    """Of a row of sweep.json."""
    title: str
    """After "average mAP against": the table's and the figure's heading."""
    column: str
    """Above the columns of its values."""
    figures: str
    """Heading of the figures."""
    at: str
    """Where a number holds; {} is the value: "at scene correlation 0.8"."""
    axis: str
    note: str
    """What a value means."""
    made: str
    """What else one must know to make the numbers again."""
    is_labels: bool
    """Values are percents and lie by their logarithm, and spreads are bars of one deviation beside one another; else bands."""

    def text(self, value: float) -> str:
        """A value: "0.8", "25 %"."""
        return f"{100 * value:g} %" if self.is_labels else f"{value:g}"

    def listed(self, values: Sequence[float]) -> str:
        """Values in words: "0, 0.5 and 1"."""
        *rest, last = [self.text(value) for value in values]
        return f"{', '.join(rest)} and {last}" if rest else last

    def place(self, value: float) -> float:
        """On the figure's axis."""
        return math.log2(value) if self.is_labels else value


SCENE_CORRELATION = Knob(
    key="scene_correlation",
    title="scene correlation",
    column="scene correlation",
    figures="The knob, and what a method costs",
    at="at scene correlation {}",
    axis="scene correlation (how often the scene tells the class)",
    note="Scene correlation: share of the videos whose scene is their class's own.",
    made="each has a report of its own in its folder scene_correlation_VALUE",
    is_labels=False,
)

LABELLED_SHARE = Knob(
    key="labelled_share",
    title="the share of labelled videos",
    column="share of the labelled training videos",
    figures="Labels, and what a method costs",
    at="with {} of the labels",
    axis="labelled training videos (logarithmic)",
    note=(
        "Share: of the annotated training videos, drawn by the seed, every class at least once, smaller shares within larger "
        "ones. Stages that train on labels see that share alone, with as many steps as at 100 %; stages without labels see "
        "all videos."
    ),
    made=(
        "stages that train on labels had data.labelled_share and data.repeat_labelled=true; each share has a report of its "
        "own in its folder labelled_share_VALUE"
    ),
    is_labels=True,
)

KNOBS = {knob.key: knob for knob in (SCENE_CORRELATION, LABELLED_SHARE)}
