"""A recipe: one run, stated whole. Composes the config dataclasses that live beside what they build.

`check_recipe` holds what no single block can see: options without effect, inexact combinations, missing blocks.
"""

from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from lofi.config.objective_kinds import ObjectiveKind
from lofi.config.positions import check_extracted_positions, check_positions
from lofi.data.data_config import AUGMENTATIONS, DataConfig
from lofi.data.grid import ONLY_FOR_HEADS, GridConfig
from lofi.encoders.input_sizes import INPUT_SIZES
from lofi.encoders.weights.sources import TIMM_PREFIX, TORCHVISION_PREFIX
from lofi.engine.deepspeed_engine import check_deepspeed_block, zero_stage
from lofi.engine.loop import TrainConfig
from lofi.engine.optimizers import OptimizerConfig
from lofi.engine.schedules import ScheduleConfig
from lofi.evaluation.mean_average_precision import EvaluationConfig
from lofi.extraction import ExtractionConfig
from lofi.fidelity import FidelityConfig, build_schedule
from lofi.gradients.prefetch import BLUR_RADIUS
from lofi.heads.postprocess import PostprocessConfig
from lofi.memory.budget import MemoryConfig

OBJECTIVE_DATA_OPTIONS = ("validation_subset", "clips_per_segment", "joined_features", "standardize_features")
"""Options of `data` that have an effect with some objectives alone."""

ENCODER_RATES = ("encoder_lr", "encoder_layer_decay")
ONLY_IN_TRAINING = ("dropout", "drop_path", "frozen_stages", "norm")
"""Options of an encoder without effect where it does not learn."""
ADDED_LAYERS = ("lora_rank", "adapters")
"""Options of an encoder that change nothing before they have learned."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One variant of a block that is chosen by `name`."""

    name: str
    config: Any
    maker: Any = field(default=None, compare=False, repr=False)
    """Of an objective its `ObjectiveKind`, of an adapter its build function."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run. Blocks that are None are absent from the file."""

    data: DataConfig
    objective: Choice
    gradient: Choice
    optimizer: Choice
    train: TrainConfig
    schedule: Choice
    grid: GridConfig = field(default_factory=GridConfig)
    fidelity: FidelityConfig | None = None
    """Absent where features come from disk: their directory says how they were made."""
    encoder: Choice | None = None
    adapter: Choice | None = None
    """Between features and head."""
    head: Choice | None = None
    postprocess: PostprocessConfig | None = None
    evaluation: EvaluationConfig | None = None
    """Absent: the run is not evaluated at its end."""
    memory: MemoryConfig | None = None
    """Present: fidelity reduction, gradient path and batch are chosen by what fits (`stages.budget`)."""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """Passed through to DeepSpeed."""
    seed: int = 0
    output: str = ""
    """The run directory."""

    @property
    def optimizer_config(self) -> OptimizerConfig:
        config: OptimizerConfig = self.optimizer.config
        return config

    @property
    def schedule_config(self) -> ScheduleConfig:
        config: ScheduleConfig = self.schedule.config
        return config

    @property
    def kind(self) -> ObjectiveKind:
        kind: ObjectiveKind = self.objective.maker
        return kind

    @property
    def reads_features(self) -> bool:
        return self.data.features is not None


def check_recipe(recipe: Recipe) -> None:
    """Cross-field checks. Raises ValueError that names the key and what is allowed."""
    kind, name = recipe.kind, recipe.objective.name
    _check_source(recipe)
    for key in kind.needs:
        if getattr(recipe, key) is None:
            default = " (postprocess: {} takes the defaults)" if key == "postprocess" else ""
            raise ValueError(f"{key} is missing; objective: {name} needs one{default}.")
    for key in ("adapter", "head", "postprocess", "evaluation"):
        if key not in kind.takes and getattr(recipe, key) is not None:
            raise ValueError(f"{key} has no effect with objective: {name}; remove it.")
    if kind.takes_clips and recipe.grid.mode != "rescale":
        raise ValueError(
            f"grid.mode: {recipe.grid.mode} has no effect with objective: {name}, which takes single clips; remove it."
        )
    if not kind.takes_grid:
        _refuse_set(recipe.grid, "grid", tuple(recipe.grid.__dataclass_fields__), f"with objective: {name}")
    if kind.takes_clips or kind.frame_dataset is not None:  # its windows are its own
        _refuse_set(recipe.grid, "grid", ONLY_FOR_HEADS, f"with objective: {name}")
    without_effect = tuple(key for key in OBJECTIVE_DATA_OPTIONS if key not in kind.data_options)
    _refuse_set(recipe.data, "data", without_effect, f"with objective: {name}")
    if kind.measured_on is not None and recipe.objective.config.validate_every_epochs is None:
        where = f"with objective: {name} and objective.validate_every_epochs: null"
        _refuse_set(recipe.data, "data", ("validation_subset",), where)
    _check_labels(recipe)
    _check_gradient(recipe)
    _check_sizes(recipe.encoder, recipe.fidelity)
    _check_crops(recipe)
    _check_blur(recipe)
    _check_spread(recipe)
    check_positions(recipe)
    check_deepspeed_block(recipe.deepspeed)
    if recipe.train.ema_decay is not None and zero_stage(recipe.deepspeed) == 3:
        raise ValueError(
            "train.ema_decay is refused with deepspeed.zero_optimization.stage: 3, where no rank has whole weights to take the "
            "mean of; use stage 2, or train.ema_decay: null."
        )
    if kind.check is not None:
        kind.check(recipe)


