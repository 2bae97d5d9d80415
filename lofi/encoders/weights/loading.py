"""Put weights of any family into an encoder. What does not fit is listed and refused, unless it is allowed by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor, nn

from lofi.encoders.weights.families import FAMILIES
from lofi.encoders.weights.families.family import OLD_HEAD, Family
from lofi.encoders.weights.families.library import LIBRARY
from lofi.encoders.weights.families.ours import PLAIN
from lofi.encoders.weights.own_names import added_options, is_added, own_name
from lofi.encoders.weights.sources import read_source

COUNTER = "num_batches_tracked"
"""Old checkpoints lack this buffer of batch norms, which plays no part in their result."""

ALLOWED = "allowed by encoder.allow_unmatched"


@dataclass(frozen=True, kw_only=True)
class Misshapen:
    """A tensor of another shape than the encoder's."""

    keys: tuple[str, ...]
    """The file's keys that it was made from."""
    shape: tuple[int, ...]
    wanted: tuple[int, ...]

    def describe(self) -> str:
        return f"{', '.join(self.keys)} is {self.shape}, wanted {self.wanted}"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a state dict meets an encoder."""

    family: Family
    loaded: dict[str, Tensor]
    """The encoder's name -> the tensor that it takes."""
    dropped: dict[str, str]
    """The file's key -> why it has no place in an encoder."""
    initial: dict[str, str]
    """The encoder's name -> why it keeps its initial value."""
    missing: tuple[str, ...] = ()
    """The encoder's names that the file lacks."""
    unexpected: tuple[str, ...] = ()
    """The file's keys that the encoder has no place for."""
    misshapen: dict[str, "Misshapen"] = field(default_factory=dict)
    """By the encoder's name."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is amiss."""
        return not (self.missing or self.unexpected or self.misshapen)

    def problems(self, *, most: int = 5) -> str:
        """What is amiss, at most so many names of each kind."""
        kinds = (
            ("not in the file", list(self.missing)),
            ("not in the encoder", list(self.unexpected)),
            ("of another shape", [each.describe() for each in self.misshapen.values()]),
        )
        return "; ".join(f"{what}: {_listed(names, most=most)}" for what, names in kinds if names)


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What `load_encoder_weights` did."""

    source: str
    """The file, or the name of the weights."""
    family: str
    """Whose names the weights had: a name of `FAMILIES`."""
    loaded: tuple[str, ...]
    """The encoder's tensors that were set."""
    dropped: dict[str, str]
    """The file's tensors that have no place in an encoder -> why: the old head, a decoder, the modules beside the encoder."""
    initial: dict[str, str]
    """The encoder's tensors that kept their initial values -> why."""
    missing: tuple[str, ...]
    """The counters of batch norms that the file lacks."""

    def summary(self) -> str:
        """One line for the log."""
        line = f"encoder weights: {len(self.loaded)} tensors from {self.source} (names of {self.family}"
        if self.dropped:
            line += f", without {', '.join(dropped_modules(self.dropped))}"
        if self.initial:
            line += f"; as built: {_listed(list(self.initial), most=3)}"
        return line + ")"


def load_encoder_weights(
    encoder: nn.Module, source: str | Path, *, allow: Sequence[str] = ()
) -> WeightsReport:
    """Set the weights of an encoder.

    Args:
        encoder: any of `ENCODERS`.
        source: whatever `sources.read_source` takes.
        allow: names that need not match, "*" for any run of characters: of the file, which are then left out; of the encoder,
            which then keep their initial values.

    Raises:
        ValueError: naming the source and the key `encoder.weights`, for weights that cannot be read or do not fit, and for a
            name of `allow` that nothing has to do with. The encoder is then unchanged.
    """
    found = read_source(source, torchvision_name=getattr(encoder, "torchvision_name", None))
    fit = fit_weights(encoder, found.state, allow=allow)
    if not fit.is_whole:
        raise ValueError(
            f"encoder.weights: {found.where} (names of {fit.family.name}) does not fit {type(encoder).__name__}. "
            f"{fit.problems()}. Choose the encoder and options that the weights were made with (`python -m "
            "lofi.encoders.weights` says which), or allow what may differ: encoder.allow_unmatched."
            f"{_hint(encoder, found.state)}"
        )
    encoder.load_state_dict(fit.loaded, strict=False)
    absent = set(encoder.state_dict()) - set(fit.loaded) - set(fit.initial)
    return WeightsReport(
        source=found.where,
        family=fit.family.name,
        loaded=tuple(fit.loaded),
        dropped=fit.dropped,
        initial=fit.initial,
        missing=tuple(name for name in encoder.state_dict() if name in absent),
    )


