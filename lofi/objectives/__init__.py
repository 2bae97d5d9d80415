"""Objectives: what is minimised. Each names its own part of the recipe and the module that the engine trains."""

from lofi.objectives.tac import TacConfig
from lofi.objectives.tal import TalConfig

OBJECTIVES = {
    "tal": TalConfig,
    "tac": TacConfig,
}
