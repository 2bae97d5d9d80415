"""Every option of ActionFormer's released configurations can be said in a recipe: each as overrides of one of ours, which then holds
what the file states, and the code's default where the file states nothing."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lofi.config.load import load_recipe
from lofi.config.recipe import Recipe
from lofi.stages.build import build_objective
from lofi.stages.synthetic_input import Assumed, input_shape

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ACTIVITYNET = CONFIGS / "activitynet13" / "frozen_actionformer.yaml"
THUMOS14 = CONFIGS / "thumos14" / "frozen_actionformer.yaml"
ROW_SEC = 16 / 30
"""EPIC-Kitchens and Ego4D: a row each 16 of 30 frames per second."""
FOR_EVER = 10000
"""What the files write for a range without an end."""

RANGES = [[0, 4], [2, 8], [4, 16], [8, 32], [16, 64], [32, 128], [64, 256]]
OF_6, OF_7, OF_8 = ([*RANGES[: count - 1], [2 ** (count - 1), FOR_EVER]] for count in (6, 7, 8))

EGOCENTRIC = [
    "grid.crop_visible=0.3", "head.window=9", "head.pre_nms_top_k=5000", "postprocess.max_detections=2000",
    "evaluation.tious=[0.1,0.2,0.3,0.4,0.5]",
]  # fmt: skip
EPIC = [
    *EGOCENTRIC, f"grid.window_sec={2304 * ROW_SEC}", "head.loss_normalizer=250", "postprocess.sigma=0.4",
    f"head.ranges={OF_6}",
]  # fmt: skip
EGO4D = [
    *EGOCENTRIC, f"grid.window_sec={1024 * ROW_SEC}", "head.position_embedding=true", "head.dropout=0.1",
    "postprocess.sigma=0.9", "train.epochs=15",
]  # fmt: skip
EGO4D_7 = [*EGO4D, "head.levels=7", f"head.ranges={OF_7}"]
EGO4D_8 = [*EGO4D, "head.levels=8", f"head.ranges={OF_8}"]
WIDE = ["head.embed_width=768", "head.num_heads=12"]
WIDER = ["head.embed_width=1024", "head.num_heads=16"]


def overrides_in_header(path: Path, name: str) -> list[str]:
    """What the header of a recipe says after naming a configuration: indented lines of key=value."""
    block = re.search(rf"\({name}\.yaml.*?:\n((?:#   [^\n]*\n)+)", path.read_text(), flags=re.DOTALL)
    assert block is not None
    return [word for word in block[1].split() if word != "#"]


RELEASED: dict[str, tuple[Path, list[str]]] = {
    "thumos_i3d": (THUMOS14, []),
    "anet_tsp": (ACTIVITYNET, overrides_in_header(ACTIVITYNET, "anet_tsp")),
    "anet_i3d": (ACTIVITYNET, overrides_in_header(ACTIVITYNET, "anet_i3d")),
    "epic_slowfast_verb": (THUMOS14, [*EPIC, "train.epochs=30"]),
    "epic_slowfast_noun": (THUMOS14, [*EPIC, "train.epochs=35"]),
    "ego4d_slowfast": (THUMOS14, EGO4D_7),
    "ego4d_omnivore": (THUMOS14, EGO4D_8),
    "ego4d_egovlp": (THUMOS14, [*EGO4D_8, "head.embed_width=384"]),
    "ego4d_omnivore_egovlp": (THUMOS14, [*EGO4D_8, *WIDE, "data.joined_features=[egovlp]"]),
    "ego4d_slowfast_egovlp": (THUMOS14, [*EGO4D_8, *WIDE, "data.joined_features=[egovlp]"]),
    "ego4d_slowfast_omnivore_egovlp": (THUMOS14, [
        *EGO4D_7, *WIDER, "data.joined_features=[omnivore,egovlp]",
        "head.streams=[[2304,384],[1536,384],[256,256]]",
    ]),
    "ego4d_omnivore_egovlp_internvideo": (THUMOS14, [
        *EGO4D_8, *WIDER, "data.joined_features=[egovlp,internvideo]",
        "head.streams=[[1536,256],[256,384],[1024,384]]", "postprocess.sigma=2.0",
    ]),
}  # fmt: skip

COMMON = {
    "use_rel_pe": False, "crop_ratio": (0.9, 1.0), "trunc_thresh": 0.5, "warmup_epochs": 5, "weight_decay": 0.05,
    "learning_rate": 1e-4, "batch_size": 2, "clip_grad_l2norm": 1.0, "center_sample_radius": 1.5, "cls_prior_prob": 0.01,
    "init_loss_norm": 100, "loss_weight": 1.0, "label_smoothing": 0.0, "dropout": 0.0, "droppath": 0.1,
    "pre_nms_thresh": 0.001, "min_score": 0.001, "duration_thresh": 0.05, "use_abs_pe": False, "n_head": 4,
    "embd_dim": 512, "head_dim": 512, "one_class": False, "voting_thresh": None,
}  # fmt: skip
"""As each file states or leaves to the code, where it is not named below. The code votes across classes alone."""
ANET_STATES = {
    **COMMON, "backbone_arch": (2, 2, 5), "epochs": 10, "learning_rate": 1e-3, "batch_size": 16, "embd_dim": 256,
    "head_dim": 256, "use_abs_pe": True, "label_smoothing": 0.1, "pre_nms_topk": 2000, "max_seg_num": 100,
    "one_class": True, "regression_range": [[0, 4], [4, 8], [8, 16], [16, 32], [32, 64], [64, FOR_EVER]],
}  # fmt: skip
EPIC_STATES = {
    **COMMON, "input_dim": 2304, "max_seq_len": 2304, "trunc_thresh": 0.3, "regression_range": OF_6,
    "backbone_arch": (2, 2, 5), "n_mha_win_size": 9, "init_loss_norm": 250, "pre_nms_topk": 5000, "max_seg_num": 2000,
    "nms_sigma": 0.4,
}  # fmt: skip
EGO4D_STATES = {
    **COMMON, "max_seq_len": 1024, "trunc_thresh": 0.3, "regression_range": OF_8, "backbone_arch": (2, 2, 7),
    "n_mha_win_size": 9, "use_abs_pe": True, "epochs": 10, "dropout": 0.1, "pre_nms_topk": 5000, "max_seg_num": 2000,
    "nms_sigma": 0.9,
}  # fmt: skip
SEVEN = {"regression_range": OF_7, "backbone_arch": (2, 2, 6)}

STATED: dict[str, dict[str, Any]] = {
    "thumos_i3d": {
        **COMMON, "input_dim": 2048, "max_seq_len": 2304, "n_mha_win_size": 19, "backbone_arch": (2, 2, 5),
        "regression_range": ANET_STATES["regression_range"], "epochs": 30, "pre_nms_topk": 2000, "max_seg_num": 200,
        "nms_sigma": 0.5,
    },
    "anet_tsp": {
        **ANET_STATES, "input_dim": 512, "max_seq_len": 768, "n_mha_win_size": [25, 25, 25, 25, 25, -1],
        "init_loss_norm": 400, "nms_sigma": 0.8, "duration_thresh": 0.1, "voting_thresh": 0.85,
    },
    "anet_i3d": {
        **ANET_STATES, "input_dim": 2048, "max_seq_len": None, "n_mha_win_size": [7, 7, 7, 7, 7, -1],
        "init_loss_norm": 200, "loss_weight": 2.0, "nms_sigma": 0.75, "duration_thresh": 0.001, "voting_thresh": 0.9,
    },
    "epic_slowfast_verb": {**EPIC_STATES, "epochs": 25},
    "epic_slowfast_noun": {**EPIC_STATES, "epochs": 30},
    "ego4d_slowfast": {**EGO4D_STATES, **SEVEN, "input_dim": 2304},
    "ego4d_omnivore": {**EGO4D_STATES, "input_dim": 1536},
    "ego4d_egovlp": {**EGO4D_STATES, "input_dim": 256, "embd_dim": 384, "head_dim": 384},
    "ego4d_omnivore_egovlp": {**EGO4D_STATES, "input_dim": 1792, "n_head": 12, "embd_dim": 768, "head_dim": 768},
    "ego4d_slowfast_egovlp": {**EGO4D_STATES, "input_dim": 2560, "n_head": 12, "embd_dim": 768, "head_dim": 768},
    "ego4d_slowfast_omnivore_egovlp": {
        **EGO4D_STATES, **SEVEN, "input_dim": [2304, 1536, 256], "n_head": 16, "embd_dim": [384, 384, 256],
        "head_dim": 1024,
    },
    "ego4d_omnivore_egovlp_internvideo": {
        **EGO4D_STATES, "input_dim": [1536, 256, 1024], "n_head": 16, "embd_dim": [256, 384, 384], "head_dim": 1024,
        "nms_sigma": 2.0,
    },
}  # fmt: skip


def in_their_words(recipe: Recipe, *, input_dim: int, row_sec: float) -> dict[str, Any]:
    """What a recipe says, by the names of ActionFormer's options."""
    assert recipe.head is not None
    assert recipe.postprocess is not None
    head, postprocess, schedule = recipe.head.config, recipe.postprocess, recipe.schedule.config
    is_sliding = recipe.grid.window_sec is not None
    return {
        "input_dim": [width for width, _ in head.streams] if head.streams else input_dim,
        "embd_dim": [channels for _, channels in head.streams] if head.streams else head.embed_width,
        "head_dim": head.head_width or head.embed_width,
        "backbone_arch": (head.embed_layers, head.stem_layers, head.levels - 1),
        "n_head": head.num_heads,
        "n_mha_win_size": [head.window] * (head.levels - 1) + [-1] if head.full_top_level else head.window,
        "use_abs_pe": head.position_embedding,
        "use_rel_pe": head.relative_positions,
        "regression_range": [[lower, min(upper, FOR_EVER)] for lower, upper in head.level_ranges],
        "max_seq_len": round(recipe.grid.window_sec / row_sec, 6) if is_sliding else None,
        "trunc_thresh": recipe.grid.crop_visible if recipe.grid.training == "crops" else None,
        "crop_ratio": (recipe.grid.crop_share, 1.0),
        "epochs": recipe.train.epochs - schedule.warmup_epochs,
        "warmup_epochs": schedule.warmup_epochs,
        "learning_rate": recipe.optimizer.config.lr,
        "weight_decay": recipe.optimizer.config.weight_decay,
        "batch_size": recipe.train.batch_size,
        "clip_grad_l2norm": recipe.train.gradient_clipping,
        "center_sample_radius": head.centre_radius,
        "cls_prior_prob": head.class_prior,
        "init_loss_norm": head.loss_normalizer,
        "loss_weight": head.regression_weight,
        "label_smoothing": head.label_smoothing,
        "dropout": head.dropout,
        "droppath": head.drop_path,
        "pre_nms_thresh": head.min_score,
        "pre_nms_topk": head.pre_nms_top_k,
        "duration_thresh": head.min_length,
        "min_score": postprocess.min_score,
        "max_seg_num": postprocess.max_detections,
        "nms_sigma": 0.5 if postprocess.sigma is None else postprocess.sigma,
        "voting_thresh": postprocess.voting_tiou_threshold,
        "one_class": head.class_agnostic,
    }


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_configuration_of_actionformer_can_be_said_and_builds(name: str) -> None:
    path, overrides = RELEASED[name]
    stated = STATED[name]
    recipe = load_recipe(path, overrides)
    width = stated["input_dim"]
    width = sum(width) if isinstance(width, list) else width
    row_sec = {"thumos_i3d": 4 / 30, "anet_tsp": 16 / 15}.get(name, ROW_SEC)
    assert in_their_words(recipe, input_dim=width, row_sec=row_sec) == stated
    shape = input_shape(recipe, assumed=Assumed(feature_width=width))
    with torch.device("meta"):
        build_objective(recipe, classes=shape.classes, feature_width=shape.feature_width, with_weights=False)


@pytest.mark.parametrize("head", ["actionformer", "tridet"])
def test_ranges_and_streams_reach_the_head(head: str) -> None:
    options = ["head.levels=2", "head.ranges=[[0,4],[2,.inf]]", "head.streams=[[7,384],[5,128]]"]
    recipe = load_recipe(CONFIGS / "thumos14" / f"frozen_{head}.yaml", options)
    assert recipe.head is not None
    assert recipe.head.config.level_ranges == [(0.0, 4.0), (2.0, float("inf"))]
    shape = input_shape(recipe, assumed=Assumed())
    assert shape.feature_width == 12
    assert any(each.endswith("x 12 (head.streams)") for each in shape.assumptions)
    with pytest.raises(
        ValueError, match=r"feature_width is 11, but head\.streams have widths \[7, 5\], 12 together"
    ):
        input_shape(recipe, assumed=Assumed(feature_width=11))