def _hint(encoder: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Where the weights were made with layers of ours that the encoder lacks: the options that give them to it."""
    own = added_options(encoder.state_dict())
    other = {key: value for key, value in added_options(state).items() if own.get(key) != value}
    settings = " and ".join(f"encoder.{key}: {value}" for key, value in other.items())
    return f" These weights have more layers than the public ones: set {settings}." if settings else ""


def family_of(keys: Sequence[str]) -> Family:
    """Whose names these are; `PLAIN` where no other family knows them."""
    return next(family for family in FAMILIES if family.matches(keys))


def fit_weights(encoder: nn.Module, state: Mapping[str, Tensor], *, allow: Sequence[str] = ()) -> Fit:
    """Translate a state dict, and hold it against an encoder; nothing is set, and the encoder may be on `meta`."""
    wanted = encoder.state_dict()
    family = _library_or_own(encoder, wanted, state, family=family_of(list(state)))
    translated = family.translate(state)
    names = {name if family.is_own else own_name(encoder, name): name for name in translated.tensors}
    dropped = dict(translated.dropped)
    unexpected: list[str] = []
    for key in (key for name, key in names.items() if name not in wanted):
        if family.is_head(key):
            dropped |= dict.fromkeys(translated.keys[key], OLD_HEAD)
        else:
            unexpected += translated.keys[key]
    loaded, misshapen = {}, {}
    for name in (name for name in wanted if name in names):
        tensor = translated.tensors[names[name]]
        if tensor.shape == wanted[name].shape:
            loaded[name] = tensor
        else:
            misshapen[name] = Misshapen(
                keys=translated.keys[names[name]], shape=tuple(tensor.shape), wanted=tuple(wanted[name].shape)
            )
    fresh = {own_name(encoder, name): reason for name, reason in translated.fresh.items()}
    has_added = any(is_added(name) for name in names)
    if not has_added:
        fresh |= dict.fromkeys(filter(is_added, wanted), "no public network has it; it starts as built")
    absent = [name for name in wanted if name not in names and not name.endswith(COUNTER)]
    fit = Fit(
        family=family,
        loaded=loaded,
        dropped=dropped,
        initial={name: fresh[name] for name in absent if name in fresh},
        missing=tuple(name for name in absent if name not in fresh),
        unexpected=tuple(unexpected),
        misshapen=misshapen,
    )
    return _allowing(fit, allow)


def _library_or_own(
    encoder: nn.Module, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], *, family: Family
) -> Family:
    """Names that no other family has are a library's, or the encoder's own: whichever more of its tensors have."""
    if family not in (LIBRARY, PLAIN):
        return family
    num_own = sum(key in wanted for key in state)
    num_library = sum(own_name(encoder, key) in wanted for key in state)
    return family if num_own == num_library else PLAIN if num_own > num_library else LIBRARY


def dropped_modules(dropped: Mapping[str, str]) -> list[str]:
    """The modules of dropped keys, in short: a head by its name, whatever lies beside an encoder by its first part."""
    return sorted(
        {
            key.rsplit(".", 1)[0] if reason == OLD_HEAD else key.split(".")[0]
            for key, reason in dropped.items()
        }
    )


def _allowing(fit: Fit, allow: Sequence[str]) -> Fit:
    """The same without what `allow` names; a pattern that names nothing amiss is an error."""
    used: set[str] = set()

    def is_allowed(*names: str) -> bool:
        found = {pattern for pattern in allow for name in names if fnmatchcase(name, pattern)}
        used.update(found)
        return bool(found)

    missing = [name for name in fit.missing if is_allowed(name)]
    unexpected = [key for key in fit.unexpected if is_allowed(key)]
    misshapen = {name: each for name, each in fit.misshapen.items() if is_allowed(name, *each.keys)}
    useless = [pattern for pattern in allow if pattern not in used]
    if useless:
        raise ValueError(
            f"encoder.allow_unmatched: {', '.join(useless)} names nothing that does not match; remove it. "
            f"{fit.problems() or 'All tensors match'}."
        )
    left_out = [*unexpected, *(key for each in misshapen.values() for key in each.keys)]
    return replace(
        fit,
        dropped=fit.dropped | dict.fromkeys(left_out, ALLOWED),
        initial=fit.initial | dict.fromkeys([*missing, *misshapen], ALLOWED),
        missing=tuple(name for name in fit.missing if name not in missing),
        unexpected=tuple(key for key in fit.unexpected if key not in unexpected),
        misshapen={name: each for name, each in fit.misshapen.items() if name not in misshapen},
    )


def _listed(names: list[str], *, most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
