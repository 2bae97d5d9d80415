"""What a file of weights is, and which encoder takes it."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import product
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from lofi.encoders import ENCODERS
from lofi.encoders.weights.families.library import LIBRARY
from lofi.encoders.weights.families.ours import PLAIN
from lofi.encoders.weights.loading import Fit, dropped_modules, fit_weights
from lofi.encoders.weights.networks import possible_networks
from lofi.encoders.weights.own_names import added_options
from lofi.encoders.weights.sources import Source
from lofi.progress import track

NOT_ARCHITECTURE = ("norm", "adapters", "feature")
"""Choices of an encoder's configuration that its public weights do not depend on; a run's own may, see `added_options`."""

NEAR = 0.25
"""Share of an encoder's tensors that must have been found for it to be worth saying what is amiss."""

PLAIN_IN_YAML = r"([A-Za-z_/]|\.+/)[\w./*+@-]*(:[\w./*+@-]+)?"
"""Strings that YAML reads as they are, in and out of lists; any other is quoted."""
YAML_WORDS = ("null", "true", "false", "yes", "no", "on", "off")
"""But for these, which it reads as something else."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An encoder, and how the weights meet it."""

    name: str
    """A key of `ENCODERS`."""
    options: dict[str, Any]
    """What of its configuration is not the default."""
    num_tensors: int
    """Of the encoder."""
    fit: Fit
    native: str
    """T x H x W that public weights of this encoder were trained at."""

    @property
    def title(self) -> str:
        return f"{self.name} {_joined(self.options)}".strip()

    @property
    def num_amiss(self) -> int:
        return len(self.fit.missing) + len(self.fit.unexpected) + len(self.fit.misshapen)


