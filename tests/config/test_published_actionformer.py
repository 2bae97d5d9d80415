"""Every option of ActionFormer's released configurations can be said in a recipe: each as overrides of one of ours."""

from pathlib import Path

import pytest
import torch

from lofi.config.load import load_recipe
from lofi.stages.build import build_objective
from lofi.stages.synthetic_input import Assumed, input_shape

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ROW_SEC = 16 / 30
"""EPIC-Kitchens and Ego4D: a row each 16 of 30 frames per second."""

ACTIVITYNET = [
    "grid.training=crops", "head.position_embedding=true", "head.full_top_level=true", "head.class_agnostic=true",
    "head.label_smoothing=0.1", "train.ema_decay=0.999", "postprocess.max_detections=100",
    "postprocess.video_scores=scores.json", "postprocess.video_scores_top_k=2",
]  # fmt: skip
EGOCENTRIC = [
    "grid.crop_visible=0.3", "head.window=9", "head.pre_nms_top_k=5000", "postprocess.max_detections=2000",
    "postprocess.voting_tiou_threshold=null", "evaluation.tious=[0.1,0.2,0.3,0.4,0.5]",
]  # fmt: skip
EPIC = [
    *EGOCENTRIC, f"grid.window_sec={2304 * ROW_SEC}", "head.loss_normalizer=250", "postprocess.sigma=0.4",
    "head.ranges=[[0,4],[2,8],[4,16],[8,32],[16,64],[32,10000]]",
]  # fmt: skip
EGO4D = [
    *EGOCENTRIC, f"grid.window_sec={1024 * ROW_SEC}", "head.position_embedding=true", "head.dropout=0.1",
    "postprocess.sigma=0.9", "train.epochs=15",
]  # fmt: skip
OF_7 = ["head.levels=7", "head.ranges=[[0,4],[2,8],[4,16],[8,32],[16,64],[32,128],[64,10000]]"]
OF_8 = ["head.levels=8", "head.ranges=[[0,4],[2,8],[4,16],[8,32],[16,64],[32,128],[64,256],[128,10000]]"]

RELEASED = {
    "thumos_i3d": ("thumos14", []),
    "anet_tsp": ("activitynet13", [
        *ACTIVITYNET, "grid.mode=sliding", "grid.window_sec=819.2", "grid.prediction=videos", "head.window=25",
        "head.loss_normalizer=400", "head.min_length=0.1", "postprocess.sigma=0.8",
        "postprocess.voting_tiou_threshold=0.85",
    ]),
    "anet_i3d": ("activitynet13", [
        *ACTIVITYNET, "head.window=7", "head.loss_normalizer=200", "head.regression_weight=2.0",
        "head.min_length=0.001", "postprocess.sigma=0.75", "postprocess.voting_tiou_threshold=0.9",
    ]),
    "epic_slowfast_verb": ("thumos14", [*EPIC, "train.epochs=30"]),
    "epic_slowfast_noun": ("thumos14", [*EPIC, "train.epochs=35"]),
    "ego4d_slowfast": ("thumos14", [*EGO4D, *OF_7]),
    "ego4d_omnivore": ("thumos14", [*EGO4D, *OF_8]),
    "ego4d_egovlp": ("thumos14", [*EGO4D, *OF_8, "head.embed_width=384"]),
    "ego4d_omnivore_egovlp": ("thumos14", [
        *EGO4D, *OF_8, "data.joined_features=[egovlp]", "head.embed_width=768", "head.num_heads=12",
    ]),
    "ego4d_slowfast_omnivore_egovlp": ("thumos14", [
        *EGO4D, *OF_7, "data.joined_features=[omnivore,egovlp]", "head.embed_width=1024", "head.num_heads=16",
        "head.streams=[[2304,384],[1536,384],[256,256]]",
    ]),
    "ego4d_omnivore_egovlp_internvideo": ("thumos14", [
        *EGO4D, *OF_8, "data.joined_features=[egovlp,internvideo]", "head.embed_width=1024", "head.num_heads=16",
        "head.streams=[[1536,256],[256,384],[1024,384]]", "postprocess.sigma=2.0",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_configuration_of_actionformer_can_be_said_and_builds(name: str) -> None:
    folder, overrides = RELEASED[name]
    recipe = load_recipe(CONFIGS / folder / "frozen_actionformer.yaml", overrides)
    shape = input_shape(recipe, assumed=Assumed())
    with torch.device("meta"):
        build_objective(recipe, classes=shape.classes, feature_width=shape.feature_width, with_weights=False)


@pytest.mark.parametrize("head", ["actionformer", "tridet"])
def test_ranges_and_streams_reach_the_head(head: str) -> None:
    options = ["head.levels=2", "head.ranges=[[0,4],[2,.inf]]", "head.streams=[[7,384],[5,128]]"]
    recipe = load_recipe(CONFIGS / "thumos14" / f"frozen_{head}.yaml", options)
    assert recipe.head is not None
    assert recipe.head.config.level_ranges == [(0.0, 4.0), (2.0, float("inf"))]
    assert input_shape(recipe, assumed=Assumed()).feature_width == 12
