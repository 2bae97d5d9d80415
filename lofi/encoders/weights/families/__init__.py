"""The families of checkpoints, in the order in which they are tried."""

from lofi.encoders.weights.families.family import Family
from lofi.encoders.weights.families.library import LIBRARY
from lofi.encoders.weights.families.mmaction2 import MMACTION2_R2PLUS1D, MMACTION2_RESNET, MMACTION2_SWIN
from lofi.encoders.weights.families.ours import PLAIN, RUN
from lofi.encoders.weights.families.tsm import TSM
from lofi.encoders.weights.families.tsp import TSP
from lofi.encoders.weights.families.videomae import HUGGING_FACE_VIDEOMAE, MMACTION2_VIDEOMAE, VIDEOMAE

FAMILIES: tuple[Family, ...] = (
    VIDEOMAE,
    HUGGING_FACE_VIDEOMAE,
    MMACTION2_VIDEOMAE,
    MMACTION2_SWIN,
    MMACTION2_R2PLUS1D,
    MMACTION2_RESNET,
    TSM,
    TSP,
    RUN,
    LIBRARY,
    PLAIN,
)