def architectures(network: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Every encoder in every size: name and options.

    Args:
        network: a library's name of a network, for the encoders that are told theirs by such a name.
    """
    found = []
    for name, (config_class, _) in ENCODERS.items():
        hints = get_type_hints(config_class)
        chosen = [
            each.name
            for each in fields(config_class)
            if get_origin(hints[each.name]) is Literal and each.name not in NOT_ARCHITECTURE
        ]
        defaults = {each.name: each.default for each in fields(config_class)}
        for values in product(*(get_args(hints[key]) for key in chosen)):
            options = {
                key: value for key, value in zip(chosen, values, strict=True) if value != defaults[key]
            }
            found.append((name, options))
            if network is not None and hints.get("network") is str:
                found.append((name, options | {"network": network}))
    return found


def open_bare(name: str, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """An encoder's configuration, and the encoder, without its weights. Raises ValueError for options that it does not take."""
    if name not in ENCODERS:
        raise ValueError(f"encoder {name!r} is not known; it must be one of {', '.join(ENCODERS)}.")
    config_class, build = ENCODERS[name]
    known = {each.name for each in fields(config_class)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"encoder {name} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
    try:
        config = replace(config_class(), **options)
    except TypeError as error:
        raise ValueError(f"encoder {name}: {error} (in {_joined(options)}).") from error
    return config, _build(build, config)


def meet(name: str, options: Mapping[str, Any], state: Mapping[str, Tensor]) -> Candidate:
    """Hold weights against an encoder, whose own weights are not allocated. Raises ValueError for options that it lacks."""
    config, encoder = open_bare(name, options)
    fit = fit_weights(encoder, state, allow=getattr(config, "allow_unmatched", ()))
    return Candidate(
        name=name,
        options=dict(options),
        num_tensors=len(encoder.state_dict()),
        fit=fit,
        native=encoder.input_sizes.native_text,
    )


@cache
def _build(build: Any, config: Any) -> nn.Module:
    """The encoder, without memory where that is possible."""
    try:
        with torch.device("meta"):
            encoder: nn.Module = build(config)
    except (ValueError, RuntimeError):  # some networks look at their tensors while they are built
        encoder = build(config)
    return encoder


def possible_encoders(
    state: Mapping[str, Tensor], *, network: str | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Every encoder in every size, and the networks and added layers that the tensors tell: name and options."""
    found = architectures(network)
    if network is None:
        found += [each for each in map(_without_defaults, possible_networks(state)) if each not in found]
    added = added_options(state)
    return [(name, options | _known_options(name, added)) for name, options in found]


def candidates(state: Mapping[str, Tensor], *, network: str | None = None) -> list[Candidate]:
    """Every architecture, the one that the weights fit best first; `network` as in `architectures`."""
    tried = possible_encoders(state, network=network)
    met = []
    with track("networks held against the weights", total=len(tried), is_even=False) as advance:
        for name, options in tried:
            # ValueError: options that do not go together, or a network that the encoder does not take.
            with suppress(ValueError):
                met.append(meet(name, options, state))
            advance(1, note=name)
    return sorted(
        met,
        key=lambda each: (not each.fit.is_whole, not each.fit.loaded, each.num_amiss - len(each.fit.loaded)),
    )


def _known_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that an encoder's configuration has."""
    known = {each.name for each in fields(ENCODERS[name][0])}
    return {key: value for key, value in options.items() if key in known}


def _without_defaults(choice: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    name, options = choice
    config = ENCODERS[name][0]()
    return name, {key: value for key, value in options.items() if value != getattr(config, key)}


def describe(source: Source, found: Sequence[Candidate], *, weights: str, most: int = 8) -> str:
    """The command's text.

    Args:
        source: what was read.
        found: candidates, best first; of one named encoder, or all.
        weights: as the recipe would name them.
        most: how many names of a kind are listed.
    """
    family = found[0].fit.family
    values = sum(tensor.numel() for tensor in source.state.values())
    types = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in source.state.values()})
    lines = [
        f"weights   {source.where}: {len(source.state)} tensors, {values / 1e6:.1f} million values ({', '.join(types)})",
        f"family    {family.name}: {family.source}",
    ]
    lines += [f"metadata  {key}: {value}" for key, value in sorted(source.metadata.items())]
    whole = [each for each in found if each.fit.is_whole]
    if not whole:
        best = found[0]
        num_loaded = len(best.fit.loaded)
        nearest = f"nearest is {best.title}: {num_loaded} of {best.num_tensors} tensors"
        lines.append(f"fits      no encoder; {nearest if num_loaded else 'none has a place for any tensor'}")
        is_near = num_loaded >= NEAR * best.num_tensors
        if len(found) == 1 or is_near:
            lines += _dropped(best.fit)
            lines += [f"amiss     {part}" for part in best.fit.problems(most=most).split("; ")]
        if len(found) > 1 and family in (LIBRARY, PLAIN):
            if_so = "if it is another" if is_near else "its keys do not tell it; if it is one"
            lines += [
                f"network   {if_so} of timm's image networks, name it: --encoder image network=NAME",
                "          a ResNet, RegNet or ConvNeXt also: --encoder tsm network=NAME (library=timm)",
            ]
        return "\n".join(lines)
    for each in whole[:most]:
        lines.append(f"fits      {each.title}: {len(each.fit.loaded)} of {each.num_tensors} tensors")
    if len(whole) > most:
        lines.append(f"          and {len(whole) - most} more")
    if sum("network" in each.options for each in whole) > 1:
        lines.append(
            "network   the tensors alone do not tell which; these differ in how frames are normalised or in layers without "
            "weights: take the one that the weights were made with"
        )
    best = whole[0]
    lines += _dropped(best.fit)
    for reason in dict.fromkeys(best.fit.initial.values()):
        names = [name for name, why in best.fit.initial.items() if why == reason]
        lines.append(
            f"as built  {len(names)} tensors ({names[0]}{', ...' if len(names) > 1 else ''}): {reason}"
        )
    uncounted = best.num_tensors - len(best.fit.loaded) - len(best.fit.initial)
    if uncounted:
        lines.append(f"as built  {uncounted} counters of batch norms, which play no part in the result")
    lines.append(
        f"native    {best.native} (frames x height x width): what public weights of {best.name} were trained at"
    )
    lines += ["recipe    encoder:", f"            name: {best.name}"]
    lines += [f"            {key}: {as_yaml(value)}" for key, value in best.options.items()]
    lines.append(f"            weights: {as_yaml(weights)}")
    lines.append("or        " + " ".join(_overrides(best, weights)))
    return "\n".join(lines)


def _overrides(candidate: Candidate, weights: str) -> list[str]:
    """As a shell takes them."""
    settings = {"name": candidate.name, **candidate.options, "weights": weights}
    return [shlex.quote(f"encoder.{key}={as_yaml(value)}") for key, value in settings.items()]


def _joined(options: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={as_yaml(value)}" for key, value in options.items())


def as_yaml(value: Any) -> str:
    """A value of an option as a recipe and a `key=value` have it: [layer4.1*,other], "*.weight", 3."""
    if value is None:
        return "null"
    if isinstance(value, tuple | list):
        return f"[{','.join(map(as_yaml, value))}]"
    if isinstance(value, str) and not (
        re.fullmatch(PLAIN_IN_YAML, value) and value.lower() not in YAML_WORDS
    ):
        return json.dumps(value)
    return str(value)


def _dropped(fit: Fit) -> list[str]:
    lines = []
    for reason in dict.fromkeys(fit.dropped.values()):
        keys = {key: why for key, why in fit.dropped.items() if why == reason}
        modules = dropped_modules(keys)
        shown = ", ".join(modules[:4]) + (", ..." if len(modules) > 4 else "")
        lines.append(f"dropped   {len(keys)} tensors ({shown}): {reason}")
    return lines
