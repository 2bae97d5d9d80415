"""Random seeds: one in the recipe, every other derived here."""

import numpy as np
import torch


def derive_seed(seed: int, *parts: int) -> int:
    """A seed for a place (rank, epoch, sample, ...) that differs from those of all other places."""
    return int(np.random.SeedSequence([seed, *parts]).generate_state(1, dtype=np.uint64)[0] >> 1)


def seed_model(seed: int) -> None:
    """Before the modules are built: equal weights on every rank."""
    torch.manual_seed(derive_seed(seed, 0))


def seed_rank(seed: int, rank: int) -> None:
    """Before the first step: each rank draws its own dropout."""
    torch.manual_seed(derive_seed(seed, 1, rank))
