"""Chains of recipes: what a comparison file says, and the stages of each method, linked and placed.

A method is a chain of recipes. The links are made here: a training recipe with an encoder starts from the weights of the
stage before it, an extraction recipe takes the encoder of the stage before it, a recipe that reads features takes those
of the last extraction (of all of them, side by side, where it joins features), and a recipe whose adapter stays as it is
takes the last stage that trained one. Chains that begin alike share those stages.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from lofi.config.load import (
    RecipeError,
    build_from_plain,
    is_extraction_recipe,
    load_extraction_recipe,
    load_recipe,
    read_with_overrides,
)
from lofi.config.objective_kinds import Parts
from lofi.config.objectives import OWN_PARTS
from lofi.config.recipe import ExtractionRecipe, Recipe
from lofi.data.synthetic import SyntheticConfig, benchmark_paths

MAX_FOLDER_BYTES = 200
"""File systems take 255, some of which checkpoints and downloads add."""

SWEEP_FOLDER = "scene_correlation_"
"""How the folder of one value of a sweep begins; the value follows."""

SHARE_FOLDER = "labelled_share_"
"""How the folder of the report at one labelled share begins; the share follows."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison file: which chains, over which seeds, on which data."""

    methods: dict[str, list[str]]
    """Name -> its chain of recipe files, in order; after a file may stand values of it to change, as on a command line:
    `configs/synthetic/sola_tiny.yaml objective.symmetric=true`."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Each chain is run once per seed; the recipes' own `seed` is replaced."""
    output: str = ""
    """Folder of all runs and of the report."""
    synthetic: SyntheticConfig | None = None
    """Make the synthetic benchmark first; absent: the recipes name data that is there."""
    data_output: str | None = None
    """Folder of the synthetic benchmark. Every recipe reads this one, whatever its own data.annotations, data.videos and
    data.frame_cache say."""
    scene_correlations: list[float] = field(default_factory=list)
    """Where any are given, the whole comparison is run once for each, in place of synthetic.scene_correlation, in the folder
    scene_correlation_VALUE of `output` and of `data_output`; 0 to 1."""
    labelled_shares: list[float] = field(default_factory=list)
    """Where any are given, every chain is run at each of these shares of the labelled training videos, with as many steps as at
    1: recipes that train on labels get data.labelled_share and data.repeat_labelled. What does not depend on the share is run
    once for all. Above 0 to 1."""
    probe: bool = False
    """Also probe the features of each chain's last extraction (`stages.probe`)."""
    threads: int | None = None
    """CPU threads of the process; null leaves it to PyTorch. For very small models one is nearly as fast as two on an idle
    machine, and many times as fast beside other work."""

    def __post_init__(self) -> None:
        if not self.methods or not all(self.methods.values()):
            raise ValueError("methods is empty, or one of its chains is; each needs at least one recipe.")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(
                f"seeds is {self.seeds}; it must name at least one seed, each once, none of them negative."
            )
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is {self.threads}; it must be at least 1, or null.")
        if (self.synthetic is None) != (self.data_output is None):
            raise ValueError("synthetic and data_output go together: what to make, and where.")
        self._check_scene_correlations()
        self._check_labelled_shares()

    def _check_scene_correlations(self) -> None:
        values = self.scene_correlations
        if not all(0 <= value <= 1 for value in values) or len({f"{value:g}" for value in values}) != len(
            values
        ):
            raise ValueError(
                f"scene_correlations is {values}; each must be between 0 and 1 and stand there once, to 6 digits."
            )
        if values and self.synthetic is None:
            raise ValueError(
                f"scene_correlations is {values}, but only a benchmark that the comparison makes has that knob: say "
                "synthetic and data_output, or scene_correlations=[]."
            )

    def _check_labelled_shares(self) -> None:
        shares = self.labelled_shares
        if not all(0 < share <= 1 for share in shares) or len({f"{share:g}" for share in shares}) != len(
            shares
        ):
            raise ValueError(
                f"labelled_shares is {shares}; each must lie in (0, 1] and stand there once, to 6 digits."
            )
        if shares and self.scene_correlations:
            raise ValueError(
                "labelled_shares and scene_correlations are both given; turn one knob at a time."
            )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One link of a chain, placed: its recipe, linked to the stage before it, and where it writes."""

    name: str
    recipe: Recipe | ExtractionRecipe
    path: Path


def load_comparison(
    path: str | Path, overrides: list[str] | None = None, *, parts: Parts = OWN_PARTS
) -> Comparison:
    """Read a comparison file and check it and every recipe it names, by the `parts` they can name. Raises RecipeError."""
    where = str(path)
    plain = read_with_overrides(Path(path), overrides)
    if plain.get("synthetic") is not None:  # by itself first: its messages then name its own keys
        build_from_plain(SyntheticConfig, plain["synthetic"], key="synthetic", where=where)
    comparison: Comparison = build_from_plain(Comparison, plain, key="comparison", where=where)
    shares = comparison.labelled_shares
    first = at_labelled_share(comparison, min(shares), parts=parts) if shares else comparison
    for method in first.methods:
        list(chain_stages(first, method, seed=first.seeds[0], parts=parts))
    return comparison


def at_labelled_share(comparison: Comparison, share: float, *, parts: Parts = OWN_PARTS) -> Comparison:
    """The ordinary comparison at one of its `labelled_shares`, in the same folder. Raises RecipeError where a recipe says a
    share of its own."""
    links = dict.fromkeys(link for chain in comparison.methods.values() for link in chain)
    at_share = {link: _link_at_share(link, share=share, parts=parts) for link in links}
    methods = {method: [at_share[link] for link in chain] for method, chain in comparison.methods.items()}
    return replace(comparison, methods=methods, labelled_shares=[])


def _link_at_share(link: str, *, share: float, parts: Parts) -> str:
    file, *overrides = shlex.split(link)
    if is_extraction_recipe(file):
        return link
    recipe = load_recipe(file, overrides, parts=parts)
    if recipe.data.labelled_share != 1:
        raise RecipeError(
            f"{file}: data.labelled_share is {recipe.data.labelled_share:g}, but the comparison's labelled_shares set it; remove "
            "one of the two."
        )
    if share == 1 or not recipe.kind.takes_labels:
        return link
    return f"{link} data.labelled_share={share:g} data.repeat_labelled=true"


def chain_stages(
    comparison: Comparison, method: str, *, seed: int, parts: Parts = OWN_PARTS
) -> Iterator[Stage]:
    """The stages of one method and seed, each linked to those before."""
    names: list[str] = []
    before: list[Stage] = []
    for link in comparison.methods[method]:
        file, *overrides = shlex.split(link)
        names.append("+".join([Path(file).stem, *overrides]).replace("/", "_"))
        path = Path(comparison.output) / f"seed_{seed}" / chain_folder(names)
        recipe: Recipe | ExtractionRecipe
        if is_extraction_recipe(file):
            recipe = replace(load_extraction_recipe(file, overrides), output=str(path))
        else:
            recipe = replace(load_recipe(file, overrides, parts=parts), output=str(path), seed=seed)
        if comparison.data_output is not None:
            recipe = _read_benchmark(recipe, comparison.data_output)
        if before:
            recipe = _link(recipe, before)
        stage = Stage(name=names[-1], recipe=recipe, path=path)
        yield stage
        before.append(stage)


def chain_folder(names: Sequence[str]) -> str:
    """The folder of a chain up to its last stage; a name too long for a file system keeps the recipes' names, and a hash of all."""
    whole = "__".join(names)
    if len(whole.encode()) <= MAX_FOLDER_BYTES:
        return whole
    recipes = "__".join(name.partition("+")[0] for name in names)
    return f"{recipes[: MAX_FOLDER_BYTES - 9]}_{sha256(whole.encode()).hexdigest()[:8]}"