def _check_source(recipe: Recipe) -> None:
    source = recipe.kind.source
    if source == "features" and not recipe.reads_features:
        raise ValueError(
            f"data.features is missing; objective: {recipe.objective.name} is trained on features from disk."
        )
    if recipe.reads_features:
        if source == "frames":
            raise ValueError(
                f"data.features cannot serve objective: {recipe.objective.name}; set data.videos."
            )
        for key in ("encoder", "fidelity"):
            if getattr(recipe, key) is not None:
                raise ValueError(f"{key} has no effect with data.features; remove one of the two.")
        where = "with data.features"
        reading = ("videos", "frame_cache", "resize", "decoder", "decode_timeout_sec")
        _refuse_set(recipe.data, "data", (*reading, *AUGMENTATIONS), where)
        _refuse_set(recipe.grid, "grid", ("frame_rate", "frame_stride", "spread_frames"), where)
        if recipe.data.standardize_features and recipe.adapter is not None:
            raise ValueError(
                "data.standardize_features is refused with an adapter, whose output has other moments than the features on "
                "disk; apply it with launch/extract.py, and train on what that writes."
            )
        if recipe.gradient.name != "detached":
            raise ValueError(
                f"gradient.name is {recipe.gradient.name}; features from disk carry no gradient to an encoder, so only "
                "detached is allowed with data.features."
            )
        _refuse_set(recipe.gradient.config, "gradient", ("chunk_size",), where)
        _refuse_set(recipe.optimizer.config, "optimizer", ENCODER_RATES, where)
        return
    if recipe.data.videos is None:
        raise ValueError("data.videos (a folder) or data.features (a feature directory) is missing.")
    for key in ("encoder", "fidelity"):
        if getattr(recipe, key) is None:
            raise ValueError(f"{key} is missing; data.videos needs one.")


def _check_labels(recipe: Recipe) -> None:
    """Proposals without a class need somebody who says it."""
    if recipe.head is None or not getattr(recipe.head.config, "needs_video_scores", False):
        return
    if recipe.postprocess is None or recipe.postprocess.video_scores is None:
        raise ValueError(
            f"postprocess.video_scores is missing; head.name: {recipe.head.name} finds proposals without a class here. Name a "
            "file with the scores of a video-level classifier, or set head.labels: own (actionformer, tridet: "
            "head.class_agnostic: false)."
        )


def _check_crops(recipe: Recipe) -> None:
    grid = recipe.grid
    if grid.training == "crops" and recipe.data.frame_cache is not None:
        raise ValueError(
            "data.frame_cache cannot serve grid.training: crops, which takes other windows in each epoch; remove one."
        )
    if grid.prediction == "videos" and not recipe.reads_features:
        raise ValueError(
            "grid.prediction: videos is only for data.features: the frames of a whole video would be decoded at once; "
            "remove it."
        )
    if grid.prediction == "videos" and not getattr(
        getattr(recipe.head, "config", None), "takes_videos", True
    ):
        assert recipe.head is not None
        raise ValueError(
            f"grid.prediction: videos is refused with head.name: {recipe.head.name}, whose proposals are shares of a window "
            "and whose maps grow with its square; remove it."
        )


def _check_blur(recipe: Recipe) -> None:
    if recipe.data.blur == 0 or recipe.fidelity is None:
        return
    for fidelity in build_schedule(recipe.fidelity).fidelities:
        if min(fidelity.height, fidelity.width) <= BLUR_RADIUS:
            raise ValueError(
                f"data.blur is {recipe.data.blur}, and fidelity trains on frames of {fidelity.height} x {fidelity.width} pixels; "
                f"both sides must be at least {BLUR_RADIUS + 1}. Set a larger fidelity, or data.blur: 0."
            )


def _check_sizes(encoder: Choice | None, config: FidelityConfig | None) -> None:
    """What the encoder takes, as far as that can be told before it is built."""
    if encoder is None or config is None or encoder.name not in INPUT_SIZES:
        return
    sizes = INPUT_SIZES[encoder.name](encoder.config)
    for fidelity in (config.full, *build_schedule(config).fidelities):
        sizes.check(fidelity)


