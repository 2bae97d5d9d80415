"""The converters by name: what launch/prepare.py takes."""

from collections.abc import Callable
from dataclasses import dataclass

from lofi.data.converters.activitynet import (
    read_activitynet12,
    read_activitynet13,
    read_fineaction,
    read_hacs,
)
from lofi.data.converters.charades import read_charades
from lofi.data.converters.ego4d_mq import read_ego4d_mq
from lofi.data.converters.epic_kitchens100 import read_epic_kitchens100
from lofi.data.converters.multithumos import read_multithumos
from lofi.data.converters.official import Official
from lofi.data.converters.own_table import COLUMNS, read_own_table
from lofi.data.converters.thumos14 import read_thumos14


@dataclass(frozen=True, kw_only=True)
class Converter:
    """One form of annotations."""

    read: Callable[..., Official]
    """(source, **options of this form) -> the dataset."""
    source: str
    """What --source takes, in words."""


CONVERTERS: dict[str, Converter] = {
    "activitynet12": Converter(read=read_activitynet12, source="activity_net.v1-2.min.json"),
    "activitynet13": Converter(
        read=read_activitynet13,
        source="activity_net.v1-3.min.json, or BMN's anet_anno_action.json beside video_info_new.csv",
    ),
    "thumos14": Converter(
        read=read_thumos14,
        source="the folder of CLASS_val.txt and CLASS_test.txt, or a JSON file of ActionFormer, OpenTAD or G-TAD",
    ),
    "multithumos": Converter(
        read=read_multithumos, source="the folder of annotations/CLASS.txt, or multithumos.json"
    ),
    "hacs": Converter(read=read_hacs, source="HACS_segments_v1.1.1.json"),
    "fineaction": Converter(read=read_fineaction, source="annotations_gt.json"),
    "epic_kitchens100": Converter(
        read=read_epic_kitchens100, source="the folder of EPIC_100_train.csv, EPIC_100_validation.csv, ..."
    ),
    "charades": Converter(
        read=read_charades,
        source="the folder of Charades_v1_train.csv, Charades_v1_test.csv, ..., or charades.json",
    ),
    "ego4d_mq": Converter(
        read=read_ego4d_mq, source="the folder of moments_train.json, moments_val.json, ..."
    ),
    "csv": Converter(read=read_own_table, source=f"a CSV file: {COLUMNS}"),
}
