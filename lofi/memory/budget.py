"""The recipe's `memory:` block: how much memory a run may take."""

import re
from dataclasses import dataclass

UNITS = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Choose how to train by what fits."""

    budget: str
    """Bytes of one device that the run may take, such as 11GiB: fidelity reduction, gradient path, chunk size and batch are
    then chosen before training, and said."""

    def __post_init__(self) -> None:
        parse_bytes(self.budget)


def parse_bytes(text: str, *, name: str = "memory.budget") -> int:
    """ "11GiB", "7.5 GB" or "900MiB" -> bytes. Raises ValueError, naming the option and the units."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", str(text))
    units = {name.lower(): size for name, size in UNITS.items()}
    if found is None or found[2].lower() not in units or float(found[1]) <= 0:
        raise ValueError(
            f"{name} is {text!r}; write a number and a unit, such as 11GiB ({', '.join(UNITS)})."
        )
    return int(float(found[1]) * units[found[2].lower()])