def _check_spread(recipe: Recipe) -> None:
    if not recipe.grid.spread_frames:
        return
    if recipe.kind.takes_clips or recipe.kind.source == "frames":
        raise ValueError(
            f"grid.spread_frames: true is refused with objective: {recipe.objective.name}, which takes clips out of longer "
            "segments and videos, at grid.frame_rate or grid.frame_stride; remove it."
        )
    if recipe.data.snippet_jitter > 0:
        raise ValueError(
            "data.snippet_jitter has no effect with grid.spread_frames: true, where the frames of a snippet fill its share of the "
            "window; remove one of the two."
        )


def _check_gradient(recipe: Recipe) -> None:
    if recipe.encoder is None:
        return
    norm = getattr(recipe.encoder.config, "norm", "frozen")  # tiny has no batch norm, and no such option
    if norm == "train" and recipe.gradient.name != "joint":
        raise ValueError(
            f"encoder.norm: train is refused with gradient.name: {recipe.gradient.name}, whose recomputation or chunks "
            "would change the batch statistics; use encoder.norm: frozen or affine, or gradient.name: joint."
        )
    if recipe.gradient.name == "detached":
        where = "with gradient.name: detached"
        _refuse_set(recipe.optimizer.config, "optimizer", ENCODER_RATES, where)
        _refuse_set(recipe.encoder.config, "encoder", ONLY_IN_TRAINING, where)
        _check_added_layers(recipe.encoder.config, where)
        fidelity = recipe.fidelity
        if fidelity is not None and fidelity.reduction != "none":
            raise ValueError(
                f"fidelity.reduction: {fidelity.reduction} saves nothing with gradient.name: detached and only worsens "
                "the features; remove it."
            )


def _check_added_layers(config: Any, where: str) -> None:
    """Files may be of runs in which these layers learned; weights of a library never are."""
    if config.weights is None or config.weights.startswith((TORCHVISION_PREFIX, TIMM_PREFIX)):
        _refuse_set(
            config, "encoder", ADDED_LAYERS, f"{where} and encoder.weights: {config.weights or 'null'}"
        )


def _refuse_set(config: Any, block: str, keys: tuple[str, ...], where: str) -> None:
    """Raise for an option that is not at its default though it has no effect; options that a variant lacks are fine."""
    for key in keys:
        option = config.__dataclass_fields__.get(key)
        if option is not None and getattr(config, key) != option.default:
            raise ValueError(f"{block}.{key} has no effect {where}; remove it.")


def recipe_to_plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested plain values, in the order of a YAML file; absent blocks are left out."""
    order = (
        "seed", "output", "data", "grid", "fidelity", "encoder", "gradient", "objective", "adapter", "head", "optimizer",
        "schedule", "train", "memory", "postprocess", "evaluation", "deepspeed",
    )  # fmt: skip
    plain: dict[str, Any] = {}
    for key in order:
        value = getattr(recipe, key)
        if isinstance(value, Choice):
            plain[key] = {"name": value.name, **_as_plain(value.config)}
        elif is_dataclass(value) and not isinstance(value, type):
            plain[key] = _as_plain(value)
        elif value is not None:
            plain[key] = value
    return plain


def _as_plain(config: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}


@dataclass(frozen=True, kw_only=True)
class ExtractionRecipe:
    """One extraction: videos and an encoder -> a feature directory."""

    data: DataConfig
    fidelity: FidelityConfig
    encoder: Choice
    grid: GridConfig = field(default_factory=GridConfig)
    extraction: ExtractionConfig = field(default_factory=ExtractionConfig)
    output: str = ""
    """The feature directory."""


def check_extraction_recipe(recipe: ExtractionRecipe) -> None:
    """Cross-field checks. Raises ValueError that names the key and what is allowed."""
    if recipe.data.videos is None:
        raise ValueError("data.videos (a folder) is missing.")
    where = "in an extraction recipe"
    unused = (
        "features",
        *AUGMENTATIONS,
        "clips_per_segment",
        "training_subset",
        "validation_subset",
        "labelled_share",
        "repeat_labelled",
        "joined_features",
        "standardize_features",
    )
    _refuse_set(recipe.data, "data", unused, where)
    _refuse_set(recipe.grid, "grid", ONLY_FOR_HEADS, where)
    _refuse_set(recipe.encoder.config, "encoder", ONLY_IN_TRAINING, where)
    _check_added_layers(recipe.encoder.config, where)
    if recipe.fidelity.reduction != "none":
        raise ValueError(
            f"fidelity.reduction is {recipe.fidelity.reduction}; features are extracted at full fidelity, so only none is "
            "allowed."
        )
    _check_sizes(recipe.encoder, recipe.fidelity)
    check_extracted_positions(recipe)