def shared_stages(comparison: Comparison, method: str) -> list[bool]:
    """For each stage of a chain: whether another method's chain is the same up to and including it."""
    chain = comparison.methods[method]
    others = [other for name, other in comparison.methods.items() if name != method]
    lengths = range(1, len(chain) + 1)
    return [any(other[:length] == chain[:length] for other in others) for length in lengths]


def _link(recipe: Recipe | ExtractionRecipe, before: list[Stage]) -> Recipe | ExtractionRecipe:
    """Take up what stages before left in their folders: features, an adapter, or weights for the encoder."""
    extracted = [stage.path for stage in before if isinstance(stage.recipe, ExtractionRecipe)]
    if recipe.data.features is None:
        assert recipe.encoder is not None
        trained = [stage.path for stage in before if stage.path not in extracted]
        config = replace(recipe.encoder.config, weights=str(trained[-1]))
        recipe = replace(recipe, encoder=replace(recipe.encoder, config=config))
        return _with_global_features(recipe, extracted)
    features = extracted[-1] if extracted else before[-1].path
    data = replace(recipe.data, features=str(features))
    if recipe.data.joined_features is not None:
        data = replace(
            data, features=str(extracted[0]), joined_features=[str(path) for path in extracted[1:]]
        )
    recipe = replace(recipe, data=data)
    if isinstance(recipe, Recipe) and recipe.adapter is not None and recipe.adapter.config.frozen:
        adapted = [
            stage.path for stage in before if isinstance(stage.recipe, Recipe) and stage.recipe.adapter
        ]
        if adapted:
            config = replace(recipe.adapter.config, weights=str(adapted[-1]))
            recipe = replace(recipe, adapter=replace(recipe.adapter, config=config))
    return recipe


def _with_global_features(
    recipe: Recipe | ExtractionRecipe, extracted: list[Path]
) -> Recipe | ExtractionRecipe:
    """TSP's global video features are those of the last extraction."""
    if not (isinstance(recipe, Recipe) and extracted):
        return recipe
    if getattr(recipe.objective.config, "global_features", None) is None:
        return recipe
    config = replace(recipe.objective.config, global_features=str(extracted[-1]))
    return replace(recipe, objective=replace(recipe.objective, config=config))


def _read_benchmark(recipe: Recipe | ExtractionRecipe, data_output: str) -> Recipe | ExtractionRecipe:
    """Let a recipe read the benchmark that the comparison makes: its trimmed part, where its objective takes that, or the
    other."""
    paths = benchmark_paths(data_output)
    is_trimmed = isinstance(recipe, Recipe) and recipe.kind.takes_trimmed
    videos = paths.trimmed_videos if is_trimmed else paths.untrimmed_videos
    data = replace(
        recipe.data,
        annotations=str(paths.trimmed_annotations if is_trimmed else paths.untrimmed_annotations),
        videos=None if recipe.data.videos is None else str(videos),
        frame_cache=None if recipe.data.frame_cache is None else str(paths.root / "frames"),
    )
    return replace(recipe, data=data)
