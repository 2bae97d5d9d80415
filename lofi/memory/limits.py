"""How much memory there is, and which errors say that it was not enough."""

import os
from pathlib import Path

import torch

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def device_bytes() -> int:
    """All memory of the device that this process trains on, used or not; on a CPU what the container may use."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[1])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short; on a CPU PyTorch raises a plain RuntimeError for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
